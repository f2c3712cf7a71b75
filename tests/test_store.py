"""A folder and a real S3-compatible server behave alike: created whole, once, and never replaced."""

import errno
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contract.receipts import parse_receipt
from pipelines.store import FolderStore, Put, S3Store, Store, StoreRefusedError, StoreUnavailableError, open_store
from tests.object_server import NOT_INSTALLED, PROGRAM, object_server
from tests.warehouse_part.test_erase import DEVICE, Site

needs_server = pytest.mark.skipif(not PROGRAM.exists(), reason=NOT_INSTALLED)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_server(tmp_path_factory.mktemp("objects") / "server") as server:
        before = dict(os.environ)
        os.environ.update(server.environment)
        boto3.client("s3").create_bucket(Bucket="lake")
        yield "s3://lake"
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(params=["folder", pytest.param("s3", marks=needs_server)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store((tmp_path / "store").as_uri())
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return open_store(f"{request.getfixturevalue('bucket')}/{name}")


def test_an_object_is_created_once(store: Store) -> None:
    assert store.put("landing/v1/a/m/1.json", b"first") is Put.CREATED
    assert store.put("landing/v1/a/m/1.json", b"second") is Put.EXISTED
    assert store.get("landing/v1/a/m/1.json") == b"first"


def test_one_of_many_writers_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: (n, store.put("landing/race", str(n).encode())), range(8)))
    winners = [number for number, outcome in outcomes if outcome is Put.CREATED]
    assert len(winners) == 1
    assert store.get("landing/race") == str(winners[0]).encode()


def test_a_missing_object_is_a_key_error(store: Store) -> None:
    with pytest.raises(KeyError):
        store.get("landing/nothing")


def test_listing_gives_keys_in_order_with_the_stores_clock(store: Store) -> None:
    begun = datetime.now(UTC)
    keys = sorted(f"landing/v1/eu/acme/{n:04}/m/x.json" for n in range(25))
    for key in reversed(keys):
        store.put(key, key.encode())
    store.put("other/v1/x", b"")
    entries = list(store.list("landing/v1/"))
    assert [entry.key for entry in entries] == keys
    assert all(entry.size == len(entry.key) for entry in entries)
    assert all(abs(entry.received_at - begun) < timedelta(minutes=1) for entry in entries)
    assert list(store.list("nothing/")) == []


def test_a_large_object_comes_back_whole(store: Store) -> None:
    data = os.urandom(9 << 20)
    store.put("landing/large", data)
    assert hashlib.sha256(store.get("landing/large")).digest() == hashlib.sha256(data).digest()


@needs_server
def test_wrong_credentials_are_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StoreRefusedError, match="403"):
        open_store(f"{bucket}/x").put("landing/a", b"x")


def test_a_server_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        open_store("s3://lake/x").put("landing/a", b"x")


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        FolderStore(tmp_path / "store").put("landing/a", b"x")


def _plant(kind: str, path: Path) -> None:
    """Something that is no object, in a folder store."""
    match kind:
        case "dangling link":
            path.symlink_to("nowhere")
        case "link out":
            path.symlink_to("/etc/hostname")
        case "loop":
            path.symlink_to(path.name)
        case "loop of folders":
            path.symlink_to(path.parent, target_is_directory=True)
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(path))
        case "device":
            try:
                os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # endless zeros
            except PermissionError:
                pytest.skip("only root makes devices")
        case "name not UTF-8":
            Path(os.fsdecode(os.fsencode(path) + b"\xff\xfe")).write_bytes(b"x")


NOBODY = 65534
KINDS = ("dangling link", "link out", "loop", "loop of folders", "fifo", "socket", "device", "name not UTF-8")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_object_is_passed_over_and_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO would make a reader wait for ever, a link would lead elsewhere, a loop would never end."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    store = FolderStore(tmp_path / "store")
    for name in ("a", "c"):
        store.put(f"landing/v1/{name}", name.encode())
    _plant(kind, tmp_path / "store" / "landing" / "v1" / "b")
    for prefix in ("", "landing/", "landing/v1/"):
        assert [entry.key for entry in store.list(prefix)] == ["landing/v1/a", "landing/v1/c"]
    (told,) = store.passed_over.items()
    names = {"dangling link": "link", "link out": "link", "loop": "link", "loop of folders": "link"}
    assert told[0].startswith("landing/v1/b")
    assert told[1] == names.get(kind, kind)
    with pytest.raises(KeyError):
        store.get("landing/v1/b")
    if kind != "name not UTF-8":
        with pytest.raises(StoreUnavailableError, match="where an object belongs"):
            store.put("landing/v1/b", b"x")
        store.delete("landing/v1/b")
        assert store.put("landing/v1/b", b"x") is Put.CREATED


