"""A row as the reading that it was: the inverse of ``rows``, pure and exact.

A row that another program inserted has no ``seq``; python-raven's tables have such rows.  Its
identity is made for it: the hash from the database, the run's name and its old hash, so that it
is a UUID and nobody else's, and the number from whoever publishes the row, once and for good.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ravenbus.errors import ContractError
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import (
    AnyNotification,
    CurrentSummationDelivered,
    InstantaneousDemand,
    Notification,
    PriceCluster,
    price_per_kwh,
    scaled,
)
from ravensql import rows

COLUMNS: Final = {
    table: ("id", *rows.IDENTITY, *(name for name in own if name not in rows.DERIVED))
    for table, own in rows.COLUMNS.items()
}
"""What is read of each table, in the order in which ``reading`` takes it."""

_OLD_METER: Final = re.compile(r"(?:0x)?([0-9a-f]{1,16})", re.IGNORECASE)
_body: Final[msgspec.json.Decoder[Notification]] = msgspec.json.Decoder(AnyNotification)


def reading(table: str, row: rows.Row) -> Reading:
    """Return the reading in a row of ``COLUMNS[table]``; raise ContractError if it is none.

    What the columns hold is not checked against the contract.
    """
    found = dict(zip(COLUMNS[table], row, strict=True))
    common = {
        "device": found["device"],
        "meter": found["meter"],
        "time": _utc(found["device_time"]),
    }
    envelope = Envelope(
        node=found["node"],
        run=found["run"],
        hash=found["hash"],
        seq=found["seq"],
        received=_utc(found["received"]),  # type: ignore[arg-type] # what is checked later
    )
    return Reading(envelope, _notification(table, found, common))


def adopted(row: rows.Row, *, node: str, hash_: str, seq: int, meter: str | None) -> rows.Row:
    """Return a row of ``instantaneous_demand`` with the identity that was made for it.

    Its time was the clock of the host that inserted it.
    """
    found = dict(zip(COLUMNS["instantaneous_demand"], row, strict=True))
    found |= {"node": node, "hash": hash_, "seq": seq, "meter": found["meter"] or old_meter(meter)}
    found["received"] = found["received"] or found["time"]
    return tuple(found.values())


def made_hash(source: str, run: str, hash_: str) -> str:
    """Return the hash of a run of rows without ``seq`` in the database named ``source``."""
    return str(uuid.uuid5(uuid.UUID(source), f"{run}\0{hash_}"))


def old_meter(text: str | None) -> str | None:
    """Return a meter's id as python-raven wrote it, 0x0013500100abcdef, as the bus has it."""
    matched = _OLD_METER.fullmatch(text or "")
    return matched[1].lower().zfill(16) if matched else None


def _notification(table: str, found: dict[str, Any], common: dict[str, Any]) -> Notification:
    if table == "notification":
        return _decoded(found["body"], found["kind"])
    own = {name: found[name] for name in COLUMNS[table] if name in rows.COLUMNS[table]}
    if table == "price_cluster":
        own["start_time"] = _utc(own["start_time"])
        value = price_per_kwh(own["price"], own["trailing_digits"])
        return PriceCluster(**common, **own, price_per_kwh=value)
    hint = own["suppress_leading_zero"]
    own["suppress_leading_zero"] = None if hint is None else bool(hint)
    scale = own["multiplier"], own["divisor"]
    if table == "instantaneous_demand":
        return InstantaneousDemand(**common, **own, demand_kw=scaled(own["demand"], *scale))
    return CurrentSummationDelivered(
        **common,
        **own,
        delivered_kwh=scaled(own["summation_delivered"], *scale),
        received_kwh=scaled(own["summation_received"], *scale),
    )


def _decoded(body: str, kind: str) -> Notification:
    try:
        return _body.decode(body)
    except msgspec.ValidationError as error:
        raise ContractError("not-contract", f"{kind}: {error}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ContractError("not-json", f"{kind}: {error}") from error


def _utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time else None
