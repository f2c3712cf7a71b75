"""Test 37: what the policies of deploy/store let a device, a reader and the warehouse do at a real object server.

The server of the tests does not know whether a put names `If-None-Match`: what it cannot refuse, the probe says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from pipelines.device import enrolment, grant, probe
from pipelines.home import Home
from pipelines.store import Put, StoreRefusedError, open_store
from tests.object_server import NOT_INSTALLED, PROGRAM, ObjectServer, object_server

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=NOT_INSTALLED)
ONE, OTHER = "a" * 32, "b" * 32
LANDING = "landing/v1/eu/acme"


POLICIES = Path(__file__).resolve().parents[2] / "deploy" / "store"
READER, WAREHOUSE = "reader-of-all", "warehouse-host"


def identity(name: str) -> dict[str, Any]:
    """Credentials that the server knows and that may do nothing by themselves."""
    secret = {"accessKey": name[:8], "secretKey": f"secret-{name[:8]}"}
    return {"name": name, "credentials": [secret], "actions": []}


def statements(file: str, **named: str) -> list[dict[str, Any]]:
    """A policy of deploy/store with its words in capitals replaced."""
    text = (POLICIES / file).read_text("utf-8")
    for word, meant in ({"BUCKET": "lake", "REGION": "eu", "TENANT": "acme"} | named).items():
        text = text.replace(word, meant)
    found: list[dict[str, Any]] = json.loads(text)["Statement"]
    return found


def bucket_policy() -> str:
    """That of a site with two devices, a reader and a warehouse."""
    devices = [statement for device in (ONE, OTHER) for statement in statements("device.json", DEVICE=device)]
    for statement in devices:
        if "s3:PutObject" in statement["Action"]:
            assert statement.pop("Condition") == {"Null": {"s3:if-none-match": "false"}}
    others = statements("reader.json", READER=READER) + statements("warehouse.json", WAREHOUSE=WAREHOUSE)
    whole = [statement | {"Sid": f"s{number}"} for number, statement in enumerate([*devices, *others])]
    return json.dumps({"Version": "2012-10-17", "Statement": whole})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    folder = tmp_path_factory.mktemp("denial") / "server"
    with object_server(folder, others=[identity(name) for name in (ONE, OTHER, READER, WAREHOUSE)]) as started:
        admin = client(started, started.access_key, started.secret_key)
        admin.create_bucket(Bucket="lake")
        admin.put_bucket_policy(Bucket="lake", Policy=bucket_policy())
        admin.put_object(Bucket="lake", Key=f"{LANDING}/{OTHER}/e/d/1.parquet", Body=b"theirs")
        yield started


def client(server: ObjectServer, key: str, secret: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
    )


def mine(server: ObjectServer, name: str = ONE) -> Any:
    return client(server, name[:8], f"secret-{name[:8]}")


def refused(operation: Any, **arguments: Any) -> bool:
    try:
        operation(Bucket="lake", **arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403, 412)
    return False


@pytest.mark.parametrize(
    "place", [f"{LANDING}/{OTHER}/e/d/1.parquet", f"{LANDING}/{OTHER}/e/d/new", f"requests/v1/acme/{OTHER}/r"]
)
def test_another_devices_prefix_is_closed(server: ObjectServer, place: str) -> None:
    """Test 37: to reading, listing, deleting and putting."""
    own = mine(server)
    assert refused(own.get_object, Key=place)
    assert refused(own.put_object, Key=place, Body=b"x")
    assert refused(own.put_object, Key=place, Body=b"x", IfNoneMatch="*")
    assert refused(own.delete_object, Key=place)
    assert refused(own.list_objects_v2, Prefix=place.rpartition("/")[0])
    admin = client(server, server.access_key, server.secret_key)
    held = admin.get_object(Bucket="lake", Key=f"{LANDING}/{OTHER}/e/d/1.parquet")["Body"].read()
    assert held == b"theirs"


def test_other_places_are_closed(server: ObjectServer) -> None:
    own = mine(server)
    for key in ("receipts/v1/eu/acme/" + ONE + "/x.json", "quota/v1/eu/acme/x.json", "landing/v1/eu/other/x", "x"):
        assert refused(own.put_object, Key=key, Body=b"x")
    assert refused(own.list_objects_v2, Prefix="")
    assert refused(own.list_objects_v2, Prefix="landing/")
    assert refused(own.get_object, Key=f"{LANDING}/{ONE}/e/d/1.parquet"), "not even its own batches"


def test_a_reader_reads_and_a_warehouse_answers_and_erases(server: ObjectServer) -> None:
    """Neither can put a batch: what is in the landing came from a device."""
    held = f"{LANDING}/{OTHER}/e/d/1.parquet"
    for name in (READER, WAREHOUSE):
        own = mine(server, name)
        assert own.get_object(Bucket="lake", Key=held)["Body"].read() == b"theirs"
        assert not refused(own.list_objects_v2, Prefix="landing/")
        assert refused(own.put_object, Key=f"{held}-forged", Body=b"x")
    reader, warehouse = mine(server, READER), mine(server, WAREHOUSE)
    told = "receipts/v1/eu/acme/" + ONE + "/1.json"
    assert refused(reader.put_object, Key=told, Body=b"x")
    assert refused(reader.delete_object, Key=held)
    assert not refused(warehouse.put_object, Key=told, Body=b"{}")
    assert mine(server).get_object(Bucket="lake", Key=told)["Body"].read() == b"{}", "its device reads it"
    assert refused(mine(server, OTHER).get_object, Key=told), "and no other"
    erased = f"{LANDING}/{ONE}/e/d/erased.parquet"
    mine(server).put_object(Bucket="lake", Key=erased, Body=b"x")
    assert not refused(warehouse.list_object_versions, Prefix=erased)
    assert not refused(warehouse.delete_object, Key=erased)
    assert refused(reader.get_object, Key=erased) or "Contents" not in reader.list_objects_v2(
        Bucket="lake", Prefix=erased
    )


def test_the_server_takes_the_lifecycle(server: ObjectServer) -> None:
    """What it does with it after days is the server's matter."""
    admin = client(server, server.access_key, server.secret_key)
    rules = json.loads((POLICIES / "lifecycle.json").read_text("utf-8"))
    admin.put_bucket_lifecycle_configuration(Bucket="lake", LifecycleConfiguration=rules)
    kept = admin.get_bucket_lifecycle_configuration(Bucket="lake")["Rules"]
    assert {rule["ID"] for rule in kept} == {rule["ID"] for rule in rules["Rules"]}
    assert not [rule for rule in rules["Rules"] if "Expiration" in rule and rule["Filter"]["Prefix"] != "probe/"], (
        "nothing else is deleted unless policies/retention.yml says so"
    )


