"""Claude Code's homes: transcripts of sessions and of their sub-agents."""
