"""What the answers of a store do: every kind of trouble, and what is in the store and on the device afterwards.

Numbers in docstrings are those of the delivery protocol's fault tests.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.loaders
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipelines import signing, store
from pipelines.device import limits, ship, spool
from pipelines.device.errors import DeviceError
from pipelines.device.retry import LaterError, Retry
from pipelines.device.ship import Shipped
from pipelines.device.state import Trouble
from pipelines.store import StoreUnavailableError, open_store
from tests.device.driving import Device, append, dump, granted, no_sleep, queen_folder, turn
from tests.device.s3_stub import Fault, Stub, s3_stub

LOADER = botocore.loaders.create_loader()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with s3_stub() as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(signing.CorrectedAuth, "ahead", timedelta(0))
        monkeypatch.setattr(
            "botocore.session.create_loader", lambda _: LOADER
        )  # a client is made in a tenth of the time
        yield served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "hive"
    append(queen_folder(made) / "events.jsonl", dump(*map(turn, range(5))))
    return made


@pytest.fixture
def made(tmp_path: Path, home: Path) -> Device:
    return granted(tmp_path / "apiary", home)


class Now:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def send(made: Device, home: Path, now: Now | None = None, *, is_forced: bool = False) -> Shipped:
    now = now or Now()
    return ship.ship(made.home, [home], store_url="s3://lake/x", sleep=now.sleep, clock=now, is_forced=is_forced)


def trouble(made: Device) -> Trouble | None:
    with made.state() as state:
        return state.trouble("s3://lake/x")


def waiting(made: Device) -> int:
    with made.state() as state:
        return state.totals()["batches_waiting"]


def manifests(stub: Stub) -> list[str]:
    return [key for key in stub.objects if "/m/" in key]


def test_lost_answers_errors_resets_and_stalls_converge(
    stub: Stub, made: Device, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 33: 30 % 503, 10 % answers lost, 5 % resets in mid-body, 5 % stalls that we wait for, some that we do not.
    Puts are at most twice the objects."""
    rng = random.Random(33)
    monkeypatch.setattr(store, "READ_SECONDS", 1.0)
    monkeypatch.setattr(spool, "MAX_ROWS", 5)
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 1800.0)
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(10, 130))))

    def decide(_: int, _key: str) -> Fault | None:
        dice = rng.random()
        if dice < 0.30:
            return Fault(503)
        if dice < 0.40:
            return Fault(stores=True, cut="answer")
        if dice < 0.45:
            return Fault(cut="body")
        if dice < 0.50:
            time.sleep(0.1)  # shorter than our patience, as 30 seconds are in the field
        elif dice < 0.52:
            return Fault(stall=1.5, cut="answer")
        return None

    stub.decide = decide
    now = Now()
    runs, left = 0, 1
    while left:
        runs += 1
        assert runs < 200
        with suppress(DeviceError):
            left = send(made, home, now).waiting
        now.sleep(3600)
    objects = len(stub.objects)
    print(f"{objects} objects, {len(stub.puts)} puts ({len(stub.puts) / objects:.2f}), {runs} runs")  # noqa: T201
    assert objects > 50
    assert len(stub.puts) <= 2.0 * objects
    with made.state() as state:
        assert len(manifests(stub)) == state.totals()["batches_delivered"]
        assert state.totals()["rows_staged"] == 0


def test_an_answer_that_was_lost_is_a_delivery(stub: Stub, made: Device, home: Path) -> None:
    """Test 34: stored, the answer lost, then 412: delivered, and nothing is there twice."""
    stub.decide = lambda number, _: Fault(stores=True, cut="answer") if number % 2 == 0 else None
    assert send(made, home).waiting == 0
    assert len(stub.puts) == 2 * len(set(stub.puts)) == 2 * len(stub.objects)
    assert len(manifests(stub)) == 1


def test_a_storm_of_conflicts_is_waited_out(stub: Stub, made: Device, home: Path) -> None:
    """Test 35: 409 means that somebody is writing just now."""
    stub.decide = lambda number, _: Fault(409, "ConditionalRequestConflict") if number < 3 else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "PATIENCE_SECONDS", 1e6)
        assert send(made, home).waiting == 0
    assert trouble(made) is None


