"""Hive's small files: what a session's folder, meta.json and state.json say of it; colonies; task lists.

They are rewritten in place: each version is one observation. Does not belong here: logs, databases.
"""

from collections.abc import Iterator, Sequence

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import Clock, LogClock, OffsetReading, epoch_time, local_stamp, utc_time
from pipelines.device.readers.base import Item, Json
from pipelines.device.readers.hive.layout import ColonyFolder, SessionFolder


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def session(
    folder: SessionFolder, meta: Json, state: Json, clock: Clock, readings: Sequence[OffsetReading] = ()
) -> Item:
    """What one folder says of its session. `readings`: of the writer's UTC offset, the best first."""
    times = LogClock(clock, readings)
    stamps = _dict(state.get("timestamps"))
    progress = _dict(state.get("progress"))
    started = times.event_time(stamps.get("started_at")) or times.event_time(local_stamp(folder.session_id))
    updated = times.event_time(stamps.get("updated_at"))
    ended = times.event_time(stamps.get("completed_at"))
    reading = readings[0] if readings else None
    spawned_at = epoch_time(meta.get("spawned_at"))
    kind = folder.kind
    if kind == "other":
        kind = _kind(meta, state)
    elif kind == "queen" and meta.get("colony_fork") is True:
        kind = "colony_queen"
    evidence = "state" if state else "worker_meta" if "worker_id" in meta else "meta" if meta else "folder"
    started_at = spawned_at or (started.at if started else None) or epoch_time(meta.get("created_at"))
    values: dict[str, object] = {
        "session_id": folder.session_id,
        "parent_session_id": meta.get("queen_session_id") or folder.parent_session_id or meta.get("forked_from"),
        "forked_from_session_id": meta.get("forked_from"),
        "queen_name": meta.get("queen_id") or meta.get("queen_name") or folder.queen_name,
        "agent_name": folder.agent_name
        or (state.get("agent_id") if kind in ("agent_session", "secondary_graph") else None),
        "colony_name": folder.colony_name or (meta.get("colony_id") if "worker_id" in meta else _forked_colony(meta)),
        "profile_name": meta.get("profile_name"),
        "evidence": evidence,
        "session_kind": kind,
        "status": state.get("status"),
        "phase": meta.get("phase"),
        "execution_quality": progress.get("execution_quality"),
        "steps_executed": progress.get("steps_executed"),
        "total_retries": progress.get("total_retries"),
        "total_tokens": progress.get("total_tokens"),
        "batch_size": meta.get("batch_size"),
        "batch_index": meta.get("batch_index"),
        "started_at": started_at,
        "updated_at": updated.at if updated else None,
        "ended_at": ended.at if ended else None,
        "is_copy": folder.is_copy,
        "utc_offset_seconds": int(reading.offset.total_seconds()) if reading else None,
        "offset_basis": reading.basis if reading else None,
        "offset_observed_at": reading.at if reading else None,
    }
    known = (started.at if started else None, updated.at if updated else None, spawned_at)
    totals = ("total_tokens", "steps_executed", "total_retries")
    return Item(wire.SESSIONS, (Constant(folder.kind), folder.session_id), values, known, totals, started_at)


def _kind(meta: Json, state: Json) -> str:
    """The kind of a session in the layout that keeps all sessions in one folder."""
    if meta.get("colony_fork") is True:
        return "colony_queen"
    if "queen_id" in meta:
        return "queen"
    stream = state.get("stream_id")
    if isinstance(stream, str) and stream.startswith("worker:"):
        return "worker"
    return "agent_session" if state else "other"


def _forked_colony(meta: Json) -> object:
    """The folder name at the end of a fork's `agent_path` is its colony's name; the path itself goes nowhere."""
    path = meta.get("agent_path")
    if meta.get("colony_fork") is not True or not isinstance(path, str):
        return None
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or None


def colony(folder: ColonyFolder, metadata: Json, worker: Json, *, has_progress_db: bool) -> Item | None:
    """What colonies/*/metadata.json and worker.json say; None without metadata: then it is a shadow, no colony.

    A colony is known by its queen's session. One that names none is known by the session it came from, or by its name.
    """
    if not metadata:
        return None
    source_session = _text(metadata.get("source_session_id")) or _text(worker.get("spawned_from"))
    queen_session = _text(metadata.get("queen_session_id")) or source_session or folder.colony_name
    created_at, updated_at = utc_time(metadata.get("created_at")), utc_time(metadata.get("updated_at"))
    values = {
        "queen_session_id": queen_session,
        "source_session_id": source_session,
        "colony_name": folder.colony_name,
        "queen_name": metadata.get("queen_name") or worker.get("queen_id"),
        "worker_count": _dict(metadata.get("workers")),
        "max_concurrent_workers": metadata.get("max_concurrent_workers"),
        "has_progress_db": has_progress_db,
        "created_at": created_at,
        "updated_at": updated_at,
    }
    return Item(wire.COLONIES, (queen_session,), values, (created_at, updated_at))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _numbers(value: object) -> str | None:
    """A list of tasks' numbers as one text; None if there is none, or if anything else is among them."""
    ids = [str(number) for number in value] if isinstance(value, list) else []
    return ",".join(ids) if ids and all(number.isdecimal() for number in ids) else None


def task_list(found: Json, *, list_id: str, list_kind: str, colony_name: str | None) -> Iterator[Item]:
    """The tasks of a tasks.json."""
    tasks = found.get("tasks")
    for task in tasks if isinstance(tasks, list) else ():
        if not isinstance(task, dict) or not isinstance(task.get("id"), (int, str)) or isinstance(task["id"], bool):
            continue
        task_id = str(task["id"])
        created_at, updated_at = epoch_time(task.get("created_at")), epoch_time(task.get("updated_at"))
        values = {
            "list_id": list_id,
            "task_id": task_id,
            "worker_id": task.get("owner"),
            "colony_name": colony_name,
            "item": "task",
            "list_kind": list_kind,
            "status": task.get("status"),
            "blocks_ids": _numbers(task.get("blocks")),
            "blocked_by_ids": _numbers(task.get("blocked_by")),
            "blocks_count": task.get("blocks"),
            "blocked_by_count": task.get("blocked_by"),
            "created_at": created_at,
            "updated_at": updated_at,
        }
        yield Item(wire.TASKS, (Constant(list_kind), list_id, task["id"]), values, (created_at, updated_at))
