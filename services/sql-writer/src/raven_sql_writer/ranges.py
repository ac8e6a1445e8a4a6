"""The numbers of each run that left the tables: table ``archived_run``.

They are what a redelivery of an archived reading is known by, and what proves a run complete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from raven_sql_writer.partitions import Month
from ravensql.database import Cursor

Identity = tuple[str, int]
"""Hash and seq."""

COVERING: Final = (
    "SELECT hash, first_seq, last_seq FROM archived_run "
    "WHERE hash IN %s AND first_seq <= %s AND last_seq >= %s"
)
PUT: Final = "INSERT INTO archived_run (hash, first_seq, last_seq, month) VALUES (%s, %s, %s, %s)"


class Range(NamedTuple):
    """Readings of a run whose numbers follow each other."""

    hash: str
    first: int
    last: int


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same numbers in the fewest ranges."""
    found: list[Range] = []
    for one in sorted(ranges):
        before = found[-1] if found else None
        if before and before.hash == one.hash and one.first <= before.last + 1:
            found[-1] = before._replace(last=max(before.last, one.last))
        else:
            found.append(one)
    return found


def covered(cursor: Cursor, identities: Collection[Identity]) -> set[Identity]:
    """Return those of the readings that are archived."""
    if not identities:
        return set()
    numbers = [seq for _, seq in identities]
    hashes = {hash_ for hash_, _ in identities}
    cursor.execute(COVERING, (sorted(hashes), max(numbers), min(numbers)))
    ranges = [Range(*row) for row in cursor.fetchall()]
    return {
        (hash_, seq)
        for hash_, seq in identities
        if any(one.hash == hash_ and one.first <= seq <= one.last for one in ranges)
    }


def record(cursor: Cursor, month: Month, last_ids: Mapping[str, int]) -> None:
    """Add the numbers in a month's partitions, of each table up to an id, to those recorded."""
    parts = [
        f"SELECT hash, seq FROM {table} PARTITION ({month.partition}) "  # noqa: S608 - our names
        f"WHERE seq IS NOT NULL AND id <= {last_id}"
        for table, last_id in last_ids.items()
    ]
    # Numbers that follow each other are as far from their rank as the first of them.
    cursor.execute(
        "SELECT hash, MIN(seq), MAX(seq) FROM (SELECT hash, seq, "  # noqa: S608 - our names
        "seq - DENSE_RANK() OVER (PARTITION BY hash ORDER BY seq) AS distance "
        f"FROM ({' UNION ALL '.join(parts)}) AS every) AS measured GROUP BY hash, distance "
        "UNION ALL SELECT hash, first_seq, last_seq FROM archived_run WHERE month = %s",
        (str(month),),
    )
    found = merged(Range(*row) for row in cursor.fetchall())
    forget(cursor, month)
    if found:
        cursor.executemany(PUT, [(*one, str(month)) for one in found])


def forget(cursor: Cursor, month: Month) -> None:
    """Remove what is recorded of a month, whose rows are in the tables."""
    cursor.execute("DELETE FROM archived_run WHERE month = %s", (str(month),))
