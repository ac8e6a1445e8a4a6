"""The MongoDB store."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from pymongo import ASCENDING, MongoClient, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure

from ravenbus.errors import PoisonError, RetryableError
from ravenbus.messages import DeadLetter, Item, Reading, Run
from ravenbus.notifications import KINDS
from ravenbus.storing import Stored
from ravenmongo import archived, rollups, schema
from ravenmongo import documents as mapping
from ravenmongo.database import (
    DUPLICATE_KEY,
    Document,
    client,
    database,
    duplicates,
    is_identity,
    sorted_errors,
)
from ravenmongo.documents import DEAD_LETTER, RESTORED, ROLLUPS, RUNS

log = logging.getLogger(__name__)

INDEX_EXISTS: Final = frozenset({85, 86})
"""IndexOptionsConflict: these keys under another name; IndexKeySpecsConflict: the name is taken."""

REPLACED: Final = ("meter_1_time_1", "meter_1_time_1_received_1")
"""What 1.0.0 called an index, and what the one is called that does its work."""
PLAIN: Final = frozenset({"v", "key", "name", "ns"})
"""What an index has that was made of keys alone."""

SOCKET_TIMEOUT_MS: Final = 30_000
"""A peer that vanished without a word would otherwise hold the recorder for ever."""


class MongoSink:
    """Stores readings by kind, runs and dead letters; storing again changes nothing.

    A collection for each kind, ``runs`` and ``dead_letter``; a reading's ``_id`` is
    ``<hash>/<seq>``.  Commits are acknowledged by a majority's journals.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _client(self) -> MongoClient[Document]:
        # Looking up mongodb+srv needs the network, so it belongs where errors are retried.
        return client(self._url, SOCKET_TIMEOUT_MS)

    @cached_property
    def _db(self) -> Database[Document]:
        return database(self._client, SOCKET_TIMEOUT_MS)

    def prepare(self) -> None:
        """Create the indexes, and with them the collections; raise RetryableError or FatalError."""
        with sorted_errors():
            schema.require_known(self._db)
            schema.put(self._db)
        for kind in KINDS:
            self._index(kind, "meter", "time", *(["received"] if kind in ROLLUPS else []))
            self._index(kind, "run", "time")
        self._index(DEAD_LETTER, "at")
        with sorted_errors():
            archived.prepare(self._db)
        for kind in ROLLUPS:
            self._drop_replaced(kind)

    def store(self, items: Sequence[Item]) -> Stored:
        """Commit the items; raise PoisonError or RetryableError."""
        readings = [item for item in items if isinstance(item, Reading)]
        runs = [item for item in items if isinstance(item, Run)]
        letters = [mapping.of_letter(item) for item in items if isinstance(item, DeadLetter)]
        wanted = self._not_archived(readings)
        documents: dict[str, list[Document]] = defaultdict(list)
        for reading in wanted:
            documents[reading.kind].append(mapping.of_reading(reading))
        if letters:
            documents[DEAD_LETTER] = letters
        new = sum(self._insert(name, found) for name, found in documents.items())
        # A month that left meanwhile has taken what was there, and what was inserted is a copy.
        new -= len(wanted) - len(self._not_archived(wanted))
        with sorted_errors():
            rollups.note(self._db, readings)
        new += self._put_runs(runs)
        return Stored(new, len(items) - new)

    def forget_letters(self, before: datetime) -> int:
        """Remove the dead letters from before a time; return how many there were."""
        with sorted_errors():
            return int(self._db[DEAD_LETTER].delete_many({"at": {"$lt": before}}).deleted_count)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.close()

    def _index(self, name: str, *keys: str) -> None:
        """Create an index, unless somebody made one of these keys, or of that name."""
        with sorted_errors():
            try:
                self._db[name].create_index([(key, ASCENDING) for key in keys])
            except OperationFailure as error:
                if error.code not in INDEX_EXISTS:
                    raise
                log.info("index left as it is", extra={"collection": name, "reason": str(error)})

    def _drop_replaced(self, kind: str) -> None:
        """Drop the index of 1.0.0 that one of ours begins with, if it is as 1.0.0 made it."""
        with sorted_errors():
            found = {index["name"]: index for index in self._db[kind].list_indexes()}
            old, new = (found.get(name, {}) for name in REPLACED)
            if new and old.keys() <= PLAIN and dict(old.get("key", {})) == {"meter": 1, "time": 1}:
                with suppress(OperationFailure):  # another recorder was faster
                    self._db[kind].drop_index(REPLACED[0])
                    log.info("index dropped", extra={"collection": kind, "index": REPLACED[0]})

    def _not_archived(self, readings: list[Reading]) -> list[Reading]:
        """Return the readings that did not leave their collection, and remove copies of the others.

        A number is among the archived when its file was proved, and until its document is back
        with the field that says so.  Raise PoisonError for another reading under such a number.
        """
        with sorted_errors():
            numbers = [(one.envelope.hash, one.envelope.seq) for one in readings]
            if not (covered := archived.covered(self._db, numbers)):
                return readings
            kept = []
            for identity, reading in zip(numbers, readings, strict=True):
                if identity not in covered:
                    kept.append(reading)
                    continue
                received = mapping.cut(reading.envelope.received)
                copy = {"_id": mapping.identity(*identity), "received": received, RESTORED: None}
                self._db[reading.kind].delete_one(copy)
                if archived.conflicts(self._db, identity, reading.envelope.received):
                    raise _conflict(mapping.identity(*identity))
            return kept

    def _insert(self, name: str, documents: list[Document]) -> int:
        """Insert what is new and return how many those were."""
        with sorted_errors():
            try:
                self._db[name].insert_many(documents, ordered=False)
            except BulkWriteError as error:
                failures = duplicates(error)
                self._require_same(name, [(documents[one["index"]], one) for one in failures])
                return len(documents) - len(failures)
            return len(documents)

    def _require_same(self, name: str, refused: list[tuple[Document, Mapping[str, Any]]]) -> None:
        """Raise PoisonError for a document that a duplicate key keeps out and that is not there.

        Another reading has its identity where a reader's state was put back from an older copy;
        or the key is one of an index that somebody made.  Raise RetryableError for one that was
        there: it left with its month meanwhile.
        """
        ids = [document["_id"] for document, _ in refused]
        found = self._db[name].find({"_id": {"$in": ids}}, {"received": 1})
        stored = {document["_id"]: document.get("received") for document in found}
        for document, failure in refused:
            if document["_id"] not in stored:
                if is_identity(failure):
                    raise RetryableError(f"{document['_id']} was in {name} and is gone")
                detail = f"a unique index of {name} refuses it: {failure['errmsg']}"
                raise PoisonError("duplicate-key", detail)
            if stored[document["_id"]] != mapping.cut(document.get("received")):
                raise _conflict(document["_id"])

    def _put_runs(self, runs: list[Run]) -> int:
        """Put what is new of the runs and return how many were not known.

        A run never changes but for its meter, which is known later: an older message, which may
        come after a newer one, takes nothing back.
        """
        if not runs:
            return 0
        updates = []
        for run in runs:
            document = mapping.of_run(run)
            meter = document.pop("meter")
            of_run = {"_id": run.hash}
            updates.append(UpdateOne(of_run, {"$setOnInsert": document}, upsert=True))
            if meter:
                no_meter = {**of_run, "meter": None}
                updates.append(UpdateOne(no_meter, {"$set": {"meter": meter}}))
        with sorted_errors():
            try:
                return int(self._db[RUNS].bulk_write(updates).upserted_count)
            except BulkWriteError as error:
                self._require_race(error.details["writeErrors"])
                raise

    def _require_race(self, failures: Sequence[Mapping[str, Any]]) -> None:
        """Raise PoisonError for a run that an index of somebody's keeps out.

        Two recorders that put one run at once meet a duplicate key too: it is there then, and
        trying again does the rest.
        """
        for failure in failures:
            of_run, is_new = failure["op"]["q"], failure["op"].get("upsert")
            known = is_new and self._db[RUNS].find_one({"_id": of_run["_id"]}, {"_id": 1})
            if failure["code"] == DUPLICATE_KEY and not (known or is_identity(failure)):
                detail = f"a unique index of {RUNS} refuses it: {failure['errmsg']}"
                raise PoisonError("duplicate-key", detail)


def _conflict(id_: str) -> PoisonError:
    return PoisonError("identity-conflict", f"another reading is stored as {id_}")
