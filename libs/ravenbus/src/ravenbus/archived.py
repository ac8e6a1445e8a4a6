"""Readings of archived months in order of time; a file has them in the order of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from heapq import heapify, heappop, heapreplace
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from ravenbus import archives
from ravenbus.errors import ContractError, FatalError, RetryableError
from ravenbus.messages import Reading, decode_reading, encode
from ravenbus.readback import place_of, time_of

Stream = tuple[datetime, Iterator[Reading]]
"""Readings in order of time, and a time that none of them is before."""

_SORTER: Final = """
    CREATE TABLE reading (
      time TEXT, hash TEXT, seq INTEGER, message BLOB, PRIMARY KEY (time, hash, seq)
    ) WITHOUT ROWID
"""


class File(NamedTuple):
    """A file with a month of a ``place``, a table or collection, of readings of some kinds.

    None of them is before ``oldest`` or a second after ``newest``.
    """

    month: str
    place: str
    kinds: frozenset[str]
    name: str
    sha256: str
    oldest: datetime
    newest: datetime


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

    def may_be_in(self, file: File) -> bool:
        """Say whether a file can have such readings."""
        in_time = file.newest >= self.start.replace(microsecond=0) and file.oldest < self.end
        return in_time and not file.kinds.isdisjoint(self.kinds)


class Archived(NamedTuple):
    """The files of a store: the folder, its setting, their record, and what reads a row of one.

    A row is no reading if that returns None or raises ContractError.
    """

    folder: Path | None
    setting: str
    files: Callable[[], list[File]]
    reading: Callable[[str, Mapping[str, str | None]], Reading | None]

    def span(self, wanted: Wanted, stored: Iterable[Stream]) -> Iterator[Reading]:
        """Yield what is wanted of the files and of the store, in order and each once.

        ``stored`` is asked after the record.  Raises FatalError for a file that is not as it was
        recorded, and RetryableError at the end if a month was archived or restored meanwhile.
        """
        before = self.files()
        streams = [
            (file.oldest, _sorted(self._readings(path, file, wanted)))
            for file, path in [(one, self._path(one)) for one in before if wanted.may_be_in(one)]
        ]
        # A reading whose month is just being archived or restored is in the store and in a file.
        for _, same in groupby(merged([*streams, *stored]), place_of):
            yield next(same)
        if self.files() != before:
            raise RetryableError("a month was archived or restored meanwhile: do it again")

    def _path(self, file: File) -> Path:
        """Return where a file is that is as it was recorded."""
        if self.folder is None:
            raise FatalError(
                f"{file.month} is archived: {self.setting} has to name the archive's folder"
            )
        if Path(file.name).name != file.name:
            raise FatalError(f"{file.name} cannot be a file of the archive")
        path = self.folder / file.name
        if wrong := archives.altered(path, file.sha256):
            raise FatalError(f"{path}: {wrong}")
        return path

    def _readings(self, path: Path, file: File, wanted: Wanted) -> Iterator[Reading]:
        """Yield what is wanted of a file, in its order."""
        try:
            lines = archives.read(path)
            names = [name or "" for name in next(lines)]
            for line in lines:
                try:
                    found = self.reading(file.place, dict(zip(names, line, strict=True)))
                except ContractError:
                    continue
                if found and wanted.has(found):
                    yield found
        except archives.UNREADABLE as error:
            raise FatalError(f"{path} cannot be read: {error}") from error


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
