"""Digests of the times when archived readings were received: pure.

Eight bytes for each tell a reading that is delivered again from another one under its number.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

AT_ONCE: Final = 4096
"""Readings of a page; their digests fit into a BLOB."""
FARTHEST: Final = 2**32 - 1
_ENTRY: Final = struct.Struct(">II")


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


def of_number(seq: int, packed: Iterable[tuple[int, bytes]]) -> set[int]:
    """Return the digests of a number among those packed, each with its first number."""
    return {
        digest
        for first, digests in packed
        for offset, digest in _ENTRY.iter_unpack(digests)
        if first + offset == seq
    }


def digest_of(received: datetime) -> int:
    """Return the digest of the time at which a reading was received, to the millisecond."""
    return zlib.crc32(received.replace(tzinfo=None).isoformat(timespec="milliseconds").encode())
