"""THE tables of the wire, version 1: everything that may leave a device, each column with the reason it is collected.

Names follow OpenTelemetry's GenAI conventions: `input_tokens` includes the cache, `cache_read_input_tokens` and
`cache_write_input_tokens` are subsets of it. Times are UTC. A nullable column may be added within a version; anything
else is a new version beside this one (tests/contract pins the published hash).

Does not belong here: how a value is found on disk (device/readers), what a mart makes of it (models/).
"""

import hashlib
import json
from dataclasses import replace

from pipelines.contract.keys import (
    GENERATED_ID,
    HEX_12,
    HEX_16,
    HEX_32,
    KEYED,
    RECORD_ID,
    RESPONSE_ID,
    RUN_STAMP,
    SESSION_ID,
    SLUG,
    UUID,
)
from pipelines.contract.table import Column, Keep, Rule, Table

# The forms of identifiers, by what they name: only what a source generates for a column travels in it in clear.
SESSION = rf"{SESSION_ID}|{RUN_STAMP}|{UUID}"
STREAM = rf"worker:{SESSION_ID}"
NUMBER = r"\d{1,6}"  # task lists number their tasks from 1; a longer number is somebody's telephone
NUMBERS = rf"{NUMBER}(,{NUMBER}){{0,255}}"
TASK = rf"{NUMBER}|{UUID}"
# What earlier versions let through in any of these columns.
ACCEPTED = rf"(?!\d+$)({GENERATED_ID})"
ACCEPTED_TASK = rf"{ACCEPTED}|\d{{1,9}}"
ACCEPTED_NUMBERS = r"\d{1,9}(,\d{1,9}){0,255}"
# What a number of tokens or an amount must stay below for sums to hold it: 92 million turns of the most tokens fit a
# BIGINT. What is merely implausible is counted and marked in the warehouse (`fct_llm_turns.is_implausible`).
MAX_TOKENS = 100_000_000_000
MAX_COST_USD = 1_000_000
MAX_CLAIMED_TOKENS = 1_000_000_000_000_000  # a cache of statistics may cover years
MAX_MILLISECONDS = 366 * 86_400_000
TIME_BASES = ("utc", "local_resolved", "session_id", "file_mtime")
OFFSET_READINGS = ("session_created_at", "run_created_at", "tool_started_at", "file_modified_at")
OFFSET_BASES = (*OFFSET_READINGS, "line_order", "device_zone")
MAX_OFFSET_SECONDS = 14 * 3600
ERROR_CLASSES = (
    "auth", "cancelled", "context_length", "invalid_request", "network", "overloaded", "permission", "rate_limit",
    "server", "stale_claim", "timeout", "tool", "type_or_value", "other",
)  # fmt: skip
TASK_STATES = (
    "pending", "claimed", "in_progress", "started", "done", "completed", "failed", "abandoned", "archived", "other",
)  # fmt: skip
AGENT_ROLES = ("queen", "worker", "graph", "agent", "other")
AGENT_RUNTIMES = ("hive", "claude-code", "openclaw", "hyperhive")
"""The agent runtimes whose homes can be read (device/readers has a package for each)."""

ORIGIN_BY = ("is_copy", "is_sidechain", "transcript_ended_at")
ORIGIN = ("parent_session_id", "agent_role")


def _record() -> Column:
    return Column(
        name="record_id", type="string", pattern=RECORD_ID, required=True,
        why="Identity of the record on every device of the tenant; removes copies.",
    )  # fmt: skip


def _id(
    name: str, why: str, *, pattern: str = SESSION, accepted: str = ACCEPTED, required: bool = False, vocabulary: str = ""
) -> Column:  # fmt: skip
    return Column(
        name=name, type="string", keep=Keep.ID, why=why, required=required, pattern=pattern, accepted=accepted,
        vocabulary=vocabulary,
    )  # fmt: skip


def _added(column: Column) -> Column:
    return replace(column, is_addition=True)


def _name(name: str, why: str, vocabulary: str = "") -> Column:
    return Column(name=name, type="string", keep=Keep.KEYED_HASH, vocabulary=vocabulary, why=why, fact=False)


def _enum(name: str, values: tuple[str, ...], why: str, *, required: bool = False, fact: bool = True) -> Column:
    return Column(name=name, type="string", values=values, why=why, required=required, fact=fact)


def _count(
    name: str, why: str, *, maximum: int = 1_000_000_000, required: bool = False, keep: Keep = Keep.VERBATIM
) -> Column:
    return Column(name=name, type="int64", minimum=0, maximum=maximum, why=why, required=required, keep=keep)


def _tokens(name: str, why: str, *, required: bool = False, maximum: int = MAX_TOKENS) -> Column:
    return _count(name, why, maximum=maximum, required=required)


