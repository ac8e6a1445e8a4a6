"""Read access to the messages stored in MongoDB.

Readings are looked for by their ``_id``, ``<hash>/<seq>``, whose index alone answers.  It is in
the order of text: 1, 10, 100, 11, 2.  Among numbers with as many digits that is their order, so
ranges are found in one pass with a handful of them open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from ravenbus.archived import Archived, File, Stream, Wanted
from ravenbus.errors import ContractError
from ravenbus.messages import DeadLetter, Reading, Run
from ravenbus.notifications import KINDS
from ravenbus.ranges import Range, common, merged
from ravenbus.readback import ANSWER_TIMEOUT_S, Choice, Holding, Known, chunks, place_of, time_of
from ravenmongo import archived, database, documents
from ravenmongo.database import Document, sorted_errors
from ravenmongo.documents import ARCHIVE, DEAD_LETTER, RUNS
from ravenmongo.settings import MongoUrl

IN_MEMORY: Final = 4000
"""Documents that the driver holds at once; left alone it takes 16 MiB of each cursor's."""
_NEARLY_A_MILLISECOND: Final = timedelta(microseconds=999)
_END: Final = chr(ord("/") + 1)
"""Character after a run's hash in the exclusive upper bound of its identities in the index."""


class MongoStore:
    """The collections that ``ravenmongo`` describes, and a folder with the months that left them."""

    name = "MongoDB"
    service = "mongo-recorder"
    _only: Document = {}  # noqa: RUF012 - never changed
    """What the documents of a span of time have to be besides."""

    def __init__(
        self,
        url: MongoUrl,
        archive: Path | None = None,
        answer_timeout_s: int = ANSWER_TIMEOUT_S,
    ) -> None:
        self._url = url
        self._folder = archive
        self._timeout_ms = 1000 * answer_timeout_s

    @cached_property
    def _client(self) -> Any:
        return database.client(self._url.text, self._timeout_ms)

    @cached_property
    def _db(self) -> Any:
        return database.database(self._client, self._timeout_ms)

    def runs(self) -> dict[str, Known]:
        """Return the runs of which there are readings, or of which one was announced."""
        found = {}
        with sorted_errors():
            for run in self._db[RUNS].find({}, {"run": 1, "node": 1}):
                found[run["_id"]] = Known(run["run"], run["node"])
            for hash_, known in archived.runs(self._db).items():
                found.setdefault(hash_, known)
            for kind in KINDS:
                after = ""
                while one := self._next(kind, after):
                    found.setdefault(one["hash"], Known(one["run"], one["node"]))
                    after = one["hash"] + _END
        return found

    def passes_over(self, _hash: str) -> bool:
        """Say no: whatever comes over the bus belongs here."""
        return False

    def holding(self, hash_: str) -> Holding:
        """Return which numbers are in the collections, and which in the archive."""
        numbers = _Numbers()
        cut = len(hash_) + 1
        with sorted_errors():
            for identity in merge(*(self._identities(kind, hash_) for kind in KINDS)):
                numbers.add(identity[cut:])
            left = archived.ranges(self._db, hash_)
        return Holding(numbers.ranges(), left, merged(numbers.doubled))

    def having(self, hash_: str, wanted: Sequence[Range]) -> list[Range]:
        """Return those of the numbers that are in a collection or in the archive."""
        found = [
            (int(one["seq"]), int(one["seq"]))
            for chunk in chunks(wanted)
            for kind in KINDS
            for one in self._some(kind, hash_, chunk, {"seq": 1})
        ]
        with sorted_errors():
            left = archived.ranges(self._db, hash_)
        return common(wanted, merged([*found, *left]))

    def readings(self, hash_: str, seqs: Sequence[int]) -> Iterator[tuple[int, Reading | None]]:
        """Yield what is in the collections; what is archived is in files."""
        wanted = set(seqs)
        for kind in KINDS:
            for document in self._some(kind, hash_, wanted) if wanted else ():
                seq = int(document["seq"])
                wanted.discard(seq)
                yield seq, _reading(document)

    def between(
        self, kind: str, meter: str | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        """Yield what the collection of the kind has."""
        return self._between(kind, {"meter": meter}, start, end, IN_MEMORY // 2)

    def span(
        self, kinds: Collection[str], nodes: Collection[str] | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        """Yield what the collections and the archive's files have.

        Raises RetryableError at the end if a month was archived or restored meanwhile.
        """
        wanted = Wanted(kinds, nodes, start, end)
        archive = Archived(self._folder, "RAVEN_MONGO_ARCHIVE", self._files, _archived)
        return archive.span(wanted, self._streams(wanted))

    def as_stored(self, reading: Reading) -> Reading:
        """Return a reading as its document says it."""
        return documents.as_stored(reading)

    def run(self, hash_: str) -> Run | None:
        """Return what was announced of a run."""
        with sorted_errors():
            document = self._db[RUNS].find_one({"_id": hash_})
        return documents.run(document) if document else None

    def letters(self, choice: Choice) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first."""
        given = {"reason": choice.reason, "service": choice.service}
        query: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if choice.since:
            query["at"] = {"$gte": choice.since}
        with sorted_errors():
            for document in self._db[DEAD_LETTER].find(query).sort("at", 1):
                yield documents.letter(document)

    def letters_called(self, prefix: str) -> list[DeadLetter]:
        """Return the dead letters whose id begins so."""
        with sorted_errors():
            found = self._db[DEAD_LETTER].find({"_id": {"$gte": prefix, "$lt": prefix + "g"}})
            return [documents.letter(document) for document in found]

    def remove(self, letter_id: str) -> None:
        """Remove a dead letter."""
        with sorted_errors():
            self._db[DEAD_LETTER].delete_one({"_id": letter_id})

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.close()

    def _by_time(self, kind: str, of: Document, span: Document) -> tuple[Any, Any]:
        """Return the documents of a span with a time of the device and those without, in order."""
        found = self._db[kind].find
        timed = found(of | {"time": span}).sort("time", 1)
        return timed, found(of | {"time": None, "received": span}).sort("received", 1)

    def _between(
        self, kind: str, of: Document, start: datetime, end: datetime, batch: int
    ) -> Iterator[Reading]:
        # BSON would cut the bounds to the millisecond.
        span = {"$gte": start + _NEARLY_A_MILLISECOND, "$lt": end + _NEARLY_A_MILLISECOND}
        both = self._by_time(kind, of | self._only, span)
        with sorted_errors():
            each = (_readings(one.batch_size(batch)) for one in both)
            for _, same in groupby(merge(*each, key=time_of), time_of):
                yield from sorted(same, key=place_of)

    def _streams(self, wanted: Wanted) -> Iterator[Stream]:
        """Yield what is wanted of each meter, of all together IN_MEMORY at a time."""
        kinds, nodes, start, end = wanted
        of_nodes = {"node": {"$in": list(nodes)}} if nodes else {}
        with sorted_errors():
            meters = [(kind, one) for kind in kinds for one in self._db[kind].distinct("meter")]
        batch = max(IN_MEMORY // (2 * len(meters) or 1), 2)
        for kind, meter in meters:
            yield start, self._between(kind, {"meter": meter, **of_nodes}, start, end, batch)

    def _files(self) -> list[File]:
        """Return the files on record that have readings."""
        with sorted_errors():
            return [
                File(record["_id"], file["kind"], frozenset([file["kind"]]), file["file"], *times)
                for record in self._db[ARCHIVE].find().sort("_id", 1)
                for file in record["files"]
                for times in [(file["sha256"], file["oldest"], file["newest"])]
            ]

    def _next(self, kind: str, after: str) -> Document | None:
        found = self._db[kind].find({"_id": {"$gt": after}}, {"hash": 1, "run": 1, "node": 1})
        return next(iter(found.sort("_id", 1).limit(1)), None)

    def _identities(self, kind: str, hash_: str) -> Iterator[str]:
        span = {"$gte": f"{hash_}/", "$lt": hash_ + _END}
        found = self._db[kind].find({"_id": span}, {"_id": 1}).sort("_id", 1)
        for document in found.batch_size(IN_MEMORY):
            yield document["_id"]

    def _some(
        self, kind: str, hash_: str, seqs: Iterable[int], fields: dict[str, int] | None = None
    ) -> list[Document]:
        wanted = [documents.identity(hash_, seq) for seq in seqs]
        with sorted_errors():
            return list(self._db[kind].find({"_id": {"$in": wanted}}, fields))


class _Numbers:
    """Ranges of numbers that come as text in the order of text."""

    def __init__(self) -> None:
        self.doubled: list[Range] = []
        self._open: dict[int, Range] = {}
        self._found: list[Range] = []
        self._last = ""

    def add(self, text: str) -> None:
        number, digits = int(text), len(text)
        if text == self._last:
            self.doubled.append((number, number))
            return
        self._last = text
        before = self._open.get(digits)
        if before and before[1] + 1 == number:
            self._open[digits] = before[0], number
            return
        if before:
            self._found.append(before)
        self._open[digits] = number, number

    def ranges(self) -> list[Range]:
        return merged([*self._found, *self._open.values()])


def _readings(found: Iterable[Document]) -> Iterator[Reading]:
    return (reading for document in found if (reading := _reading(document)))


def _reading(document: Document) -> Reading | None:
    try:
        return documents.reading(document)
    except ContractError:
        return None


def _archived(_kind: str, columns: Mapping[str, str | None]) -> Reading:
    return documents.reading(documents.parsed(columns["document"] or ""))
