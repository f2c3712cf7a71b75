"""Requests to erase and the receipts for it: what is written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.keys import is_named_by_contract, parse_owner, request_keys
from pipelines.contract.receipts import (
    ErasureReceipt,
    ErasureRequest,
    ReceiptError,
    parse_receipt,
    parse_request,
    receipts_prefix,
)

DEVICE, REQUEST, EPOCH = "0a" * 16, "1b" * 16, "2c" * 8
PLACE = {"region": "eu", "tenant": "acme"}
RECEIPT = ErasureReceipt(
    request_id=REQUEST, device=DEVICE, epochs=(EPOCH,), erased_at=datetime(2026, 5, 4, 10, 15, 30, 250, UTC),
    objects_deleted=7, rows_deleted=4321,
)  # fmt: skip
ASKED = ErasureRequest(
    request_id=REQUEST, region="eu", tenant="acme", device=DEVICE, epochs=("3d" * 8, EPOCH), user="ada",
    consent_id="4e" * 16, seq=1, requested_at=datetime(2026, 5, 4, 10, 15, tzinfo=UTC),
)  # fmt: skip


def test_the_form_of_a_receipt() -> None:
    """Other implementations read it: the fields and the place are fixed."""
    assert json.loads(RECEIPT.to_json()) == {
        "protocol": "v1", "kind": "erasure", "request_id": REQUEST, "device": DEVICE, "epochs": [EPOCH],
        "erased_at": "2026-05-04T10:15:30.000250+00:00", "objects_deleted": 7, "rows_deleted": 4321,
    }  # fmt: skip
    key = RECEIPT.key(**PLACE)
    assert key.startswith(f"receipts/v1/eu/acme/{DEVICE}/")
    assert key.startswith(receipts_prefix(**PLACE, device=DEVICE))
    assert parse_receipt(key, RECEIPT.to_json(), **PLACE) == RECEIPT


def test_the_form_of_a_request() -> None:
    found = json.loads(ASKED.to_json())
    assert (found["protocol"], found["request"], found["request_id"]) == ("x1", "delete_device", REQUEST)
    assert ASKED.key().startswith(f"requests/v1/acme/{DEVICE}/{EPOCH}/0000000001-")
    assert parse_request(ASKED.key(), ASKED.to_json()) == ASKED


def test_a_request_of_release_0_1_0_is_read_where_it_was_put() -> None:
    earlier = ASKED.key().replace("requests/v1/", "x1/")
    assert parse_request(earlier, ASKED.to_json()) == ASKED
    assert request_keys(earlier) == request_keys(ASKED.key()) == (ASKED.key(), earlier)
    assert parse_owner(earlier) == parse_owner(ASKED.key())
    assert is_named_by_contract(earlier)


@given(
    epochs=st.lists(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), max_size=5),
    at=st.datetimes(timezones=st.just(UTC)),
    counts=st.tuples(*(st.integers(0, 10**18 - 1),) * 2),
)
@settings(max_examples=50, deadline=None)
def test_every_receipt_is_read_as_it_was_written(epochs: list[str], at: datetime, counts: tuple[int, int]) -> None:
    receipt = ErasureReceipt(
        request_id=REQUEST, device=DEVICE, epochs=tuple(epochs), erased_at=at, objects_deleted=counts[0],
        rows_deleted=counts[1],
    )  # fmt: skip
    assert parse_receipt(receipt.key(**PLACE), receipt.to_json(), **PLACE) == receipt


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "v2"}, {"kind": "x"}, {"request_id": "acme"}, {"device": "0"}, {"epochs": EPOCH}, {"epochs": [1]},
        {"erased_at": "yesterday"}, {"erased_at": "2026-05-04T10:15:30"}, {"objects_deleted": -1},
        {"objects_deleted": True}, {"rows_deleted": 1.5}, {"rows_deleted": "1"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_changed_receipt_is_none(change: dict[str, Any]) -> None:
    data = json.dumps(json.loads(RECEIPT.to_json()) | change, sort_keys=True, separators=(",", ":")).encode()
    named_anew = f"{receipts_prefix(**PLACE, device=DEVICE)}{hashlib.sha256(data).hexdigest()[:16]}.json"
    for key in (RECEIPT.key(**PLACE), named_anew):
        with pytest.raises(ReceiptError):
            parse_receipt(key, data, **PLACE)


def test_the_name_of_a_receipt_binds_its_content() -> None:
    with pytest.raises(ReceiptError, match="key"):
        parse_receipt(RECEIPT.key(**PLACE), replace(RECEIPT, rows_deleted=4322).to_json(), **PLACE)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"nan", b"\xff", b"[" * 100_000, RECEIPT.to_json() + b" ", b"x" * (2 << 20)]
)
def test_other_bytes_are_no_receipt(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        parse_receipt(RECEIPT.key(**PLACE), data, **PLACE)
    with pytest.raises(ReceiptError):
        parse_request(ASKED.key(), data)


def test_a_receipt_belongs_to_its_device_and_a_request_to_its_place() -> None:
    with pytest.raises(ReceiptError, match="key"):
        parse_receipt(RECEIPT.key(region="eu", tenant="other"), RECEIPT.to_json(), **PLACE)
    for key in (ASKED.key().replace("acme", "other"), ASKED.key().replace("0000000001", "0000000002"), "requests/v1/"):
        with pytest.raises(ReceiptError, match="key"):
            parse_request(key, ASKED.to_json())


def test_an_error_names_the_field_and_never_its_value() -> None:
    with pytest.raises(ReceiptError) as caught:
        ErasureReceipt(
            request_id="a secret", device=DEVICE, epochs=(), erased_at=datetime.now(UTC), objects_deleted=0,
            rows_deleted=0,
        )  # fmt: skip
    assert "request_id" in str(caught.value)
    assert "secret" not in str(caught.value)
