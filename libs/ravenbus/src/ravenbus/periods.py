"""The periods of roll-ups, 5 minutes, hour and day: pure.

Times here are UTC without a zone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

PERIODS_S: Final = (300, 3600, 86400)
"""Each a multiple of the one before."""
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - no TIMESTAMP of MySQL holds it

EARLIEST: Final = datetime(1970, 1, 2)  # noqa: DTZ001
LATEST: Final = datetime(9000, 1, 1)  # noqa: DTZ001
"""Times between which readings are counted: a message may claim any, and each has a next day."""

T = TypeVar("T")


class Period(NamedTuple):
    """A part of the time of a meter."""

    period_s: int
    node: str
    meter: str
    start: datetime


def start_of(time: datetime, period_s: int = PERIODS_S[0]) -> datetime:
    """Return the start of the period that a time is in."""
    seconds = int(time.replace(tzinfo=UTC).timestamp()) // period_s * period_s
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def rolled_up(
    parts: Iterable[tuple[Period, T]], combined: Callable[[list[T]], T]
) -> list[tuple[Period, T]]:
    """Return what all periods come to that hold the parts, which are of the shortest.

    They are in the order in which every writer locks them.
    """
    found: dict[Period, list[T]] = defaultdict(list)
    for part, value in parts:
        for period_s in PERIODS_S:
            period = part._replace(period_s=period_s, start=start_of(part.start, period_s))
            if period.start > _EPOCH:
                found[period].append(value)
    return [(period, combined(values)) for period, values in sorted(found.items())]
