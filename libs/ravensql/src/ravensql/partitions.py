"""Months as partitions: made ahead of the first reading that needs them, and which are old."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from ravenbus.months import Month
from ravensql import rows
from ravensql.database import Cursor
from ravensql.schema import run_long

AHEAD: Final = 3
"""Months; a writer that is away for longer finds its rows in `p_rest`, from where they move."""
LONGEST: Final = 30 * 12
"""Months; a row that claims to be older is in the first partition, with what came before."""


def name(month: Month) -> str:
    """Return the name of a month's partition."""
    return f"p_{month}".replace("-", "_")


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
        needed = missing(bounds, None if bounds else _oldest(cursor, table), today)
        if needed:
            parts = [*map(_part, needed), "PARTITION p_rest VALUES LESS THAN MAXVALUE"]
            _split(cursor, table, "p_rest", parts, beat)
        made += len(needed)
    return made


def months(cursor: Cursor, table: str) -> list[Month]:
    """Return the months that have a partition; what is older is in the first one."""
    return sorted(
        Month.of(datetime.fromtimestamp(bound, UTC)).later(-1) for bound in _bounds(cursor, table)
    )


def make_again(cursor: Cursor, table: str, month: Month, beat: Callable[[], None]) -> None:
    """Make the partition of a month that was dropped, out of the one that has its rows since."""
    first = min(known for known in months(cursor, table) if known >= month)
    if first != month:
        _split(cursor, table, name(first), map(_part, (month, first)), beat)


def _part(month: Month) -> str:
    return f"PARTITION {name(month)} VALUES LESS THAN ({month.later(1).start})"


def _split(
    cursor: Cursor, table: str, partition: str, parts: Iterable[str], beat: Callable[[], None]
) -> None:
    sql = f"ALTER TABLE {table} REORGANIZE PARTITION {partition} INTO ({', '.join(parts)})"
    run_long(cursor, sql, beat)


def _bounds(cursor: Cursor, table: str) -> list[int]:
    cursor.execute(
        "SELECT partition_description FROM information_schema.partitions "
        "WHERE table_schema = DATABASE() AND table_name = %s",
        (table,),
    )
    return [int(bound) for (bound,) in cursor.fetchall() if bound and bound != "MAXVALUE"]


def _oldest(cursor: Cursor, table: str) -> datetime | None:
    # A row whose time is zero is in the first partition, wherever that begins.
    cursor.execute(f"SELECT MIN(time) FROM {table} WHERE time >= '1970-01-02'")  # noqa: S608 - our names
    ((time,),) = cursor.fetchall()
    return time.replace(tzinfo=UTC) if time else None
