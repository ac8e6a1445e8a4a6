"""Conversion of messages to rows: pure, and exact."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from ravenbus.errors import PoisonError
from ravenbus.messages import DeadLetter, Reading
from ravenbus.notifications import (
    CurrentSummationDelivered,
    InstantaneousDemand,
    Notification,
    PriceCluster,
)

Row = tuple[Any, ...]

IDENTITY: Final = (
    *("time", "received", "device_time", "node", "device", "meter", "run", "hash", "seq"),
)
"""Columns common to all tables of readings."""

_SCALE: Final = ("multiplier", "divisor", "digits_right", "digits_left", "suppress_leading_zero")

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "instantaneous_demand": ("demand", *_SCALE, "claimed_time", "rolled_up"),
    "current_summation_delivered": (
        *("summation_delivered", "summation_received"),
        *(*_SCALE, "claimed_time"),
    ),
    "price_cluster": (
        *("price", "trailing_digits", "price_per_kwh", "currency", "tier"),
        *("start_time", "duration", "tier_label", "rate_label", "claimed_time"),
    ),
    "notification": ("kind", "body"),
}
"""The tables of readings, with what each has of its own; `notification` takes every other kind."""

DERIVED: Final = frozenset({"price_per_kwh", "rolled_up"})
"""Columns that say nothing which the others do not say."""

BODY_MAX: Final = 2**20
"""Bytes: quoted, it fits into the smallest packet that a server allows in practice, 4 MiB."""

PRICE_DIGITS: Final = Decimal(1).scaleb(-18)
"""The digits that the column price_per_kwh keeps."""

LETTER_COLUMNS: Final = (
    *("id", "service", "node", "at", "reason", "detail", "topic", "payload", "size"),
)


class TableRow(NamedTuple):
    """A row and the table that it belongs to."""

    table: str
    values: Row


def insert(table: str, columns: Sequence[str], key: str) -> str:
    """Return an INSERT of many rows that leaves a row with the same unique key as it is.

    Its form is what PyMySQL's ``executemany`` makes one statement of: nothing but placeholders.
    """
    places = ", ".join(["%s"] * len(columns))
    names = ", ".join(columns)
    return (
        f"INSERT INTO {table} ({names}) VALUES ({places}) "  # noqa: S608 - names are ours
        f"ON DUPLICATE KEY UPDATE {key} = {table}.{key}"
    )


INSERTS: Final = {table: insert(table, IDENTITY + own, "seq") for table, own in COLUMNS.items()}
INSERT_LETTER: Final = insert("dead_letter", LETTER_COLUMNS, "id")


def reading_row(reading: Reading) -> TableRow:
    """Return a reading's row; raise PoisonError if no row can hold it."""
    notification = reading.notification
    match notification:
        case InstantaneousDemand() | CurrentSummationDelivered():
            # What the sink inserts it rolls up in the same transaction.
            exact: dict[str, Any] = {"rolled_up": True}
        case PriceCluster():
            start = notification.start_time
            exact = {"price_per_kwh": _price(notification), "start_time": start and millis(start)}
        case _:
            return TableRow("notification", (*_identity(reading), reading.kind, _body(reading)))
    claimed = notification.claimed_time
    exact["claimed_time"] = claimed and millis(claimed)
    own = [exact[n] if n in exact else getattr(notification, n) for n in COLUMNS[reading.kind]]
    return TableRow(reading.kind, (*_identity(reading), *own))


def letter_row(letter: DeadLetter, payload_max: int) -> Row:
    """Return a dead letter's row, its payload cut to ``payload_max`` bytes."""
    columns = msgspec.structs.asdict(letter)
    columns["payload"] = letter.payload[:payload_max]
    columns["at"] = millis(letter.at)
    return tuple(columns[name] for name in LETTER_COLUMNS)


def millis(time: datetime) -> datetime:
    """Return the time as the database keeps it, cut to the millisecond: a server would round."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=None)


def seconds(time: datetime) -> datetime:
    """Return the time cut to the second."""
    return time.replace(microsecond=0, tzinfo=None)


def _identity(reading: Reading) -> Row:
    envelope, notification = reading.envelope, reading.notification
    device_time = notification.time
    return (
        seconds(device_time or envelope.received),
        millis(envelope.received),
        device_time and millis(device_time),
        envelope.node,
        notification.device,
        notification.meter,
        envelope.run,
        envelope.hash,
        envelope.seq,
    )


def _price(notification: PriceCluster) -> Decimal | None:
    if notification.price is None or notification.trailing_digits is None:
        return None
    return Decimal(notification.price).scaleb(-notification.trailing_digits).quantize(PRICE_DIGITS)


def _body(reading: Reading) -> str:
    notification: Notification = reading.notification
    body = msgspec.json.encode(notification)
    if len(body) > BODY_MAX:
        detail = f"{len(body)} bytes of {reading.kind}: {BODY_MAX} can be stored"
        raise PoisonError("too-large", detail)
    return body.decode()