def _runtime() -> Column:
    """No fact: a device that did not know the column yet sends the same record without it."""
    return Column(
        name="agent_runtime", type="string", values=AGENT_RUNTIMES, fact=False, is_addition=True,
        why="Which agent runtime wrote the record; NULL, from before there were several, is `hive`.",
    )  # fmt: skip


COVERAGE = (
    "lines_seen",
    ("lines_staged", "lines_duplicate", "lines_skipped", "lines_rejected", "lines_before_consent"),
)


def _losses() -> tuple[Column, ...]:
    """Why lines were rejected, reason by reason, and what could not be read at all."""
    reasons = {
        "torn": "Of the rejected: cut off in the middle.",
        "nul_fill": "Of the rejected: NUL bytes, as a loss of power leaves them.",
        "bad_utf8": "Of the rejected: bytes that are no text.",
        "too_long": "Of the rejected: longer than any record.",
        "bad_type": "Of the rejected: whole, but no record of its kind, or a value out of its bounds.",
        "tail_abandoned": "Of the rejected: a torn last line that nobody finished for a day.",
    }
    return (
        *(_added(_count(f"lines_rejected_{reason}", why)) for reason, why in reasons.items()),
        _added(
            _count(
                "source_lost_bytes",
                "Bytes that were seen and then deleted or cut off before they were read.",
                maximum=1_000_000_000_000_000,
            )
        ),
    )


def _flag(name: str, why: str, *, fact: bool = True) -> Column:
    return Column(name=name, type="bool", why=why, fact=fact)


def _at(name: str, why: str, *, fact: bool = False) -> Column:
    return Column(name=name, type="timestamp", why=why, fact=fact)


def _basis() -> Column:
    return Column(
        name="time_basis", type="string", values=TIME_BASES, fact=False,
        why="Where the time comes from: a local time resolved in the device's zone is a weaker claim than UTC.",
    )  # fmt: skip


def _identity_version() -> Column:
    return Column(
        name="identity_version", type="int64", minimum=2, maximum=9, fact=False, is_addition=True,
        why="Which rule made the record's identity, where the first release would have given another one: a copy that was"
        " sent under that one counts once.",
    )  # fmt: skip


def _ambiguous() -> Column:
    return Column(
        name="is_time_ambiguous", type="bool", fact=False,
        why="The local time may mean several instants, or what tells its offset is weak or contradicts it; the likeliest"
        " one was taken.",
    )  # fmt: skip


def _utc_offset() -> tuple[Column, ...]:
    """The UTC offset of the clock that wrote a local time, and what tells it: the warehouse resolves the time again."""
    return (
        _added(Column(
            name="utc_offset_seconds", type="int64", minimum=-MAX_OFFSET_SECONDS, maximum=MAX_OFFSET_SECONDS, fact=False,
            why="The offset that a local time was resolved with: the time plus the offset is the local time as written.",
        )),
        _added(Column(
            name="offset_basis", type="string", values=OFFSET_BASES, fact=False,
            why="What tells the offset: an epoch time of the source beside a local one, the order of lines, or only the"
            " zone the device is enrolled in.",
        )),
    )  # fmt: skip


def _error_class() -> Column:
    return Column(
        name="error_class", type="string", keep=Keep.CLASS, values=ERROR_CLASSES,
        why="What kind of thing went wrong; the message itself never leaves.",
    )  # fmt: skip


