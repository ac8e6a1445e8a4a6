"""Readings for tests, and a notification of each kind."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import (
    KINDS,
    InstantaneousDemand,
    Notification,
    PriceBlock,
    ProfileData,
    scaled,
)

METER = "0013500100abcdef"
T0 = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)


def new_hash() -> str:
    return str(uuid.uuid4())


def reading(hash_: str, seq: int, demand: int = 1437, **changes: Any) -> Reading:
    """Return a demand, eight seconds after the one before."""
    at = T0 + timedelta(seconds=8 * min(seq, 10**6))
    fields = {"device": None, "meter": METER, "time": at.replace(microsecond=0)}
    fields |= {"multiplier": 1, "divisor": 1000, "demand": demand, "demand_kw": demand / 1000}
    envelope = Envelope(
        node=changes.pop("node", "home"),
        run=changes.pop("run", "r"),
        hash=hash_,
        seq=seq,
        received=changes.pop("received", at),
    )
    return Reading(envelope, InstantaneousDemand(**(fields | changes)))


def every_kind() -> list[Notification]:
    """Return a notification of each kind, once with all that it may have and once with least."""
    at = datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC)
    values = {
        "multiplier": 3,
        "divisor": 7000,
        "demand": -5,
        "summation_delivered": 2**48 - 1,
        "summation_received": 12,
        "price": 14764,
        "trailing_digits": 5,
        "meters": [METER],
        "status": "ü",
        "event": "e",
        "text": "t",
        "tier": 2,
        "currency": 840,
        "start_time": at,
        "duration": 65535,
        "suppress_leading_zero": False,
        "digits_right": 3,
        "rate_label": "",
        "blocks": [PriceBlock(threshold=4140, price=14764, price_per_kwh=0.14764)],
        "intervals": [362, None],
    }
    found = []
    for kind in KINDS.values():
        names = {field.name for field in msgspec.structs.fields(kind)}
        for time, meter in ((at, METER), (None, None)):
            fields = {name: value for name, value in values.items() if name in names}
            if time is None:
                optional = {f.name for f in msgspec.structs.fields(kind) if not f.required}
                fields = {name: value for name, value in fields.items() if name not in optional}
            if kind is ProfileData:
                fields.pop("status", None)
            fields |= {"device": None, "meter": meter, "time": time}
            scale = fields.get("multiplier"), fields.get("divisor")
            scaled_from = {
                "demand_kw": "demand",
                "delivered_kwh": "summation_delivered",
                "received_kwh": "summation_received",
            }
            derived = {n: scaled(fields.get(raw), *scale) for n, raw in scaled_from.items()}
            derived |= {"price_per_kwh": 0.14764, "usage_kwh": None}
            nothing = {"current_usage": None, "last_usage": None}
            more = {n: v for n, v in (derived | nothing).items() if n in names}
            found.append(kind(**more, **fields))
    return found
