"""Where hyperhive keeps what may be read: statistics of turns, the broker, the transcripts of agents.

Events of agents repeat what they said, and nothing of them is opened; names of agents leave as keyed hashes.
Does not belong here: what a file means (the modules beside), where Claude Code keeps transcripts (claude_code).
"""

import os
from pathlib import Path

HOME = Path("/var/lib/hyperhive")
BROKERS = ("db/broker.sqlite", "broker.sqlite")  # today's place, the earlier one
STATISTICS = ("harness/hyperhive-turn-stats.sqlite", "state/hyperhive-turn-stats.sqlite")
MAX_AGENTS = 1000


def usual_homes() -> list[Path]:
    """The folder of the host's service, if it exists."""
    return [HOME] if HOME.is_dir() else []


def is_home(path: Path) -> bool:
    """Whether it holds a broker, or an agent with statistics of its turns, where hyperhive keeps them."""
    return broker(path) is not None or any(statistics(agent) for agent in agents(path))


def agents(home: Path) -> list[Path]:
    """The folders of agents, in the order of their names."""
    try:
        with os.scandir(home / "agents") as entries:
            found = sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return found[:MAX_AGENTS]


def broker(home: Path) -> Path | None:
    """The host's database of messages, approvals, questions and reminders."""
    return next((home / name for name in BROKERS if (home / name).exists()), None)


def statistics(agent: Path) -> list[Path]:
    """The statistics of an agent's turns: today's, and those of an earlier layout that were left behind."""
    return [agent / name for name in STATISTICS if (agent / name).exists()]


def transcripts(agent: Path) -> Path:
    """The agent's configuration folder of Claude Code."""
    return agent / "claude"
