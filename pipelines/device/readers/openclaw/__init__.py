"""OpenClaw (earlier ClawdBot, MoltBot): transcripts in files until 2026.7, in SQLite from 2026.8 on.

Does not belong here: what another runtime has as well (the modules above).
"""
