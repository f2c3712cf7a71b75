"""A folder and a real S3-compatible server behave alike: created whole, once, and never replaced."""

import hashlib
import os
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
from tests.object_server import PROGRAM, object_server
from tests.warehouse_part.test_erase import DEVICE, Site

needs_server = pytest.mark.skipif(not PROGRAM.exists(), reason="the object server's package is for Linux only")


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
        with pytest.raises(ValueError, match="is no store"):
            open_store(text)


@needs_server
def test_what_is_erased_is_in_no_version_of_any_object(bucket: str, tmp_path: Path) -> None:
    """A server that keeps versions, answers in small pages, and held an object that somebody had overwritten."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    store = S3Store("versioned", "lake")
    pages = store._client.meta.events
    for operation in ("ListObjectsV2", "ListObjectVersions"):
        pages.register(f"provide-client-params.s3.{operation}", lambda params, **_: params | {"MaxKeys": 3})
    site = Site(tmp_path)
    for key, data in site.store.objects.items():
        store.put(key, data)
    site.store = store  # type: ignore[assignment]
    (overwritten, *_) = (key for key in site.oracle if DEVICE in key)
    for body in (DEVICE.encode(), b"harmless"):
        client.put_object(Bucket="versioned", Key=f"lake/{overwritten}", Body=body)
    store.put("near", b"")
    store.put("nearby", b"")
    store.delete("near")
    assert [entry.key for entry in store.list("near")] == ["nearby"], "a name that begins alike is another one's"

    assert len(versions(client, overwritten)[overwritten]) == 3
    line = site.suppress("device", DEVICE)
    (done,) = site.erase()
    assert (done.request_id, done.objects) == (line.request_id, 6)
    left = versions(client, "")
    assert left.keys() >= {key for key in site.oracle if DEVICE not in key}
    assert not [key for key, bodies in left.items() if DEVICE in key and not key.startswith("receipts/")]
    assert not [key for key, bodies in left.items() if any(DEVICE.encode() in body for body in bodies)
                and not key.startswith("receipts/")]  # fmt: skip
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