def test_its_own_objects_are_created_once_and_whole(server: ObjectServer) -> None:
    own, key = mine(server), f"{LANDING}/{ONE}/e/d/once.parquet"
    assert not refused(own.put_object, Key=key, Body=b"first", IfNoneMatch="*")
    assert refused(own.put_object, Key=key, Body=b"second", IfNoneMatch="*")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert refused(own.put_object, Key=f"{key}-checksum", Body=b"data", IfNoneMatch="*", ChecksumSHA256=wrong)


def test_a_longer_body_than_was_signed_is_refused(server: ObjectServer) -> None:
    import http.client
    from urllib.parse import urlsplit

    key = f"{LANDING}/{ONE}/e/d/longer"
    digest = base64.b64encode(hashlib.sha256(b"short").digest()).decode()
    url = mine(server).generate_presigned_url(
        "put_object", Params={"Bucket": "lake", "Key": key, "ContentLength": 5, "ChecksumSHA256": digest}
    )
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=20)
    connection.request(
        "PUT", f"{parts.path}?{parts.query}", body=b"much longer than it was", headers={"x-amz-checksum-sha256": digest}
    )
    assert connection.getresponse().status in (400, 403)


def test_the_probe_says_what_the_server_cannot_refuse(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is enrolled with its own credentials ships with them, and its grant says `degraded-store`."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file = tmp_path / "given"
    file.write_text(
        f"[default]\naws_access_key_id = {ONE[:8]}\naws_secret_access_key = secret-{ONE[:8]}\n"
        f"region = us-east-1\nendpoint_url = {server.endpoint}\n"
    )
    home = Home(tmp_path / "apiary")
    enrolled = enrolment.enroll(
        home, tenant="acme", user="ada", region="eu", timezone="UTC", store="s3://lake", tenant_key=None,
        now=datetime.now(UTC), credentials=file,
    )  # fmt: skip
    kept = enrolment.credentials(home)
    assert kept is not None
    assert kept.stat().st_mode & 0o777 == 0o600
    store = enrolment.open_store(home, "s3://lake")
    found = probe.probe(store, replace(enrolled, device_id=ONE))
    assert found.verdict == "degraded-store"
    assert any("without If-None-Match" in reason for reason in found.reasons), found.reasons
    assert store.put(f"{LANDING}/{ONE}/e/m/1.json", b"{}") is Put.CREATED
    with pytest.raises(StoreRefusedError, match="403"):
        store.put(f"{LANDING}/{OTHER}/e/m/1.json", b"{}")
    grant.grant(home, [], history="include")  # the device's own id has no rights at this server
    assert grant.ask_store(home).verdict == "refused"


def test_a_store_with_the_policy_is_ok(tmp_path: Path) -> None:
    """A folder lets nothing be replaced by any way that a device has."""
    home = Home(tmp_path / "apiary")
    enrolled = enrolment.enroll(
        home, tenant="acme", user="ada", region="eu", timezone="UTC", store=None, tenant_key=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    assert probe.probe(open_store((tmp_path / "store").as_uri()), enrolled).verdict == "ok"