LLM_TURNS = Table(
    name="llm_turns",
    grain="One LLM turn (one outer iteration of an agent's loop), once, at its origin.",
    source="`llm_turn_complete` events of events.jsonl",
    identity="execution id (if generated), stream (if public or generated), time as written and iteration, as a plain hash;"
    " where one of them is a name, the token counts instead of it. Turns that share all that and differ in a name (node,"
    " stream, execution) are numbered in the order of the log",
    is_keyless=True,
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session or worker that used the tokens.", required=True),
        _id("parent_session_id", "The queen session of a parallel worker; rolls its usage up."),
        _id("stream_id", "Which loop of the session it was.", pattern=STREAM, vocabulary="streams"),
        _name("node_id", "Which node of a graph used the tokens.", "nodes"),
        _name("model", "Price and model mix; the model of the turn's last request.", "models"),
        _enum("agent_role", AGENT_ROLES, "Usage by kind of agent.", required=True),
        _enum("stop_reason", ("stop", "tool_calls", "length", "cancelled", "content_filter", "error", "other"),
              "Finished, cut or cancelled turns; cancelled ones are billed too."),
        _added(_id("response_id", "The provider's id of the response: its identity where one row is one response.",
                   pattern=RESPONSE_ID)),
        _added(_enum("turn_grain", ("turn", "response"), "Whether a row is one response of a model or one turn of the"
                     " agent's loop, which may hold several; NULL is `turn`.", fact=False)),
        _added(_enum("request_kind", ("message", "advisor", "other"), "An advisor's request within a response has its own"
                     " model and is in no other row.")),
        _added(_enum("service_tier", ("standard", "priority", "batch", "flex", "other"), "Price; NULL: not recorded.")),
        _added(_enum("speed", ("standard", "fast", "other"), "Price; NULL: not recorded.")),
        _added(_enum("inference_geo", ("global", "us", "eu", "other"), "Price: where the provider computed it.")),
        _count("iteration", "Tells two turns of one instant apart."),
        _identity_version(),
        _tokens("input_tokens", "Billed. Includes cache.", required=True),
        _tokens("cache_read_input_tokens", "Billed at another price; a subset of the input. NULL: not recorded."),
        _tokens("cache_write_input_tokens", "Billed at another price; a subset of the input. NULL: not recorded."),
        _added(_tokens("cache_write_5m_input_tokens", "Of the cache writes, those kept for 5 minutes: their own price.")),
        _added(_tokens("cache_write_1h_input_tokens", "Of the cache writes, those kept for an hour: their own price.")),
        _tokens("output_tokens", "Billed.", required=True),
        _added(_tokens("reasoning_output_tokens", "Of the output, reasoning; NULL: not recorded.")),
        _added(_count("web_search_requests", "Billed for each request.", maximum=100_000)),
        Column(name="reported_cost_usd", type="decimal", minimum=0, maximum=MAX_COST_USD,
               why="The source's own estimate, to reconcile with; NULL where unreported (0.0 on disk means that)."),
        Column(name="reported_credits", type="decimal", minimum=0, maximum=1_000_000_000,
               why="The source's virtual currency, where it writes one."),
        _ambiguous(),
        _added(_flag("is_sidechain", "A sub-agent's response; false if any copy of it is not.", fact=False)),
        _added(_flag("is_final", "The response ended; false: it was interrupted or is under way, and its output is what was"
                     " known. Not NULL: a later observation of the record may take this row's place.")),
        _added(_flag("is_covered", "A turn of which responses were found after it was sent: they count, it does not.")),
        _added(_flag("is_copy", "Only copies were seen, of which the source says whose they are.", fact=False)),
        *_utc_offset(),
        _at("occurred_at", "Day and price of the turn."),
        _added(_at("transcript_ended_at", "Last time in the transcript it was read from, of a line that was copied the time it"
                   " was forked: of two that hold it the earlier one tells the origin.")),
        _basis(),
    ),
    superseded_by=("is_final", "is_covered", "output_tokens", "occurred_at"),
    origin_by=ORIGIN_BY,
    origin=ORIGIN,
)  # fmt: skip

TOOL_CALLS = Table(
    name="tool_calls",
    grain="One finished tool call as one source saw it; the warehouse decides which source counts.",
    source="`tool_call_completed` events; `tool_calls` of L3 lines",
    identity="execution id, stream, time as written and tool-use id; of a step's call the step and its place in it",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session or worker that called the tool.", required=True),
        _id("parent_session_id", "The queen session of a parallel worker."),
        Column(name="step_record_id", type="string", pattern=RECORD_ID, why="The L3 step of the call: counts if it does."),
        _name("tool_name", "Which tools are used; a customer's own tool is keyed.", "tools"),
        _enum("origin", ("event", "step"), "Which log saw it: a call seen by both counts once.", required=True),
        _enum("agent_role", AGENT_ROLES, "Tools by kind of agent.", required=True),
        _flag("is_error", "Error rate of a tool."),
        # Not a fact: of an event's call it is known only where one pass over the log saw both its start and its end.
        Column(name="duration_seconds", type="double", minimum=0, maximum=31_622_400, fact=False,
               why="Duration of a tool."),
        _ambiguous(),
        _added(_flag("is_sidechain", "A sub-agent's call; false if any copy of it is not.", fact=False)),
        _added(_flag("is_final", "The result was seen; before that neither error nor duration is known. Not NULL: a later"
                     " observation of the record may take this row's place.")),
        _added(_flag("is_covered", "A call of a turn whose responses were found after it was sent: theirs count.")),
        _added(_flag("is_copy", "Only copies were seen, of which the source says whose they are.", fact=False)),
        *_utc_offset(),
        _at("occurred_at", "Day of the call: the end of an event's call, the start of a step's or a response's."),
        _added(_at("transcript_ended_at", "As of turns.")),
        _basis(),
    ),
    superseded_by=("is_final", "is_covered"),
    origin_by=ORIGIN_BY,
    origin=ORIGIN,
)  # fmt: skip

