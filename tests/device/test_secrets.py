"""No secret of a home is in anything that is kept or sent: tests 64 to 68 of the delivery protocol.

Two corpora: tokens of our own templates, in every string, key, file and folder name, plain and encoded; and the plugins
of detect-secrets as a detector that knows nothing of them.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_line
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.settings import transient_settings

from pipelines.contract.keys import is_generated
from pipelines.store import open_store
from pipelines.warehouse import landing, load
from tests import scanner
from tests.device import tokens
from tests.device.driving import Device, granted
from tests.device.poisoned_home import write

MIN_RULES = 100  # our templates and the plugins together
SEED = secrets.randbelow(1 << 32)  # printed; a red one becomes a case of its own
PLACEHOLDER = "@@placeholder@@"

# Plugins that look for keywords or for randomness find keyed hashes, which are random: the others know forms.
PLUGINS = sorted(
    plugin.__name__
    for plugin in get_mapping_from_secret_type_to_class().values()
    if issubclass(plugin, RegexBasedDetector) and plugin.__name__ != "IPPublicDetector"
)
ALL_PLUGINS = len(get_mapping_from_secret_type_to_class())


def everything(made: Device) -> Path:
    """All that is kept or sent, the warehouse's file included."""
    with closing(duckdb.connect(str(made.home.root / "warehouse.duckdb"))) as warehouse:
        load.prepare(warehouse)
        store = open_store(made.store_url)
        loaded = load.load(warehouse, store, landing.pending(store, load.known_manifests(warehouse)))
        assert loaded.rows_new > 200, "what is not loaded cannot leak"
        warehouse.execute("CHECKPOINT")
    return made.home.root