@pytest.mark.parametrize("form", ["seconds", "time"])
def test_a_server_that_names_a_time_is_asked_at_that_time(stub: Stub, made: Device, home: Path, form: str) -> None:
    """Test 35: 429 with Retry-After. The next run is prompt, says so and asks for nothing."""
    now = Now()
    value = "120" if form == "seconds" else (now.time + timedelta(seconds=120)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    stub.decide = lambda number, _: Fault(429, "TooManyRequests", {"Retry-After": value}) if number == 0 else None
    with pytest.raises(DeviceError, match=r"waits? safely"):
        send(made, home, now)
    now.sleep(100)
    later = send(made, home, now)
    assert later.next_try_at is not None
    assert timedelta(seconds=10) < later.next_try_at - now.time < timedelta(seconds=25)
    assert later.waiting >= 1
    assert len(stub.puts) == 1
    now.sleep(30)
    assert send(made, home, now).waiting == 0


def test_an_endless_delay_is_not_believed(stub: Stub, made: Device, home: Path) -> None:
    now = Now()
    stub.decide = lambda number, _: Fault(429, "TooMany", {"Retry-After": "9999999999"}) if number == 0 else None
    with pytest.raises(DeviceError):
        send(made, home, now)
    known = trouble(made)
    assert known is not None
    assert known.next_at - now.time <= timedelta(days=1)
    now.time -= timedelta(days=365)  # the clock is set back: next year is no reason to wait
    assert send(made, home, now).waiting == 0


def test_refused_credentials_open_the_breaker_and_keep_everything(
    stub: Stub, made: Device, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 35: 403 in mid-batch. Asked once more with fresh credentials, then hourly, over as many runs as it takes."""
    now = Now()
    stub.decide = lambda number, _: Fault(403, "AccessDenied") if number >= 1 else None
    with pytest.raises(DeviceError, match="403 AccessDenied"):
        send(made, home, now)
    assert len(stub.puts) == 3, "one object, the next one refused twice"
    for hour in range(2):
        assert send(made, home, now).next_try_at is not None
        assert len(stub.puts) == 3 + 2 * hour
        now.sleep(3601)
        with pytest.raises(DeviceError):
            send(made, home, now)
    assert waiting(made) >= 1
    known = trouble(made)
    assert known is not None
    assert (known.is_refused, known.tries) == (True, 3)
    stub.decide = lambda *_: None
    assert send(made, home, now).next_try_at is not None, "nobody said that it was mended"
    before = len(stub.puts)
    assert send(made, home, now, is_forced=True).waiting == 0
    assert stub.puts.count(stub.puts[0]) == 1, "what is in the store is not sent again"
    assert len(stub.puts) > before
    assert trouble(made) is None


def test_renewed_credentials_are_read_in_mid_batch(stub: Stub, made: Device, home: Path) -> None:
    """Test 35: an expired token costs one request."""
    stub.decide = lambda number, _: Fault(400, "ExpiredToken") if number == 1 else None
    assert send(made, home).waiting == 0


def test_a_device_enrolled_anew_asks_at_once(stub: Stub, made: Device, home: Path) -> None:
    from pipelines.device import enrolment

    stub.decide = lambda *_: Fault(403, "AccessDenied")
    now = Now()
    with pytest.raises(DeviceError):
        send(made, home, now)
    stub.decide = lambda *_: None
    now.sleep(5)
    enrolment.enroll(
        made.home, tenant="acme", user="ada", region="eu", timezone="UTC", store=None, tenant_key=None, now=now.time
    )
    assert send(made, home, now).waiting == 0


@pytest.mark.parametrize(("status", "code"), [(400, "InvalidRequest"), (413, "EntityTooLarge")])
def test_a_poisoned_batch_is_buried_and_later_ones_go_on(
    stub: Stub, made: Device, home: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    """Test 35: 400 and 413. A tombstone with the counts takes its place in the chain."""
    monkeypatch.setattr(spool, "MAX_ROWS", 4)
    poison: list[str] = []

    def decide(_: int, key: str) -> Fault | None:
        if "/d/" in key and not poison:
            poison.append(key)
        return Fault(status, code) if key in poison else None

    stub.decide = decide
    shipped = send(made, home)
    assert shipped.waiting == 0
    chain = made_chain(stub)
    assert [manifest["seq"] for manifest in chain] == [*range(1, len(chain) + 1)]
    assert len(chain) > 1
    assert [bool(manifest.get("tombstone")) for manifest in chain] == [True] + [False] * (len(chain) - 1)
    assert sum(chain[0]["tombstone"]["rows"].values()) == 4
    assert sum(item["rows"] for manifest in chain[1:] for item in manifest["objects"]) == shipped.rows


def made_chain(stub: Stub) -> list[dict[str, object]]:
    import json

    return sorted((json.loads(stub.objects[key]) for key in manifests(stub)), key=lambda manifest: manifest["seq"])


def test_an_answer_of_400_from_the_way_here_buries_nothing(stub: Stub, made: Device, home: Path) -> None:
    stub.decide = lambda *_: Fault(400, body="<html>Bad Request</html>")
    with pytest.raises(DeviceError):
        send(made, home)
    stub.decide = lambda *_: Fault(400, "BadDigest")
    with pytest.raises(DeviceError):
        send(made, home, is_forced=True)
    assert waiting(made) >= 1
    stub.decide = lambda *_: None
    send(made, home, is_forced=True)
    assert not any(manifest.get("tombstone") for manifest in made_chain(stub))


def test_a_store_that_takes_not_even_a_tombstone_loses_nothing(stub: Stub, made: Device, home: Path) -> None:
    stub.decide = lambda *_: Fault(400, "InvalidRequest")
    with pytest.raises(DeviceError, match="asked again"):
        send(made, home)
    assert waiting(made) >= 1


@pytest.mark.parametrize("minutes", [-20, 20, 3 * 365 * 1440, -56 * 365 * 1440])
def test_a_clock_that_is_off_is_corrected_for_the_signature(
    stub: Stub, made: Device, home: Path, minutes: float
) -> None:
    """Test 36: a server 15 minutes off refuses. What it says of its time is signed with; no record's day changes."""
    stub.clock_offset = minutes * 60

    def decide(_: int, key: str) -> Fault | None:
        signed = datetime.strptime(stub.requests[-1][2]["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        true = datetime.now(UTC) + timedelta(minutes=minutes)
        return Fault(403, "RequestTimeTooSkewed") if abs(signed - true) > timedelta(minutes=15) else None

    stub.decide = decide
    assert send(made, home).waiting == 0
    assert len(stub.puts) == len(stub.objects) + 1, "one request was refused, the rest went at once"
    append(queen_folder(home) / "events.jsonl", dump(turn(100)))
    send(made, home)
    last = made_chain(stub)[-1]
    assert abs(int(str(last["clock_offset_seconds"])) - minutes * 60) < 120


def refused_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def nothing_was_delivered(made: Device, home: Path) -> None:
    with pytest.raises(DeviceError, match=r"waits? safely"):
        send(made, home, is_forced=True)
    assert waiting(made) >= 1
    with made.state() as state:
        assert state.totals()["batches_delivered"] == 0


def test_no_way_to_the_store_delivers_nothing(
    stub: Stub, made: Device, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 39: nobody listens, the name is unknown, the connection hangs."""
    monkeypatch.setattr(store, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(store, "READ_SECONDS", 0.2)
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.0)
    for endpoint in (refused_port(), "http://nowhere.invalid"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        nothing_was_delivered(made, home)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        nothing_was_delivered(made, home)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stub.endpoint)
    assert send(made, home, is_forced=True).waiting == 0


def self_signed(key: Path, certificate: Path) -> None:
    """Write a key, and a certificate for it that only it has signed."""
    made, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(made, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def test_a_bad_certificate_delivers_nothing(
    made: Device, home: Path, tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 39: a certificate that nobody we trust has signed."""
    import http.server
    import threading

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    self_signed(key, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Quiet(http.server.HTTPServer):
        def handle_error(self, *_: object) -> None:
            """The client hangs up: that is the point."""

    with Quiet(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.0)
        nothing_was_delivered(made, home)
        server.shutdown()


HTML = "<!doctype html><html><body>Welcome to our hotel</body></html>"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(200, body=HTML, headers={"Content-Type": "text/html"}),
        Fault(200, body=HTML, headers={"Content-Type": "text/html", "ETag": '"abc"'}),
        Fault(200, body="", headers={"ETag": f'"{"0" * 32}"'}),
        Fault(200, body="", headers={"ETag": '"abc"', "x-amz-checksum-sha256": "AAAA"}),
        Fault(200, body=""),
        Fault(302, body=HTML, headers={"Location": "http://hotel.invalid/login"}),
        Fault(307, body="", headers={"Location": "http://hotel.invalid/login"}),
        Fault(511, body=HTML),
    ],
    ids=["html", "html with an etag", "other etag", "other checksum", "nothing", "302", "307", "511"],
)
def test_what_is_no_store_delivers_nothing(
    stub: Stub, made: Device, home: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 39: a captive portal answers 200 to everything."""
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.0)
    stub.decide = lambda *_: fault
    nothing_was_delivered(made, home)
    stub.decide = lambda *_: None
    assert send(made, home, is_forced=True).waiting == 0
    assert not any(manifest.get("tombstone") for manifest in made_chain(stub))


def test_an_encrypted_stores_etag_is_no_md5_and_is_believed(stub: Stub, made: Device, home: Path) -> None:
    headers = {"ETag": '"opaque-1"', "x-amz-server-side-encryption": "aws:kms"}
    stub.decide = lambda *_: Fault(200, body="", headers=headers, stores=True)
    assert send(made, home).waiting == 0


# delays --------------------------------------------------------------------------------------------------------------


def test_delays_grow_are_spread_and_end_at_an_hour(made: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter: U(0, min(1 h, 5 s * 2^n)), with no limit of tries over the life of a batch and over processes."""
    now = Now()
    drawn: list[float] = []
    really = random.uniform
    monkeypatch.setattr(random, "uniform", lambda low, high: (drawn.append(high), really(low, high))[1])
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 1e9)
    for number in range(40):
        with made.state() as state:  # another process each time
            retry = Retry(state, "s3://lake/x", no_sleep, now)
            retry.begin(1)
            retry.failed(1, StoreUnavailableError("gone"))
            known = state.trouble("s3://lake/x")
            assert known is not None
            assert (known.tries, known.failures) == (number + 1, number + 1)
    assert drawn == [min(3600.0, 5.0 * 2**number) for number in range(40)]


def test_a_backlog_goes_out_at_a_measured_pace(made: Device) -> None:
    with made.state() as state:
        for url, expected in (("s3://lake/x", [4.0] * 5), ("file:///a", [])):
            slept: list[float] = []
            retry = Retry(state, url, slept.append)
            for seq in range(limits.UPLOADS_PER_MINUTE + 5):
                retry.begin(seq + 1)
            assert slept == expected


def test_a_fleet_that_lost_the_store_does_not_come_back_at_once(made: Device) -> None:
    """Test 41: 100 devices fail at one moment; no second of the next minutes sees more than three times the mean."""
    random.seed(41)
    now = Now()
    seconds: dict[int, int] = {}
    with made.state() as state:
        for number in range(100):
            retry = Retry(state, f"s3://lake/{number}", no_sleep, now)
            state.set_trouble(retry.url, Trouble(1, now.time, now.time, 7, 7))
            with suppress(LaterError):
                retry.failed(1, StoreUnavailableError("gone"))
            known = state.trouble(retry.url)
            assert known is not None
            second = int((known.next_at - now.time).total_seconds())
            seconds[second // 60] = seconds.get(second // 60, 0) + 1
    minutes = 640 / 60
    assert max(seconds.values()) <= 3 * 100 / minutes


# credentials ---------------------------------------------------------------------------------------------------------


def test_a_credentials_file_takes_the_place_of_the_variables(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in stub.environment:
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = own\naws_secret_access_key = s%cret\nregion = eu\n"
        f"endpoint_url = {stub.endpoint}\n"
    )
    open_store("s3://lake/x", credentials=file).put("a", b"data")
    assert "Credential=own/" in stub.requests[0][2]["Authorization"]
    file.write_text("[other]\n")
    with pytest.raises(store.StoreRefusedError, match="holds no credentials"):
        open_store("s3://lake/x", credentials=file).put("a", b"data")
