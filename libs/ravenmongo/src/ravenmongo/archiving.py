"""Months that go from the collections to files, and come back.

At every instant a document is in its collection, or in a file that was read back and compared and
whose record is committed.  What is removed is what the file has, so what comes meanwhile stays.  A
month that was interrupted after its record goes on with that file, and before it begins again.
"""

from __future__ import annotations

import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from heapq import merge
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from pymongo import DeleteOne, ReplaceOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from ravenbus import archives
from ravenbus.errors import ContractError, FatalError, RetryableError
from ravenbus.messages import Reading, now
from ravenbus.months import Month, due
from ravenbus.notifications import KINDS
from ravenbus.periods import EARLIEST, PERIODS_S, start_of
from ravenbus.ranges import of_numbers
from ravenbus.readback import Known, time_of
from ravenmongo import archived, documents, rollups, schema
from ravenmongo.database import Document, duplicates, sorted_errors
from ravenmongo.documents import ARCHIVE, RESTORED, ROLLUPS
from ravenmongo.history import MongoHistory
from ravenmongo.lease import Lease
from ravenmongo.rollups import RollUps
from ravenmongo.settings import MongoUrl

AT_ONCE: Final = 200
"""Documents in memory."""
LEASE: Final = "archive_lease"
COLUMNS: Final = ("document",)