NODE_STEPS = Table(
    name="node_steps",
    grain="One L3 line: one iteration of a node's loop, or a compaction marker.",
    source="logs/tool_logs.jsonl, runs/*/tool_logs.jsonl",
    identity="span id, as a plain hash; without one session id (if generated), line number, step, token counts and latency, and"
    " the order among steps that share all that",
    is_keyless=True,
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session the log belongs to.", required=True),
        _id("trace_id", "Tells the runs apart that share a session.", pattern=HEX_32),
        _id("span_id", "Join to traces.", pattern=HEX_16),
        _name("node_id", "Which node worked.", "nodes"),
        _enum("verdict", ("ACCEPT", "RETRY", "ESCALATE", "CONTINUE", "COMPACTION", "other"), "How the step was judged."),
        _error_class(),
        Column(name="step_index", type="int64", minimum=-1, maximum=1_000_000_000, required=True,
               why="-1 marks a compaction, which is no turn."),
        Column(name="source_line", type="int64", minimum=1, maximum=1_000_000_000_000, fact=False,
               why="Order of the steps: an L3 line has no clock."),
        _identity_version(),
        _tokens("input_tokens", "Billed where no event saw the turn.", required=True),
        _tokens("output_tokens", "Billed where no event saw the turn.", required=True),
        _count("latency_ms", "Time of a step.", maximum=MAX_MILLISECONDS),
        _count("tool_call_count", "Tool calls of the step.", keep=Keep.COUNT),
        _flag("is_partial", "The step died; its tokens read 0 although some were billed."),
        _at("tool_started_at", "The earliest tool start: the best evidence of the step's time.", fact=True),
        _added(_flag("is_copy", "Only a copy of the log was seen.", fact=False)),
        _at("file_modified_at", "The last resort for the step's time."),
    ),
)  # fmt: skip

NODE_DETAILS = Table(
    name="node_details",
    grain="One L2 line: one exit of a node.",
    source="logs/details.jsonl, runs/*/details.jsonl",
    identity="span id; without one session id, line number and the hash of the line",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session the log belongs to.", required=True),
        _id("trace_id", "Tells the runs apart that share a session.", pattern=HEX_32),
        _id("span_id", "Join to traces.", pattern=HEX_16),
        _name("node_id", "Which node ended.", "nodes"),
        _enum("node_type", ("event_loop", "function", "router", "llm_generate", "llm_tool_use", "other"), "Kind of node."),
        _enum("exit_status", ("success", "failure", "stalled", "escalated", "paused", "guard_failure", "ghost_stream",
                              "cancelled", "other"), "How the node ended."),
        _error_class(),
        Column(name="source_line", type="int64", minimum=1, maximum=1_000_000_000_000, fact=False,
               why="Order of the exits: an L2 line has no clock."),
        _count("total_steps", "Length of the node's work."),
        _tokens("tokens_used", "Control total; the only one set on fallback lines."),
        _tokens("input_tokens", "Control total against the steps."),
        _tokens("output_tokens", "Control total against the steps."),
        _count("latency_ms", "Time of the node.", maximum=MAX_MILLISECONDS),
        _count("attempt", "Retries of a node."),
        _count("accept_count", "Verdicts."),
        _count("retry_count", "Verdicts; a normal tool turn counts as one."),
        _count("escalate_count", "Verdicts."),
        _count("continue_count", "Verdicts."),
        _count("attention_count", "How many reasons the runtime saw to look at it; the reasons stay.", keep=Keep.COUNT),
        _flag("is_success", "Success rate of a node."),
        _flag("needs_attention", "The runtime's own flag."),
        _at("file_modified_at", "The last resort for the exit's time."),
    ),
)  # fmt: skip

RUN_SUMMARIES = Table(
    name="run_summaries",
    grain="One version of an L1 file: the totals of a session's log at the end of a run.",
    source="logs/summary.json, runs/*/summary.json",
    identity="trace id or session id, start and the hash of the file",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session the log belongs to.", required=True),
        _id("trace_id", "The run it describes: the last one.", pattern=HEX_32),
        _name("agent_name", "Which agent ran."),
        _name("goal_id", "Groups the runs of one goal."),
        _enum("status", ("success", "failure", "degraded", "in_progress", "other"), "Outcome of the run."),
        _enum("execution_quality", ("clean", "degraded", "failed", "other"), "Quality of the run."),
        _count("total_nodes_executed", "Control total: L2 lines of all runs."),
        _tokens("total_input_tokens", "Control total over all runs of the file."),
        _tokens("total_output_tokens", "Control total over all runs of the file."),
        _count("duration_ms", "Length of the last run.", maximum=MAX_MILLISECONDS),
        _count("attention_count", "How many reasons the runtime saw to look at it; the reasons stay.", keep=Keep.COUNT),
        _flag("needs_attention", "The runtime's own flag."),
        _at("started_at", "Start of the last run: evidence for the time of its steps.", fact=True),
    ),
)

