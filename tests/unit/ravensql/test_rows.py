"""Rows made from messages; no database."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from pymysql.cursors import RE_INSERT_VALUES

from ravenbus.errors import PoisonError
from ravenbus.messages import DeadLetter, Envelope, Reading, decode_reading, encode
from ravenbus.notifications import (
    KINDS,
    BlockPriceDetail,
    CurrentSummationDelivered,
    InstantaneousDemand,
    MessageCluster,
    PriceBlock,
    PriceCluster,
)
from ravensql import rows

RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
DEVICE_TIME = datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC)
RUN = "11111111-2222-4333-8444-555555555555"
METER = "0013500100abcdef"
COMMON = {"device": None, "meter": METER, "time": DEVICE_TIME}


def row(notification) -> tuple[str, dict]:
    envelope = Envelope(node="home", run="r", hash=RUN, seq=7, received=RECEIVED)
    table, values = rows.reading_row(Reading(envelope, notification))
    return table, dict(zip(rows.IDENTITY + rows.COLUMNS[table], values, strict=True))


def test_a_demand_is_a_row_of_its_raw_integers():
    """The identity, both clocks in UTC without a zone, and the integers as they came."""
    demand = InstantaneousDemand(**COMMON, multiplier=1, divisor=1000, demand=-5, demand_kw=-0.005)
    table, found = row(demand)
    assert table == "instantaneous_demand"
    assert (found["hash"], found["seq"], found["run"], found["node"]) == (RUN, 7, "r", "home")
    assert found["time"] == found["device_time"] == datetime(2026, 3, 1, 11, 59, 58)  # noqa: DTZ001
    assert found["received"] == datetime(2026, 3, 1, 12, 0, 0, 123000)  # noqa: DTZ001
    assert (found["demand"], found["multiplier"], found["divisor"]) == (-5, 1, 1000)


def test_a_reading_without_the_devices_time_has_the_readers():
    """`time` is cut to the second and `device_time` says that the device had none."""
    demand = InstantaneousDemand(
        device=None, meter=None, time=None, multiplier=None, divisor=1, demand=None, demand_kw=None
    )
    _, found = row(demand)
    assert found["time"] == datetime(2026, 3, 1, 12, 0)  # noqa: DTZ001
    assert found["device_time"] is None
    assert found["multiplier"] is found["demand"] is found["meter"] is None


def test_a_summation_keeps_all_48_bits():
    """Registers are integers; the kWh are the server's to derive."""
    summation = CurrentSummationDelivered(
        **COMMON,
        multiplier=1,
        divisor=1000,
        summation_delivered=2**48 - 1,
        summation_received=None,
        delivered_kwh=281474976710.655,
        received_kwh=None,
    )
    table, found = row(summation)
    assert table == "current_summation_delivered"
    assert (found["summation_delivered"], found["summation_received"]) == (2**48 - 1, None)


@pytest.mark.parametrize(
    ("price", "digits", "exact"),
    [
        (14764, 5, Decimal("0.14764")),
        (2**32 - 1, 0, Decimal(2**32 - 1)),
        (2**32 - 1, 18, Decimal("0.000000004294967295")),
        (1, 255, Decimal(0)),
        (None, 5, None),
        (5, None, None),
    ],
)
def test_a_price_is_an_exact_decimal(price, digits, exact):
    """It comes from the integers, never from the message's binary fraction."""
    cluster = PriceCluster(**COMMON, price=price, trailing_digits=digits, price_per_kwh=0.1)
    table, found = row(cluster)
    assert table == "price_cluster"
    assert found["price_per_kwh"] == exact
    assert isinstance(found["price_per_kwh"], Decimal | None)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_a_row(kind):
    """A kind without a table of its own is kept as the bus has it, whole."""
    fields = msgspec.structs.fields(KINDS[kind])
    required = {f.name: None for f in fields if f.required and f.name not in COMMON}
    required |= {name: "text" for name in ("status", "event", "text") if name in required}
    required |= {"meters": [METER]} if kind == "meter_list" else {}
    notification = KINDS[kind](**COMMON, **required)
    table, found = row(notification)
    assert found["seq"] == 7
    assert not [value for value in found.values() if isinstance(value, float)]
    if table == "notification":
        assert found["kind"] == kind
        assert msgspec.json.decode(found["body"], type=KINDS[kind]) == notification
    else:
        assert table == kind


def test_a_number_in_a_body_is_the_text_that_was_on_the_bus():
    """0.14764 stays these digits: the column is text, not the server's binary JSON."""
    block = PriceBlock(threshold=4140, price=14764, price_per_kwh=0.14764)
    detail = BlockPriceDetail(**COMMON, multiplier=1, divisor=10, trailing_digits=5, blocks=[block])
    reading = Reading(Envelope(node="home", run="r", hash=RUN, seq=1, received=RECEIVED), detail)
    again = decode_reading(encode(reading))
    assert '"price_per_kwh":0.14764' in rows.reading_row(again).values[-1]


def test_a_body_that_no_packet_can_carry_is_poison(monkeypatch):
    """It would be refused by closing the connection, which looks like a server that is away."""
    monkeypatch.setattr(rows, "BODY_MAX", 100)
    with pytest.raises(PoisonError, match="too-large"):
        row(MessageCluster(**COMMON, text="x" * 100))


def test_a_dead_letter_is_cut_to_the_packet_and_keeps_its_size():
    """The first bytes are kept; `size` counts the original's."""
    letter = DeadLetter(
        id="a" * 32,
        service="reader",
        at=RECEIVED,
        reason="bad-value",
        detail="d",
        payload=b"\x00<abc",
        size=5,
    )
    found = dict(zip(rows.LETTER_COLUMNS, rows.letter_row(letter, 2), strict=True))
    assert (found["payload"], found["size"]) == (b"\x00<", 5)
    assert found["at"] == datetime(2026, 3, 1, 12, 0, 0, 123000)  # noqa: DTZ001


@pytest.mark.parametrize("query", [*rows.INSERTS.values(), rows.INSERT_LETTER])
def test_every_insert_has_the_form_that_stays_one_statement(query):
    """Anything but placeholders between the brackets makes PyMySQL send row by row."""
    assert RE_INSERT_VALUES.match(query)
