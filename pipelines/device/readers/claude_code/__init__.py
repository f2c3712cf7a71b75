"""Claude Code's homes: transcripts of sessions and of their sub-agents.

Does not belong here: what another runtime has as well (the modules above).
"""