SESSIONS = Table(
    name="sessions",
    grain="One observation of what one folder or event says of a session; a new row when that changes.",
    source="meta.json, state.json, worker meta.json, folder names, colony_fork_marker and colony_created events",
    identity="kind of folder, session id, number of the observation and what was observed",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session or worker.", required=True),
        _id("parent_session_id", "The session it was spawned or forked from."),
        _id("forked_from_session_id", "Its history is a copy of that session's."),
        _id("trace_id", "The run in progress or the last one.", pattern=HEX_32),
        _name("queen_name", "Usage per queen.", "queens"),
        _name("agent_name", "Usage per agent."),
        _name("colony_name", "Usage per colony."),
        _name("profile_name", "The profile a worker ran under."),
        _added(_name("agent_type", "The type of sub-agent; built-in ones in clear.", "agent_types")),
        _added(_name("project_id", "Usage per project: a keyed hash of the folder's full path.")),
        _added(_enum("entrypoint", ("cli", "sdk", "ide", "web", "cron", "hook", "channel", "other"), "How the agent was started.")),
        _added(_enum("channel", ("webchat", "telegram", "whatsapp", "discord", "slack", "signal", "imessage", "msteams", "matrix",
                                 "googlechat", "line", "other"), "Through which service people talk to the agent.")),
        Column(name="user_id", type="string", pattern=SLUG, fact=False,
               why="Who used it, as enrolled when the session was first seen; never rewritten by a later enrolment."),
        _enum("evidence", ("folder", "meta", "state", "worker_meta", "event", "transcript"), "Which source said it.",
              required=True),
        _enum("session_kind", ("queen", "colony_queen", "worker", "graph_run", "agent_session", "secondary_graph",
                               "legacy_run", "other"), "What kind of agent it is."),
        _enum("status", ("active", "paused", "completed", "failed", "cancelled", "other"), "Last status the source wrote."),
        _enum("phase", ("independent", "incubating", "working", "reviewing", "colony", "planning", "building", "staging",
                        "running", "editing", "other"), "The queen's phase."),
        _enum("execution_quality", ("clean", "degraded", "failed", "other"), "Quality of the run."),
        _count("steps_executed", "Progress."),
        _count("total_retries", "Effort."),
        _tokens("total_tokens", "Control total."),
        _count("batch_size", "How many workers were spawned together."),
        _count("batch_index", "Its place among them."),
        _at("started_at", "Start of the session.", fact=True),
        _at("updated_at", "Last change the source wrote.", fact=True),
        _at("ended_at", "End of the session.", fact=True),
        _added(_flag("is_copy", "It was read from a copy of the session's folder, because no original was found.")),
        *(replace(column, fact=True) for column in _utc_offset()),
        _added(_at("offset_observed_at", "When the offset held: the instant of the pair of times that tells it.",
                   fact=True)),
        _at("observed_at", "When the device saw it; the newest observation speaks."),
    ),
)  # fmt: skip

AGENT_RUNS = Table(
    name="agent_runs",
    grain="One step in the life of a run: started, paused, reported, ended.",
    source="`execution_*`, `worker_*`, `subagent_report` events; runs.jsonl",
    identity="type of event, execution id, stream, time as written and worker id; of runs.jsonl run id, event and time",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session or worker that ran.", required=True),
        _id("parent_session_id", "The queen session of a parallel worker."),
        _id("run_id", "One trigger's run within a session.", pattern=HEX_12),
        _added(_id("correlation_id", "Which trigger's firing or which request began it.", pattern=rf"{SESSION}|{HEX_12}")),
        _enum("kind", ("started", "completed", "failed", "paused", "resumed", "resurrected", "cancelled", "report"),
              "What happened.", required=True),
        _enum("outcome", ("success", "partial", "failed", "timeout", "stopped", "other"), "Outcome a worker reported."),
        _enum("origin", ("event", "runs_file"), "Which log saw it."),
        _error_class(),
        _tokens("tokens_used", "Control total; 0 for stopped or crashed workers."),
        _count("tool_calls_used", "Control total."),
        Column(name="duration_seconds", type="double", minimum=0, maximum=31_622_400, why="Duration as reported."),
        _ambiguous(),
        *_utc_offset(),
        _at("occurred_at", "When."),
        _basis(),
    ),
)  # fmt: skip

