"""A message as a document, and back; no database."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from bson import BSON, CodecOptions, Int64

from ravenbus.errors import ContractError
from ravenbus.messages import DeadLetter, Envelope, Reading, Run, encode
from ravenbus.notifications import BlockPriceDetail, InstantaneousDemand, PriceBlock, ProfileData
from ravenmongo import documents
from tests.kinds import every_kind

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
RUN = "11111111-2222-4333-8444-555555555555"
METER = "0013500100abcdef"
DEMAND = InstantaneousDemand(
    device=None, meter=METER, time=NOW, multiplier=1, divisor=1000, demand=-5, demand_kw=-0.005
)


def reading(notification, seq: int = 1) -> Reading:
    return Reading(Envelope(node="home", run="r", hash=RUN, seq=seq, received=NOW), notification)


def through_bson(document):
    """Return what the driver reads of what it wrote."""
    return BSON.encode(document).decode(CodecOptions(tz_aware=True))


def test_a_reading_is_a_flat_document_of_bson_types():
    """_id of hash and number, dates, 64-bit integers however small, doubles, nested blocks."""
    document = documents.of_reading(reading(DEMAND, 7))
    assert document["_id"] == f"{RUN}/7"
    assert (document["kind"], document["meter"]) == ("instantaneous_demand", METER)
    decoded = BSON.encode(document).decode()
    assert isinstance(decoded["demand"], Int64)
    assert isinstance(decoded["seq"], Int64)
    assert isinstance(decoded["demand_kw"], float)
    assert decoded["time"] == NOW.replace(tzinfo=None)
    assert decoded["device"] is None
    blocks = BlockPriceDetail(
        device=None,
        meter=None,
        time=None,
        multiplier=1,
        divisor=10,
        trailing_digits=5,
        blocks=[PriceBlock(threshold=4140, price=14764, price_per_kwh=0.14764)],
    )
    assert isinstance(documents.of_reading(reading(blocks))["blocks"][0]["threshold"], Int64)
    profile = ProfileData(device=None, meter=None, time=None, intervals=[362, None])
    assert documents.of_reading(reading(profile))["intervals"] == [362, None]


def test_a_dead_letter_keeps_its_bytes():
    """Its id is the document's, its payload binary."""
    letter = DeadLetter(
        id="a" * 32,
        service="reader",
        at=NOW,
        reason="bad-value",
        detail="d",
        payload=b"\x00<",
        size=2,
    )
    document = documents.of_letter(letter)
    assert (document["_id"], document["payload"], document["size"]) == ("a" * 32, b"\x00<", 2)


@pytest.mark.parametrize("notification", every_kind(), ids=lambda one: type(one).__name__)
def test_every_kind_comes_back_from_its_document_as_it_was(notification):
    """What is sent again from a document is the message that was stored, to the byte."""
    sent = reading(notification, 2**53 + 1)
    again = documents.reading(through_bson(documents.of_reading(sent)))
    assert again == sent
    assert encode(again) == encode(sent)


def test_what_bson_cuts_is_known():
    """A time with microseconds comes back to the millisecond, as ``as_stored`` says."""
    time = NOW.replace(microsecond=123456)
    envelope = Envelope(node="home", run="r", hash=RUN, seq=1, received=time)
    sent = Reading(envelope, DEMAND)
    again = documents.reading(through_bson(documents.of_reading(sent)))
    assert again != sent
    assert again == documents.as_stored(sent)


def test_runs_and_dead_letters_come_back_too():
    """With every field, the payload's bytes included."""
    run = Run(node="home", run="r", hash=RUN, started=NOW, meter=METER)
    assert documents.run(through_bson({"_id": RUN, **documents.of_run(run)})) == run
    letter = DeadLetter(
        id="a" * 32, service="reader", at=NOW, reason="x", detail="d", payload=b"\x00<", size=2
    )
    assert documents.letter(through_bson(documents.of_letter(letter))) == letter


def test_a_document_that_somebody_changed_is_no_reading():
    """It is refused as a message would be."""
    document = documents.of_reading(reading(DEMAND)) | {"demand": "much"}
    with pytest.raises(ContractError, match="not-contract"):
        documents.reading(document)


@pytest.mark.parametrize("notification", every_kind())
def test_a_claimed_time_comes_back(notification):
    """What a clock claimed that cannot be true is a date like any other, in every kind."""
    claimed = datetime(2135, 12, 31, 23, 59, 58, tzinfo=UTC)
    one = reading(msgspec.structs.replace(notification, time=None, claimed_time=claimed))
    assert documents.reading(through_bson(documents.of_reading(one))) == one
