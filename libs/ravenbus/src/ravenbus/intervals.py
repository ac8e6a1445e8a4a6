"""The meter's own intervals, where its registers were not heard: pure.

What a register grew by between two readings counts for the period of the later one.  Intervals
say when in between it was used: they divide that growth, and add nothing to it.  Times here are
UTC without a zone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from ravenbus.energy import NAMES, Register, growth
from ravenbus.messages import Reading
from ravenbus.notifications import ProfileData

INTERVALS: Final = str(ProfileData.__struct_config__.tag)
"""The kind that has them."""
SHORTEST_GAP: Final = timedelta(minutes=30)
"""Registers come every few minutes, and the intervals of most meters are 15 minutes long."""


class Interval(NamedTuple):
    """What a register grew by, in counts, from ``start`` to ``end``."""

    start: datetime
    end: datetime
    counts: int


def of_side(readings: Iterable[Reading], side: int) -> list[Interval]:
    """Return the intervals of a register, in order and each once, the shorter where two overlap.

    An interval that is not said the same twice is left out, as one that the meter calls invalid.
    """
    said: dict[tuple[datetime, datetime], set[int | None]] = defaultdict(set)
    for reading in readings:
        found = reading.notification
        if not isinstance(found, ProfileData) or found.interval_channel != NAMES[side]:
            continue
        if found.time is None or not found.interval_s:
            continue
        length = timedelta(seconds=found.interval_s)
        newest = found.time.replace(tzinfo=None)
        for back, count in enumerate(found.intervals):
            said[newest - (back + 1) * length, newest - back * length].add(count)
    chosen: list[Interval] = []
    for (start, end), counts in sorted(said.items(), key=lambda item: item[0][1] - item[0][0]):
        place = bisect_right(chosen, start, key=lambda one: one.start)
        around = chosen[max(place - 1, 0) : place + 1]
        free = all(end <= one.start or one.end <= start for one in around)
        count = counts.pop()
        if free and not counts and count is not None:
            chosen.insert(place, Interval(start, end, count))
    return chosen


def between(
    before: Register, after: Register, side: int, intervals: Iterable[Interval]
) -> list[tuple[Interval, Decimal]]:
    """Return the intervals between two readings of a register, with their kWh.

    There are none where they come to more than the register grew by.
    """
    found = [
        (one, one.counts * after.unit)
        for one in intervals
        if before.time <= one.start and one.end <= after.time
    ]
    fit = sum(kwh for _, kwh in found) <= growth(before, after, side)
    return found if fit else []
