"""Months as partitions, made some months ahead of the first reading that needs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from ravensql import rows
from ravensql.database import Cursor
from ravensql.schema import run_long

AHEAD: Final = 3
"""Months; a writer that is away for longer finds its rows in `p_rest`, from where they move."""
LONGEST: Final = 30 * 12
"""Months; a row that claims to be older is in the first partition, with what came before."""


class Month(NamedTuple):
    """A month in UTC, counted from year 0."""

    number: int

    @classmethod
    def of(cls, time: datetime) -> Month:
        """Return the month that a time in UTC is in."""
        return cls(time.year * 12 + time.month - 1)

    def later(self, months: int) -> Month:
        """Return the month so many months later."""
        return Month(self.number + months)

    @property
    def start(self) -> int:
        """Seconds from 1970 to its first instant."""
        year, month = divmod(self.number, 12)
        return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())

    @property
    def partition(self) -> str:
        """The partition's name."""
        year, month = divmod(self.number, 12)
        return f"p_{year}_{month + 1:02}"


def missing(bounds: list[int], oldest: datetime | None, today: datetime) -> list[Month]:
    """Return the months that need a partition.

    ``bounds`` are the ends of the partitions that are there, in seconds from 1970, and
    ``oldest`` is the time of the oldest row where there is none.
    """
    last = Month.of(today).later(AHEAD)
    if bounds:
        first = Month.of(datetime.fromtimestamp(max(bounds), UTC))
    else:
        first = Month.of(min(oldest or today, today))
    first = max(first, last.later(-LONGEST))
    return [Month(number) for number in range(first.number, last.number + 1)]


def keep_ahead(cursor: Cursor, today: datetime, beat: Callable[[], None]) -> int:
    """Make the partitions that are missing and return how many they were."""
    made = 0
    for table in rows.COLUMNS:
        bounds = _bounds(cursor, table)
        months = missing(bounds, None if bounds else _oldest(cursor, table), today)
        if months:
            parts = [
                f"PARTITION {m.partition} VALUES LESS THAN ({m.later(1).start})" for m in months
            ]
            parts.append("PARTITION p_rest VALUES LESS THAN MAXVALUE")
            split = f"ALTER TABLE {table} REORGANIZE PARTITION p_rest INTO ({', '.join(parts)})"
            run_long(cursor, split, beat)
        made += len(months)
    return made


def _bounds(cursor: Cursor, table: str) -> list[int]:
    cursor.execute(
        "SELECT partition_description FROM information_schema.partitions "
        "WHERE table_schema = DATABASE() AND table_name = %s",
        (table,),
    )
    return [int(bound) for (bound,) in cursor.fetchall() if bound and bound != "MAXVALUE"]


def _oldest(cursor: Cursor, table: str) -> datetime | None:
    cursor.execute(f"SELECT MIN(time) FROM {table}")  # noqa: S608 - our names
    ((time,),) = cursor.fetchall()
    return time.replace(tzinfo=UTC) if time else None