def fill(home: Path, values: list[str], name: str) -> int:
    """A home with another value in each position; how many positions of text files there are."""
    write(home, PLACEHOLDER, name)
    texts: dict[object, str] = {}
    for path in home.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl"):
            texts[path] = path.read_text("utf-8")
    planted, count = tokens.plant(PLACEHOLDER, values, texts)
    for path, text in planted.items():
        assert isinstance(path, Path)
        path.write_text(text, "utf-8")
    (database,) = home.rglob("progress.db")
    with closing(sqlite3.connect(database)) as connection:
        for table in ("tasks", "steps", "sop_checklist"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            connection.execute(f"DELETE FROM {table}")
            for start in range(len(values)):
                row = [values[(start + shift * 7) % len(values)] for shift in range(len(names))]
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", row)
        connection.commit()
    return count


def test_there_are_many_rules_and_no_whole_token_here() -> None:
    """Test 64: the corpus is as large as it says, and its templates are no tokens."""
    rules = len(tokens.TEMPLATES) + ALL_PLUGINS
    print(f"{len(tokens.TEMPLATES)} templates, {ALL_PLUGINS} plugins: {rules} rules; seed {SEED}")  # noqa: T201
    assert rules >= MIN_RULES
    assert len(PLUGINS) >= 20
    source = Path(tokens.__file__).read_text("utf-8")
    assert not any(token in source for token in tokens.tokens(SEED).values())


def test_no_token_in_any_position_is_kept_or_sent(tmp_path: Path) -> None:
    """Tests 64, 65: each position holds another token in another form: plain, base64, URL-encoded, split in two."""
    made_up = tokens.tokens(SEED)
    values = [form for token in made_up.values() for form in tokens.forms(token)]
    home, name = tmp_path / "hive", f"acme{secrets.token_hex(6)}"
    positions = fill(home, values, name)
    print(f"{len(made_up)} tokens, {len(values)} forms, {positions} positions; seed {SEED}")  # noqa: T201
    assert positions > len(values), "each form stands somewhere"
    made = granted(tmp_path / "apiary", home)
    made.preview(home)
    with made.state():  # opened, so that its log is looked into as well
        made.ship(home)
        wanted = [value for value in values if len(value) >= 8 and not is_generated(value)]
        assert scanner.find(everything(made), [*wanted, name]) == []


def test_all_tokens_in_every_position_and_in_names_of_files_are_nowhere(tmp_path: Path) -> None:
    """Test 65: every token in every string, key, file and folder name."""
    made_up = tokens.tokens(SEED + 1)
    home = tmp_path / "hive"
    name = re.sub(r"[^\w.=-]", "_", "_".join((made_up["github"], made_up["stripe"], made_up["word"])))
    write(home, " ".join(made_up.values()), name)
    made = granted(tmp_path / "apiary", home)
    with made.state():
        made.ship(home)
        wanted = [*made_up.values(), name, made_up["github"]]
        assert scanner.find(everything(made), [token for token in wanted if not is_generated(token)]) == []
    assert scanner.find(home, [made_up["anthropic"]]), "the scanner finds in the home what it must not find elsewhere"


def secrets_in(root: Path) -> set[str]:
    """The kinds of secrets that the plugins see in all that stands under a folder, decoded."""
    found: set[str] = set()
    with transient_settings({"plugins_used": [{"name": name} for name in PLUGINS]}):
        for line in _lines(root):
            found |= {secret.type for secret in scan_line(line)}
    return found


def _lines(root: Path) -> Iterator[str]:
    seen: set[bytes] = set()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            for place, text in scanner._texts(path):
                if place != "bytes" or path.suffix in (".json", ".jsonl"):
                    for part in set(re.split(rb"[\0\n]", text)) - seen:
                        seen.add(part)
                        yield part.decode("utf-8", "replace")[:4000]


def test_an_independent_detector_sees_its_secrets_in_the_home_and_none_elsewhere(tmp_path: Path) -> None:
    """Test 64: the plugins' own forms. That they see them in the home proves that they look."""
    home = tmp_path / "hive"
    home.mkdir()
    fill(home, list(tokens.tokens(SEED + 2).values()), "acme")
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    seen = secrets_in(home)
    print(f"seen in the home: {len(seen)} kinds")  # noqa: T201
    assert len(seen) >= 15, seen
    assert secrets_in(everything(made)) == set()


def test_what_looks_like_a_generated_id_travels_where_an_id_is_due_and_nowhere_else(tmp_path: Path) -> None:
    """The one known limit: 32 hexadecimal digits in the place of an id cannot be told from an id."""
    home = tmp_path / "hive"
    token = secrets.token_hex(16)
    write(home, token, "acme")
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    columns = {name for row in made.delivered() for name, value in row.items() if value == token and name != "_table"}
    assert columns
    assert all(name.endswith("_id") for name in columns), columns


def test_a_planted_secret_is_found(tmp_path: Path) -> None:
    """The scanner sees into the state, a Parquet file, the warehouse and a manifest."""
    leaks = [tokens.tokens(SEED + number)["anthropic"] for number in range(4)]
    home = tmp_path / "hive"
    write(home, "x", "acme")
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    root = everything(made)
    assert scanner.find(root, leaks) == []
    with made.state() as state, state.step():
        state.set_value("x", leaks[0])
    pq.write_table(pa.table({"a": [leaks[1]] * 50}), root / "x.parquet", compression="zstd")
    with closing(duckdb.connect(str(root / "warehouse.duckdb"))) as warehouse:
        warehouse.execute("CREATE TABLE x AS SELECT ? AS a", [leaks[2]])
    next(root.rglob("*.json")).write_text(leaks[3])
    assert {hit.needle for hit in scanner.find(root, leaks)} == {*leaks}


def test_private_stores_and_the_users_own_database_are_never_opened(tmp_path: Path) -> None:
    """Test 68: the paths that are opened under a home are those of the allow-list."""
    home = tmp_path / "hive"
    write(home, "x", "acme")
    never = [
        "secrets/credential_key", "credentials/a.enc", "failed_requests/a.json", "memories/a.md", "tracker/tracker.db",
        "agents/queens/queen_acme/sessions/session_20260504_101500_0a1b2c3d/conversations/parts/0.json",
        "agents/queens/queen_acme/sessions/session_20260504_101500_0a1b2c3d/artifacts/a.json",
        "colonies/acme/data/tracker.db", "colonies/acme/tracker/tracker.db", "configuration.json",
    ]  # fmt: skip
    for name in never:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("secret")
    opened: set[str] = set()

    def listen(event: str, values: tuple[object, ...]) -> None:
        if event in ("open", "sqlite3.connect") and isinstance(values[0], (str, bytes, Path)):
            opened.add(str(values[0]))

    sys.addaudithook(listen)
    granted(tmp_path / "apiary", home).ship(home)
    inside = {Path(name).name for name in opened if str(home) in name}
    assert inside
    assert not [name for name in opened if any(part in name for part in never)]
    allowed = {
        "events.jsonl", "tool_logs.jsonl", "details.jsonl", "summary.json", "runs.jsonl", "meta.json", "state.json",
        "tasks.json", "metadata.json", "worker.json", "progress.db",
    }  # fmt: skip
    assert inside <= allowed
