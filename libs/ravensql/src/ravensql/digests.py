"""Digests of the times when archived readings were received: table ``archived_digest``.

Eight bytes for each tell a reading that is delivered again from another one under its number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from ravenbus.digests import AT_ONCE, digest_of, of_number, pack
from ravenbus.months import Month
from ravensql import partitions
from ravensql.database import Cursor
from ravensql.ranges import Identity

PUT: Final = (
    "REPLACE INTO archived_digest (hash, first_seq, last_seq, of_table, month, digests) "
    "VALUES (%s, %s, %s, %s, %s, %s)"
)
COVERING: Final = (
    "SELECT first_seq, digests FROM archived_digest "
    "WHERE hash = %s AND first_seq <= %s AND last_seq >= %s"
)


def record(
    cursor: Cursor, month: Month, table: str, last_id: int, go_on: Callable[[], None]
) -> None:
    """Keep the digests of a month's rows in a table up to an id; ``go_on`` is called for a page."""
    query = (
        f"SELECT id, hash, seq, received FROM {table} PARTITION ({partitions.name(month)}) "  # noqa: S608 - our names
        "WHERE id > %s AND id <= %s ORDER BY id LIMIT %s"
    )
    after = -1
    while True:
        go_on()
        cursor.execute(query, (after, last_id, AT_ONCE))
        found = cursor.fetchall()
        if not found:
            return
        after = found[-1][0]
        runs: dict[str, dict[int, datetime]] = defaultdict(dict)
        for _, hash_, seq, received in found:
            if seq is not None and received is not None:
                runs[hash_][seq] = received
        packed = [
            (hash_, first, last, table, str(month), digests)
            for hash_, readings in runs.items()
            for first, last, digests in pack(readings)
        ]
        if packed:
            cursor.executemany(PUT, packed)


def forget(cursor: Cursor, month: Month) -> None:
    """Remove the digests of a month, whose rows are in the tables."""
    cursor.execute("DELETE FROM archived_digest WHERE month = %s", (str(month),))


def conflicting(cursor: Cursor, readings: Mapping[Identity, datetime]) -> Iterator[Identity]:
    """Yield which of archived readings, by when they were received, are others than the archived.

    What was archived without a digest, by an earlier version, is taken to be the same.
    """
    for (hash_, seq), received in readings.items():
        cursor.execute(COVERING, (hash_, seq, seq))
        known = of_number(seq, cursor.fetchall())
        if known and digest_of(received) not in known:
            yield hash_, seq