def test_a_linked_folder_is_no_way_into_the_store(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put("landing/a", b"x")
    (tmp_path / "store" / "again").symlink_to("landing", target_is_directory=True)
    assert list(store.list("again/")) == []
    assert store.passed_over == {"again": "link"}


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who may not read everything: root is somebody else for as long as the test lasts."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_what_cannot_be_read_stops_nothing_else(unprivileged: Path) -> None:
    tmp_path = unprivileged
    store = FolderStore(tmp_path / "store")
    for key in ("landing/closed/a", "landing/open/a", "landing/open/b"):
        store.put(key, b"x")
    (tmp_path / "store" / "landing" / "closed").chmod(0)
    (tmp_path / "store" / "landing" / "open" / "a").chmod(0)
    try:
        assert [entry.key for entry in store.list("landing/")] == ["landing/open/a", "landing/open/b"]
        with pytest.raises(KeyError):
            store.get("landing/open/a")
        assert store.passed_over == {"landing/closed/": "unreadable", "landing/open/a": "unreadable"}
        with pytest.raises(StoreUnavailableError, match="cannot be read"):
            list(store.list("landing/closed/"))
    finally:
        (tmp_path / "store" / "landing" / "closed").chmod(0o700)


def test_what_vanishes_while_it_is_listed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a folder that are removed between the look at their folder and the look at them."""
    store = FolderStore(tmp_path / "store")
    for key in ("landing/a", "landing/b", "landing/c/d", "landing/e"):
        store.put(key, b"x")
    seen = []
    for entry in store.list("landing/"):
        seen.append(entry.key)
        if entry.key == "landing/a":
            for key in ("landing/b", "landing/c/d"):
                store.delete(key)
    assert seen == ["landing/a", "landing/e"]
    assert store.passed_over == {}


def test_nothing_half_written_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "store")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        store.put("landing/a", b"x" * 1000)
    assert list(store.list("landing/")) == []
    assert not list((tmp_path / "store" / ".aside").iterdir())


@given(st.text(max_size=30))
def test_only_folders_and_buckets_are_stores(text: str) -> None:
    if not text.startswith(("file:///", "s3://")):
        with pytest.raises(ValueError, match="invalid store URL"):
            open_store(text)


@needs_server
def test_what_is_erased_is_in_no_version_of_any_object(bucket: str, tmp_path: Path) -> None:
    """A server that keeps versions, answers in small pages, and held an object that somebody had overwritten."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="versioned")
    client.put_object(Bucket="versioned", Key="lake/before", Body=b"put before the server kept versions")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    store = S3Store("versioned", "lake")
    pages = store._client.meta.events
    for operation in ("ListObjectsV2", "ListObjectVersions"):
        pages.register(f"provide-client-params.s3.{operation}", lambda params, **_: params | {"MaxKeys": 3})
    site = Site(tmp_path)
    for key, data in site.store.objects.items():
        store.put(key, data)
    site.store = store
    (overwritten, *_) = (key for key in site.oracle if DEVICE in key)
    for body in (DEVICE.encode(), b"harmless"):
        client.put_object(Bucket="versioned", Key=f"lake/{overwritten}", Body=body)
    store.put("near", b"")
    store.put("nearby", b"")
    store.delete("near")
    assert [entry.key for entry in store.list("near")] == ["nearby"], "a name that begins alike is another one's"
    store.delete("before")
    assert versions(client, "before") == {}

    assert len(versions(client, overwritten)[overwritten]) == 3
    line = site.suppress("device", DEVICE)
    (done,) = site.erase()
    assert (done.request_id, done.objects) == (line.request_id, 6)
    left = versions(client, "")
    assert left.keys() >= {key for key in site.oracle if DEVICE not in key}
    assert not [key for key, bodies in left.items() if DEVICE in key and not key.startswith("receipts/")]
    assert not [
        key
        for key, bodies in left.items()
        if any(DEVICE.encode() in body for body in bodies) and not key.startswith("receipts/")
    ]
    (receipt,) = (key for key in left if key.startswith("receipts/"))
    assert parse_receipt(receipt, store.get(receipt), region="eu", tenant="acme").request_id == line.request_id
    assert site.erase() == []


def versions(client: Any, prefix: str) -> dict[str, list[bytes]]:
    """Every version of every object, read from the server itself; a mark of deletion has none and must not be there."""
    found: dict[str, list[bytes]] = {}
    for page in client.get_paginator("list_object_versions").paginate(Bucket="versioned", Prefix=f"lake/{prefix}"):
        assert not page.get("DeleteMarkers")
        for item in page.get("Versions", ()):
            body = client.get_object(Bucket="versioned", Key=item["Key"], VersionId=item["VersionId"])["Body"].read()
            found.setdefault(item["Key"].removeprefix("lake/"), []).append(body)
    return found


def test_a_file_that_may_not_be_removed_is_its_own_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its store answers for all others, so nobody waits for it."""
    store = FolderStore(tmp_path)
    store.put("a", b"1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreRefusedError, match="does not let a be removed: Permission denied"):
        store.delete("a")
