"""Readings of archived months in order of time; a file has them in the order of their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from heapq import heapify, heappop, heapreplace
from pathlib import Path
from typing import Final, NamedTuple

from ravenbus import archives
from ravenbus.errors import ContractError, FatalError
from ravenbus.messages import Reading, decode_reading, encode
from ravenbus.readback import place_of, time_of
from ravensql import readings, rows
from ravensql.archiving import Record

Stream = tuple[datetime, Iterator[Reading]]
"""Readings in order of time, and a time that none of them is before."""

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SORTER: Final = """
    CREATE TABLE reading (
      time TEXT, hash TEXT, seq INTEGER, message BLOB, PRIMARY KEY (time, hash, seq)
    ) WITHOUT ROWID
"""


class Wanted(NamedTuple):
    """Readings of some kinds, of some nodes or (None) all, from ``start`` to before ``end``."""

    kinds: Collection[str]
    nodes: Collection[str] | None
    start: datetime
    end: datetime

    def has(self, reading: Reading) -> bool:
        """Say whether a reading is wanted."""
        chosen = reading.kind in self.kinds and (not self.nodes or reading.node in self.nodes)
        return chosen and self.start <= time_of(reading) < self.end

    def may_be_in(self, record: Record) -> bool:
        """Say whether a file can have such readings."""
        known = set(self.kinds) & rows.COLUMNS.keys()
        its_kind = record.table in known or (
            record.table == "notification" and known != set(self.kinds)
        )
        first = rows.seconds(self.start.astimezone(UTC).replace(tzinfo=None))
        newest = record.newest  # a text where all rows have a time of zero, and no number
        in_time = isinstance(newest, datetime) and newest >= first and _oldest(record) < self.end
        return its_kind and in_time


def streams(folder: Path | None, records: Sequence[Record], wanted: Wanted) -> Iterator[Stream]:
    """Yield what is wanted of each file; raise FatalError if one is not as it was recorded."""
    for record in records:
        if wanted.may_be_in(record):
            if folder is None:
                raise FatalError(
                    f"{record.month} is archived: RAVEN_SQL_ARCHIVE has to name the archive's folder"
                )
            yield _oldest(record), _sorted(_readings(folder, record, wanted))


def merged(every: Iterable[Stream]) -> Iterator[Reading]:
    """Yield readings in order; a stream is begun when the time comes that it names."""
    heap: list[tuple[tuple[datetime, str, int], int, Reading | None, Iterator[Reading]]]
    heap = [((begin, "", 0), n, None, stream) for n, (begin, stream) in enumerate(every)]
    heapify(heap)
    while heap:
        _, number, reading, stream = heap[0]
        if reading:
            yield reading
        if following := next(stream, None):
            heapreplace(heap, (place_of(following), number, following, stream))
        else:
            heappop(heap)


def _oldest(record: Record) -> datetime:
    oldest = record.oldest
    return oldest.replace(tzinfo=UTC) if isinstance(oldest, datetime) else _FIRST


def _readings(folder: Path, record: Record, wanted: Wanted) -> Iterator[Reading]:
    """Yield what is wanted of a file, in its order."""
    if Path(record.file).name != record.file or record.table not in rows.COLUMNS:
        raise FatalError(f"{record.file} cannot be a file of the archive")
    path = folder / record.file
    try:
        if archives.sha256(path) != record.sha256:
            raise FatalError(f"{path}: its checksum is not the one that was recorded")
        lines = archives.read(path)
        names = [name or "" for name in next(lines)]
        for line in lines:
            columns = dict(zip(names, line, strict=True))
            if columns["seq"] is not None:
                try:
                    found = readings.reading(record.table, readings.written(record.table, columns))
                except ContractError:
                    continue
                if wanted.has(found):
                    yield found
    except archives.UNREADABLE as error:
        raise FatalError(f"{path} cannot be read: {error}") from error


def _sorted(found: Iterable[Reading]) -> Iterator[Reading]:
    """Sort in a file that nobody else sees, as a month may be larger than the memory."""
    with closing(sqlite3.connect("", isolation_level=None)) as db:
        db.execute(_SORTER)
        db.execute("BEGIN")
        db.executemany(
            "INSERT OR IGNORE INTO reading VALUES (?, ?, ?, ?)",
            (
                (_text(at), hash_, seq, encode(one))
                for one in found
                for at, hash_, seq in [place_of(one)]
            ),
        )
        for (message,) in db.execute("SELECT message FROM reading ORDER BY time, hash, seq"):
            yield decode_reading(message)


def _text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")