STATUS_EVENTS = Table(
    name="status_events",
    grain="One change or trouble of a session's state.",
    source="status events of events.jsonl",
    identity="type of event, execution id, stream, time as written, iteration and task id; a number where two nodes have one",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session or worker it happened to.", required=True),
        _id("parent_session_id", "The queen session of a parallel worker."),
        _name("node_id", "Which node it happened to.", "nodes"),
        _enum("kind", ("phase_changed", "stalled", "doom_loop", "inactive", "slow_first_token", "nudged", "tool_replayed",
                       "retried", "judged", "compacted", "loop_started", "loop_completed", "input_requested",
                       "input_received", "escalated", "payment_required", "credentials_required", "context_updated",
                       "task_created", "task_updated", "task_deleted", "task_list_reset", "api_error", "limit_reached",
                       "synthetic_message", "turn_completed"), "What happened.",
              required=True),
        _enum("agent_role", AGENT_ROLES, "Trouble by kind of agent.", required=True),
        _enum("phase", ("independent", "incubating", "working", "reviewing", "colony", "planning", "building", "staging",
                        "running", "editing", "other"), "The phase that began."),
        _enum("verdict", ("ACCEPT", "RETRY", "ESCALATE", "CONTINUE", "other"), "The verdict."),
        _error_class(),
        _added(_id("task_id", "Which task of the session's list changed.", pattern=TASK, accepted=ACCEPTED_TASK)),
        _added(_enum("task_status", TASK_STATES, "The state it changed to: when is known from here alone.")),
        _count("iteration", "Which iteration."),
        _count("retry_count", "Which retry."),
        _added(_enum("compaction_trigger", ("auto", "manual", "other"), "Who asked for a compaction.")),
        _added(_tokens("context_tokens", "How full the context was, by the runtime's estimate; never billed.")),
        _added(_tokens("context_limit_tokens", "How much would have fit.")),
        _added(_enum("wake_kind", ("manual", "operator", "reminder", "system", "agent", "other"), "What began the turn that"
                     " ended.")),
        _added(_count("open_threads", "Threads that waited for an answer when a turn ended.")),
        _added(_count("open_reminders", "Reminders that waited when a turn ended.")),
        Column(name="seconds", type="double", minimum=0, maximum=31_622_400,
               why="How long the first token or a completed turn took, or how long nothing came."),
        _ambiguous(),
        *_utc_offset(),
        _at("occurred_at", "When."),
        _added(_at("resets_at", "When a limit that was reached ends.", fact=True)),
        _basis(),
    ),
)  # fmt: skip

TASKS = Table(
    name="tasks",
    grain="One observation of a task, a step or a checklist item; a new row when it changes.",
    source="progress.db, tasks.json",
    identity="list, task id, item id, number of the observation and what was observed",
    rules=(
        Rule(column="item_id", other="item", values=("step", "checklist"),
             why="A task is named by its own id: with another one there would be two of it."),
    ),
    columns=(
        _record(),
        _runtime(),
        _id("list_id", "The session whose list it is (for a colony its queen session).", required=True),
        _id("task_id", "The task; for a step or a checklist item the task it belongs to.", required=True, pattern=TASK,
            accepted=ACCEPTED_TASK),
        _id("item_id", "The step or checklist item.", pattern=UUID),
        _id("parent_task_id", "Its parent task.", pattern=TASK, accepted=ACCEPTED_TASK),
        _id("worker_id", "Who works on it, as the model typed it."),
        _name("colony_name", "Which colony's task it is."),
        _enum("item", ("task", "step", "checklist"), "What it is.", required=True),
        _enum("list_kind", ("progress_db", "session", "colony_template"), "Which list it is on.", required=True),
        _enum("status", TASK_STATES, "State as written; a model may write anything, the rest is `other`."),
        _enum("created_by", ("queen_create", "create_colony_auto", "enqueue_tool", "other"), "How it came to be."),
        _added(_id("blocks_ids", "Which tasks of the list wait for it.", pattern=NUMBERS, accepted=ACCEPTED_NUMBERS)),
        _added(_id("blocked_by_ids", "Which tasks of the list it waits for.", pattern=NUMBERS, accepted=ACCEPTED_NUMBERS)),
        _error_class(),
        _count("seq", "Order."),
        Column(name="priority", type="int64", minimum=-1_000_000, maximum=1_000_000, why="Order."),
        _count("retry_count", "Effort and stale claims."),
        _count("max_retries", "The limit of retries."),
        _count("blocks_count", "How many tasks wait for it.", keep=Keep.COUNT),
        _count("blocked_by_count", "How many tasks it waits for.", keep=Keep.COUNT),
        _count("observation", "How many observations of the item came before: an A-B-A flap stays visible."),
        _flag("is_required", "Whether a checklist item must be done."),
        _at("created_at", "Time in state.", fact=True),
        _at("claimed_at", "Time in state; stale claims.", fact=True),
        _at("started_at", "Time in state.", fact=True),
        _at("completed_at", "Time in state.", fact=True),
        _at("updated_at", "Time in state.", fact=True),
        _at("observed_at", "When the device saw it; the newest observation speaks."),
    ),
)  # fmt: skip

COLONIES = Table(
    name="colonies",
    grain="One observation of a colony; a new row when it changes.",
    source="colonies/*/metadata.json, worker.json",
    identity="queen session id, number of the observation and what was observed",
    columns=(
        _record(),
        _runtime(),
        _id("queen_session_id", "The queen session that leads the colony; its identity.", required=True),
        _id("source_session_id", "The session the colony was forked from."),
        _name("colony_name", "Usage per colony."),
        _name("queen_name", "The colony's queen.", "queens"),
        _count("worker_count", "How many worker kinds it has.", keep=Keep.COUNT),
        _count("max_concurrent_workers", "Its limit."),
        _flag("has_progress_db", "Whether it tracks tasks."),
        _at("created_at", "Age.", fact=True),
        _at("updated_at", "Last change.", fact=True),
        _at("observed_at", "When the device saw it; the newest observation speaks."),
    ),
)

