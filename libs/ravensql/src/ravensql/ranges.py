"""The numbers of each run that left the tables: table ``archived_run``.

They are what a redelivery of an archived reading is known by, and what proves a run complete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final

from ravenbus.months import Month
from ravenbus.ranges import Range, merged
from ravensql import partitions
from ravensql.database import Cursor

Identity = tuple[str, int]
"""Hash and seq."""

COVERING: Final = (
    "SELECT hash, first_seq, last_seq FROM archived_run "
    "WHERE hash IN %s AND first_seq <= %s AND last_seq >= %s"
)
PUT: Final = "INSERT INTO archived_run (hash, first_seq, last_seq, month) VALUES (%s, %s, %s, %s)"


def covered(cursor: Cursor, identities: Collection[Identity]) -> set[Identity]:
    """Return those of the readings that are archived."""
    if not identities:
        return set()
    numbers = [seq for _, seq in identities]
    hashes = {hash_ for hash_, _ in identities}
    cursor.execute(COVERING, (sorted(hashes), max(numbers), min(numbers)))
    found = cursor.fetchall()
    return {
        (hash_, seq)
        for hash_, seq in identities
        if any(of == hash_ and first <= seq <= last for of, first, last in found)
    }


def record(cursor: Cursor, month: Month, last_ids: Mapping[str, int]) -> None:
    """Add the numbers in a month's partitions, of each table up to an id, to those recorded."""
    parts = [
        f"SELECT hash, seq FROM {table} PARTITION ({partitions.name(month)}) "  # noqa: S608 - our names
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
    runs: dict[str, list[Range]] = defaultdict(list)
    for hash_, first, last in cursor.fetchall():
        runs[hash_].append((first, last))
    found = [(h, *one, str(month)) for h, ranges in runs.items() for one in merged(ranges)]
    forget(cursor, month)
    if found:
        cursor.executemany(PUT, found)


def forget(cursor: Cursor, month: Month) -> None:
    """Remove what is recorded of a month, whose rows are in the tables."""
    cursor.execute("DELETE FROM archived_run WHERE month = %s", (str(month),))
