"""Digests of the times when archived readings were received: table ``archived_digest``.

Eight bytes for each tell a reading that is delivered again from another one under its number.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from ravensql import rows
from ravensql.database import Cursor
from ravensql.partitions import Month
from ravensql.ranges import Identity

AT_ONCE: Final = 4096
"""Readings of a page; their digests fit into a BLOB."""
FARTHEST: Final = 2**32 - 1
_ENTRY: Final = struct.Struct(">II")

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
        f"SELECT id, hash, seq, received FROM {table} PARTITION ({month.partition}) "  # noqa: S608 - our names
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
        known = {
            digest
            for first, digests in cursor.fetchall()
            for offset, digest in _ENTRY.iter_unpack(digests)
            if first + offset == seq
        }
        if known and digest_of(received) not in known:
            yield hash_, seq


def pack(readings: Mapping[int, datetime]) -> Iterable[tuple[int, int, bytes]]:
    """Return the first and last number of readings, and their digests; several if they lie far apart."""
    found: list[tuple[int, int, bytes]] = []
    for seq in sorted(readings):
        if not found or seq - found[-1][0] > FARTHEST:
            found.append((seq, seq, b""))
        first, _, digests = found[-1]
        entry = _ENTRY.pack(seq - first, digest_of(readings[seq]))
        found[-1] = first, seq, digests + entry
    return found


def digest_of(received: datetime) -> int:
    """Return the digest of the time at which a reading was received, to the millisecond."""
    return zlib.crc32(rows.millis(received).isoformat(timespec="milliseconds").encode())