TRIGGERS = Table(
    name="triggers",
    grain="One step in the life of a trigger: available, activated, fired, removed.",
    source="`trigger_*` events",
    identity="type of event, execution id, stream, time as written and trigger id",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session it belongs to.", required=True),
        _name("trigger_id", "Which trigger."),
        _enum("kind", ("available", "activated", "deactivated", "fired", "removed", "updated"), "What happened.",
              required=True),
        _enum("trigger_type", ("webhook", "api", "timer", "event", "manual", "other"), "What fires it."),
        Column(name="interval_seconds", type="double", minimum=0, maximum=31_622_400, why="Schedule: when it was due."),
        _ambiguous(),
        *_utc_offset(),
        _at("occurred_at", "When."),
        _basis(),
    ),
)  # fmt: skip

REQUESTS = Table(
    name="requests",
    grain="One observation of what an agent asked for, of others or of itself: an approval, an answer, a message, a"
    " reminder; a new row when that changes.",
    source="the broker of a host of agents",
    identity="kind, number and time of the request, number of the observation and what was observed",
    columns=(
        _record(),
        _runtime(),
        _name("agent_name", "Who asked."),
        _name("asked_name", "Who was asked; for a reminder the agent itself."),
        _enum("kind", ("approval", "question", "message", "reminder"), "What was asked for.", required=True),
        _enum("purpose", ("apply_commit", "spawn", "other"), "What an approval is for."),
        _enum("status", ("open", "approved", "denied", "answered", "delivered", "other"), "What became of it.",
              required=True),
        _error_class(),
        _count("number", "Which request of its kind; a reply names it."),
        _count("reply_to_number", "Which message a message answers: it continues a thread."),
        _count("attempts", "How often a reminder's delivery was tried."),
        _count("observation", "How many observations of the request came before."),
        _flag("is_to_operator", "Whether a person was asked."),
        _flag("is_broadcast", "Whether everybody was."),
        _at("requested_at", "Age and wait.", fact=True),
        _at("due_at", "When it was due.", fact=True),
        _at("resolved_at", "When it was answered or delivered.", fact=True),
        _at("observed_at", "When the device saw it; the newest observation speaks."),
    ),
)  # fmt: skip

CONTROL_TOTALS = Table(
    name="control_totals",
    grain="One figure that a file of the source claims of a session, a turn or a home: compared with usage, never added.",
    source="cost-state lines, statistics caches, per-turn statistics, counters of session stores",
    identity="what is claimed, of which session, turn and model, by which file",
    columns=(
        _record(),
        _runtime(),
        _id("session_id", "The session it is claimed of; NULL: of the whole home."),
        _id("turn_id", "The turn it is claimed of, if it is of one."),
        _name("model", "The model it is claimed of; NULL: of all.", "models"),
        _enum("claimed_by", ("cost_state", "stats_cache", "turn_stats", "session_counters", "provider_report", "other"),
              "Which file claims it.", required=True),
        _count("turns", "Responses or turns, as the source counts them."),
        _tokens("input_tokens", "Claimed. Includes cache.", maximum=MAX_CLAIMED_TOKENS),
        _tokens("cache_read_input_tokens", "Claimed; a subset of the input.", maximum=MAX_CLAIMED_TOKENS),
        _tokens("cache_write_input_tokens", "Claimed; a subset of the input.", maximum=MAX_CLAIMED_TOKENS),
        _tokens("output_tokens", "Claimed.", maximum=MAX_CLAIMED_TOKENS),
        _tokens("reasoning_output_tokens", "Claimed; a subset of the output.", maximum=MAX_CLAIMED_TOKENS),
        _count("web_search_requests", "Claimed."),
        _count("lines_added", "Claimed: lines of code that tools wrote."),
        _count("lines_removed", "Claimed: lines of code that tools took away."),
        Column(name="reported_cost_usd", type="decimal", minimum=0, maximum=1_000_000_000, why="Claimed."),
        _flag("is_cumulative", "It covers everything since the session began: the last one speaks."),
        _at("started_at", "Start of what it covers.", fact=True),
        _at("ended_at", "End of what it covers, or when it was written.", fact=True),
        _at("observed_at", "When the device saw it."),
    ),
)  # fmt: skip