class MongoArchive(MongoHistory):
    """The files of a database's months in a folder, and the rule by which months go there.

    ``keep`` months before this one stay, None for all.  Raises RetryableError for all that may go
    better another time, a full disk and a ``stop`` included, and FatalError for what will not.
    """

    _folder: Path

    def __init__(
        self,
        url: MongoUrl,
        folder: Path,
        keep: int | None,
        stop: threading.Event,
        utc: Callable[[], datetime] = now,
    ) -> None:
        super().__init__(url, folder)
        self._keep = keep
        self._stop = stop
        self._utc = utc
        self._counts = RollUps(url, stop)
        self._go_on: Callable[[], None] = self._require_running

    def close(self) -> None:
        """Close the connections, if there are any."""
        self._counts.close()
        super().close()

    def due(self) -> list[Month]:
        """Return the stored months that are older than those to keep, and those that are leaving."""
        with sorted_errors():
            months = [Month.parse(one["_id"]) for one in self._records(state="leaving")]
            if self._keep is not None:
                months += due(self._stored(), self._utc(), self._keep)
        return sorted(months)

    def archive(self, month: Month) -> int:
        """Move a month, and what is older, to files; return the documents that are in them now."""
        if month >= Month.of(self._utc()):
            raise FatalError(f"{month} is not over: only months before this one can be archived")
        with self._alone():
            self._finish()
            if restoring := self._records(state="restoring"):
                raise RetryableError(
                    f"the restore of {restoring[0]['_id']} was interrupted: restore it again first"
                )
            for record in self._records(_id=str(month)):
                return _count(record)
            if (oldest := next(self._stored(), month)) < month:
                raise FatalError(f"{oldest} is older and still stored: archive it first")
            files = [file for kind in KINDS if (file := self._written(month, kind))]
            if not files:
                return 0
            record = {"_id": str(month), "state": "leaving", "files": files}
            try:
                self._db[ARCHIVE].insert_one(record)
            except DuplicateKeyError as error:
                raise RetryableError("another one archived it meanwhile") from error
            self._finish()
        return _count(record)

    def restore(self, month: Month) -> int:
        """Put the documents of a month back and return how many; the files stay.

        They have a field ``restored`` more than they had, for they are in the roll-ups already.
        """
        with self._alone():
            self._finish()
            records = self._records(_id=str(month))
            if not records:
                raise FatalError(f"{month} is not archived")
            (record,) = records
            if faults := self._faults(record):
                raise FatalError(f"{month} cannot be restored: {'; '.join(faults)}")
            at = record.get(RESTORED) or documents.cut(self._utc())
            of_month = {"_id": record["_id"]}
            self._db[ARCHIVE].update_one(of_month, {"$set": {"state": "restoring", RESTORED: at}})
            for file in record["files"]:
                for page in self._pages(file):
                    self._put_back(file["kind"], [one | {RESTORED: at} for one in page])
            archived.forget(self._db, month)
            self._db[ARCHIVE].delete_one(of_month)
        return _count(record)

    def verify(self, months: Sequence[Month]) -> Iterator[tuple[str, str | None]]:
        """Yield each file of the months, or of all, and what is wrong with it."""
        wanted = {str(month) for month in months}
        with sorted_errors():
            records = [one for one in self._records() if not wanted or one["_id"] in wanted]
        for month in sorted(wanted - {record["_id"] for record in records}):
            yield month, "it is not archived"
        for record in records:
            for file in record["files"]:
                self._require_running()
                yield file["file"], self._fault(file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let nobody else archive or restore meanwhile."""
        lease = Lease(self._db[LEASE], "archive", self._stop.wait)

        def go_on() -> None:
            self._require_running()
            lease.keep()

        try:
            with lease.held(), sorted_errors():
                schema.require_known(self._db)
                archived.prepare(self._db)
                self._go_on = go_on
                yield
        except OSError as error:
            raise RetryableError(f"the archive's folder cannot be used: {error}") from error

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise RetryableError("it was asked to stop")

    def _records(self, **of: str) -> list[Document]:
        return list(self._db[ARCHIVE].find(of).sort("_id", 1))

    def _stored(self) -> Iterator[Month]:
        """Yield the months, not archived, of which there are documents, oldest first.

        What comes late for a month that is archived leaves with the next one.
        """
        known = {record["_id"] for record in self._records()}
        start = EARLIEST
        meters = [(kind, meter) for kind in KINDS for meter in self._meters(kind)]
        while True:
            times = (
                self._nearest(kind, {"meter": m or None}, {"$gte": start}, 1) for kind, m in meters
            )
            if not (found := min(filter(None, times), default=None)):
                return
            month = Month.of(found)
            if str(month) not in known:
                yield month
            start = month.span[1]

    def _written(self, month: Month, kind: str) -> Document | None:
        """Write what a collection has until a month's end to a file; make sure that the disk has it.

        Return the file's part of the month's record, None if there is nothing.
        """
        path = self._folder / f"{kind}-{month}.csv.gz"
        part = path.with_name(f"{path.name}.part")
        self._folder.mkdir(parents=True, exist_ok=True)
        times: list[datetime] = []
        try:
            archives.write(part, self._rows(kind, month, times))
            if not times:
                return None
            count = self._compared(part, kind)
            digest = archives.publish(part, path)
        except archives.UNREADABLE as error:
            raise RetryableError(f"{path} cannot be written: {error}") from error
        finally:
            part.unlink(missing_ok=True)
        return {
            "kind": kind,
            "file": path.name,
            "readings": count,
            "sha256": digest,
            "oldest": times[0],
            "newest": times[1],
        }

    def _rows(self, kind: str, month: Month, times: list[datetime]) -> Iterator[archives.Row]:
        """Yield the column's name, then the documents; ``times`` is the first and the last."""
        yield COLUMNS
        until = {"$lt": month.span[1]}
        for meter in self._meters(kind):
            found = merge(*self._by_time(kind, {"meter": meter or None}, until), key=_time)
            for time, same in groupby(found, _time):
                self._go_on()
                times[:] = [min(time, *times[:1]), max(time, *times[1:])] if times else [time, time]
                yield from sorted((documents.text(one),) for one in same)

    def _compared(self, path: Path, kind: str) -> int:
        """Return how many documents a file has; raise ValueError unless the collection has each."""
        count = 0
        for page in _pages_of(archives.read(path)):
            self._go_on()
            ids = [documents.parsed(text)["_id"] for text in page]
            stored = {documents.text(one) for one in self._db[kind].find({"_id": {"$in": ids}})}
            if not stored.issuperset(page) or len(set(page)) != len(page):
                raise ValueError("what was read back is not what is stored")
            count += len(page)
        return count

    def _finish(self) -> None:
        """Remove the documents of months that have files, after what is known by them is kept."""
        for record in self._records(state="leaving"):
            month = Month.parse(record["_id"])
            if faults := self._faults(record):
                raise RetryableError(f"{month} cannot go on leaving: {'; '.join(faults)}")
            self._keep_numbers(month, record)
            for file in record["files"]:
                if file["kind"] in ROLLUPS:
                    self._keep_rollups(file)
            for file in record["files"]:
                for page in self._pages(file):
                    self._db[file["kind"]].bulk_write(
                        [DeleteOne(_as_filed(one)) for one in page], ordered=False
                    )
            self._db[ARCHIVE].update_one(
                {"_id": record["_id"], "state": "leaving"}, {"$set": {"state": "archived"}}
            )

    def _keep_numbers(self, month: Month, record: Document) -> None:
        numbers: dict[str, array[int]] = defaultdict(lambda: array("q"))
        runs: dict[str, Known] = {}
        for file in record["files"]:
            for page in self._pages(file):
                seen: dict[str, dict[int, datetime]] = defaultdict(dict)
                for one in page:
                    match one:
                        case {"hash": str(hash_), "seq": int(seq), "received": datetime() as at}:
                            seen[hash_][int(seq)] = at
                            runs.setdefault(hash_, Known(str(one.get("run")), str(one.get("node"))))
                for hash_, found in seen.items():
                    numbers[hash_].extend(found)
                    archived.record_digests(self._db, month, file["kind"], hash_, found)
        # Last: what is covered by these is not stored again.
        for hash_, of_run in numbers.items():
            ranges = of_numbers(sorted(of_run))
            while some := list(islice(ranges, AT_ONCE)):
                archived.record(self._db, month, hash_, runs[hash_], some)

    def _keep_rollups(self, file: Document) -> None:
        """Keep what the readings of each day come to in the roll-ups; not of those restored."""
        readings = (
            reading
            for page in self._pages(file)
            for one in page
            if RESTORED not in one and (reading := _reading(one)) and rollups.is_counted(reading)
        )

        def day_of(reading: Reading) -> tuple[str, datetime]:
            meter = reading.notification.meter or ""
            return meter, start_of(time_of(reading), PERIODS_S[-1])

        for (meter, day), found in groupby(readings, day_of):
            self._go_on()
            nodes: dict[str, list[Reading]] = defaultdict(list)
            for reading in found:
                nodes[reading.envelope.node].append(reading)
            for node, of_node in nodes.items():
                tag = f"{file['sha256'][:16]}/{day:%Y-%m-%d}"
                self._counts.leave(rollups.Meter(file["kind"], node, meter), tag, of_node)

    def _put_back(self, kind: str, page: Iterable[Document]) -> None:
        puts = [
            ReplaceOne({"_id": one["_id"], "received": one.get("received")}, one, upsert=True)
            for one in page
        ]
        try:
            self._db[kind].bulk_write(puts, ordered=False)
        except BulkWriteError as error:
            failure, *_ = duplicates(error)
            raise FatalError(f"another document has the place: {failure['errmsg']}") from error

    def _pages(self, file: Document) -> Iterator[list[Document]]:
        """Yield the documents of a file."""
        for page in _pages_of(archives.read(self._folder / file["file"])):
            self._go_on()
            yield [documents.parsed(text) for text in page]

    def _faults(self, record: Document) -> list[str]:
        found = ((file["file"], self._fault(file)) for file in record["files"])
        return [f"{name}: {wrong}" for name, wrong in found if wrong]

    def _fault(self, file: Document) -> str | None:
        if file["kind"] not in KINDS:
            return f"{file['kind']!r} is no kind of readings"
        if Path(file["file"]).name != file["file"]:
            return "it is not in the archive's folder"
        return archives.fault(self._folder / file["file"], file["sha256"], file["readings"])


def _time(document: Document) -> datetime:
    time: datetime = document.get("time") or document["received"]
    return time


def _pages_of(rows: Iterator[archives.Row]) -> Iterator[list[str]]:
    next(rows)
    while page := [text or "" for (text,) in islice(rows, AT_ONCE)]:
        yield page


def _as_filed(document: Document) -> Document:
    """Return what finds a document unless it is another one by now, or was restored since."""
    return {name: document.get(name) for name in ("_id", "received", RESTORED)}


def _count(record: Document) -> int:
    return sum(int(file["readings"]) for file in record["files"])


def _reading(document: Document) -> Reading | None:
    try:
        return documents.reading(document)
    except ContractError:
        return None
