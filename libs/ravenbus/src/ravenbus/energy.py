"""Energy of a period, what a meter's registers grew by up to each of its readings: pure.

Growth belongs to the period of the later of two readings, so the periods add up.  Times here are
UTC without a zone, in whole seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ravenbus.messages import Reading
from ravenbus.notifications import CurrentSummationDelivered, derived
from ravenbus.periods import PERIODS_S, Period, start_of

MOST_KW: Final = 1000
"""Ten times what a meter of these sticks carries: what grew faster was not counted by the meter."""
SHORTEST: Final = timedelta(minutes=1)
"""Two readings are taken to be as far apart: a time has whole seconds, and a report may be late."""
WRAPS_AT: Final = (2**32, 2**48)
"""Counts at which registers begin again."""
NAMES: Final = ("delivered", "received")


class Register(NamedTuple):
    """A meter's registers in a reading; ``unit`` is kWh a count."""

    time: datetime
    kwh: tuple[Decimal | None, Decimal | None]
    unit: Decimal


class Energy(NamedTuple):
    """What the registers of a period come to.

    ``…_kwh`` is what a register grew by, ``…_kwh_min`` and ``…_kwh_max`` are its values at its
    first and at its last reading, ``…_first`` and ``…_last`` their times.
    """

    readings: int = 0
    delivered_kwh_min: Decimal | None = None
    delivered_kwh_max: Decimal | None = None
    delivered_kwh: Decimal | None = None
    delivered_first: datetime | None = None
    delivered_last: datetime | None = None
    received_kwh_min: Decimal | None = None
    received_kwh_max: Decimal | None = None
    received_kwh: Decimal | None = None
    received_first: datetime | None = None
    received_last: datetime | None = None


Totals = dict[datetime, Energy]
"""By the start of the period."""


def register(
    time: datetime,
    delivered: int | None,
    received: int | None,
    multiplier: int | None,
    divisor: int | None,
) -> Register:
    """Return the registers in a reading of these values."""
    kwh = (derived(delivered, multiplier, divisor), derived(received, multiplier, divisor))
    return Register(time, kwh, derived(1, multiplier, divisor) or Decimal(0))


def of_reading(reading: Reading) -> Register:
    """Return the registers in a reading, which must be a ``CurrentSummationDelivered``."""
    found, received = reading.notification, reading.envelope.received
    assert isinstance(found, CurrentSummationDelivered)  # noqa: S101 - for the type's sake
    return register(
        (found.time or received).replace(microsecond=0, tzinfo=None),
        *(found.summation_delivered, found.summation_received),
        *(found.multiplier, found.divisor),
    )


def halves(
    delivered_last: datetime | None,
    delivered: Decimal | None,
    received_last: datetime | None,
    received: Decimal | None,
) -> tuple[Register | None, Register | None]:
    """Return each register as it was at its time, if it has one."""
    return (
        Register(delivered_last, (delivered, None), Decimal(0)) if delivered_last else None,
        Register(received_last, (None, received), Decimal(0)) if received_last else None,
    )


def in_order(side: int) -> Callable[[Register], tuple[datetime, Decimal]]:
    """Return what registers are sorted by: time, and within a second as they grow."""
    return lambda register: (register.time, register.kwh[side] or Decimal(0))


def last_of(registers: Iterable[Register | None], side: int) -> Register | None:
    """Return the last that has a value."""
    candidates = [one for one in registers if one and one.kwh[side] is not None]
    return max(candidates, key=in_order(side), default=None)


def growth(before: Register, after: Register, side: int) -> Decimal:
    """Return by how many kWh a register grew from one reading to the next, 0 if that is not known.

    A register that fell has wrapped, or began again at zero, if that makes an energy which a meter
    can have counted meanwhile; otherwise another meter came, and what it counted is not known.
    """
    old, new = before.kwh[side], after.kwh[side]
    if old is None or new is None:
        return Decimal(0)
    hours = Decimal(max(after.time - before.time, SHORTEST) / timedelta(hours=1))
    most = MOST_KW * hours
    if new >= old:
        return new - old if new - old <= most else Decimal(0)
    for wraps_at in WRAPS_AT:
        wrapped = new - old + wraps_at * after.unit
        if 0 < wrapped <= most:
            return wrapped
    return new if new <= most and new <= old / 2 else Decimal(0)


def totals(
    known: Sequence[Register], new: Sequence[Register], period_s: int = PERIODS_S[0]
) -> Totals:
    """Return what ``new`` readings add to their periods and to those of the ``known`` around them.

    Both are of one meter; the first of the known ones is the last before the new.
    """
    found: dict[datetime, list[Energy]] = defaultdict(list)
    for register in new:
        found[start_of(register.time, period_s)].append(_alone(register))
    for side in (0, 1):
        for sign, registers in ((1, [*known, *new]), (-1, known)):
            for after, grown in grown_to(registers, side):
                by: dict[str, Any] = {f"{NAMES[side]}_kwh": sign * grown}
                found[start_of(after.time, period_s)].append(Energy(**by))
    return {start: combined(parts) for start, parts in found.items()}


def grown_to(registers: Iterable[Register], side: int) -> list[tuple[Register, Decimal]]:
    """Return the readings up to which a register grew, and by what."""
    with_value = [one for one in registers if one.kwh[side] is not None]
    ordered = sorted(with_value, key=in_order(side))
    return [
        (after, grown)
        for before, after in pairwise(ordered)
        if (grown := growth(before, after, side))
    ]


def combined(parts: Sequence[Energy]) -> Energy:
    """Return what a period comes to that has these parts.

    Registers without times, of months that version 1.0 archived, are passed over.
    """
    rows: list[tuple[Any, ...]] = [tuple(part) for part in parts]
    columns: list[Any] = [sum(part.readings for part in parts)]
    for side in (slice(1, 6), slice(6, 11)):
        of_side = [row[side] for row in rows]
        firsts = [(first, low) for low, _, _, first, _ in of_side if first]
        lasts = [(last, high) for _, high, _, _, last in of_side if last]
        grown = [kwh for _, _, kwh, _, _ in of_side if kwh is not None]
        first, low = min(firsts, default=(None, None))
        last, high = max(lasts, default=(None, None))
        columns += [low, high, sum(grown, Decimal(0)) if grown else None, first, last]
    return Energy(*columns)


def shortest(
    node: str, meter: str, by_start: Mapping[datetime, Energy]
) -> list[tuple[Period, Energy]]:
    """Return the totals with the periods that they are of."""
    return [(Period(PERIODS_S[0], node, meter, start), one) for start, one in by_start.items()]


def _alone(register: Register) -> Energy:
    """Return what a reading is for its period, without what the registers grew by before."""
    columns: list[Any] = [1]
    for kwh in register.kwh:
        time = None if kwh is None else register.time
        columns += [kwh, kwh, None if kwh is None else Decimal(0), time, time]
    return Energy(*columns)