DEVICE_REPORTS = Table(
    name="device_reports",
    grain="One run of the uploader.",
    source="the uploader itself",
    identity="device, epoch, number and start of the run; plain",
    sums=(COVERAGE,),
    columns=(
        _record(),
        _runtime(),
        Column(name="user_id", type="string", pattern=SLUG, required=True, why="As enrolled."),
        Column(name="consent_id", type="string", pattern=RECORD_ID, required=True, why="The consent it ran under."),
        Column(name="uploader_version", type="string", pattern=r"\d{1,3}(\.\d{1,4}){1,3}([a-z]{1,4}\d{0,4})?",
               required=True, why="Which version counted."),
        Column(name="timezone", type="string", pattern=r"[A-Za-z0-9_+/-]{1,64}", is_zone=True, why="Zone local times were resolved in."),
        _enum("platform", ("linux", "darwin", "win32", "other"), "Support."),
        _enum("history", ("include", "exclude"), "Whether history before the consent was included."),
        _count("run", "Which run of this epoch: gaps show lost reports.", required=True),
        _count("homes", "How many agent homes were found.", required=True),
        _count("sources", "How many files and databases were seen.", required=True),
        _count("lines_seen", "Coverage: seen = staged + duplicate + skipped + rejected + before consent.", required=True),
        _count("lines_staged", "Coverage.", required=True),
        _count("lines_duplicate", "Coverage: copies collapsed on the device.", required=True),
        _count("lines_skipped", "Coverage: lines of kinds nobody asked for.", required=True),
        _count("lines_rejected", "Coverage: torn or unreadable lines.", required=True),
        _count("lines_salvaged", "Of these, lines whose whole record stood behind a torn one.", required=True),
        _count("lines_before_consent", "History left out.", required=True),
        _count("fields_dropped", "Fields the contract does not name.", required=True),
        *_losses(),
        _added(_enum("store_verdict", ("ok", "degraded_store", "refused", "not_reachable"),
              "What the probe at the grant said of the store: whether an overwritten object could be told.")),
        _at("started_at", "Clock of the device against the store's."),
    ),
)  # fmt: skip

SOURCE_FILES = Table(
    name="source_files",
    grain="What one run of the uploader read of one input.",
    source="the uploader itself",
    identity="device, epoch, number and start of the run, and the keyed path of the file",
    sums=(COVERAGE,),
    columns=(
        _record(),
        _runtime(),
        Column(name="source_key", type="string", pattern=KEYED, required=True, fact=False,
               why="Follows one file over time without its path."),
        _enum("source_kind", ("events", "worker_events", "l1", "l2", "l3", "runs", "state", "meta", "worker_meta",
                              "colony", "progress_db", "task_list", "transcript", "subagent_transcript", "agent_meta",
                              "stats_cache", "session_store", "turn_stats", "broker", "other"), "Which reader read it.", required=True),
        _count("run", "Which run of the uploader.", required=True),
        _count("generation", "How often the file was replaced or rewritten."),
        _count("bytes_seen", "Size at the time.", maximum=1_000_000_000_000_000),
        _count("lines_seen", "Coverage: seen = staged + duplicate + skipped + rejected + before consent.", required=True),
        _count("turn_lines_seen", "Raw usage lines, copies included: what a naive sum would count.", required=True),
        _count("turn_lines_duplicate", "Raw usage lines that were copies.", required=True),
        _added(_count("turn_lines_rejected", "Of the rejected: usage lines whose numbers are none: negative, fractional, or"
                      " more than any sum could hold. Finance is told.")),
        _count("lines_skipped", "Coverage.", required=True),
        _count("lines_rejected", "Coverage.", required=True),
        _count("lines_salvaged", "Coverage.", required=True),
        _count("lines_staged", "Coverage.", required=True),
        _count("lines_duplicate", "Coverage.", required=True),
        _count("lines_before_consent", "Coverage.", required=True),
        *_losses(),
        _added(_count("lines_unknown", "Of the skipped: of a type that no version we know of writes. The type stays.")),
        _added(_count("fields_unknown", "Of the dropped: fields of turns, tool calls and run logs that no version we know"
                      " of has. Their names stay.")),
        _added(_enum("source_layout", ("v1", "v2", "v3", "other"), "Which version of the runtime keeps files there.")),
        _enum("outcome", ("read", "unreadable", "too_large", "corrupt", "unknown_layout"), "Whether it could be read.",
              required=True),
        _at("observed_at", "When."),
    ),
)  # fmt: skip

TABLES: tuple[Table, ...] = (
    LLM_TURNS, TOOL_CALLS, NODE_STEPS, NODE_DETAILS, RUN_SUMMARIES, SESSIONS, AGENT_RUNS, STATUS_EVENTS, TASKS, COLONIES,
    TRIGGERS, REQUESTS, CONTROL_TOTALS, DEVICE_REPORTS, SOURCE_FILES,
)  # fmt: skip
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}


def contract_hash() -> str:
    """The sha256 of everything the contract lets out; a consent covers one hash, and a wider contract needs a new one."""
    columns = [
        [table.schema_id, c.name, c.type, c.keep, c.values, c.pattern, c.vocabulary, c.minimum, c.maximum, c.required]
        for table in TABLES
        for c in table.columns
    ]
    return hashlib.sha256(json.dumps(columns, separators=(",", ":")).encode()).hexdigest()
