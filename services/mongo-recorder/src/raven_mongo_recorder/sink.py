"""The MongoDB store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from pymongo import ASCENDING, MongoClient, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from ravenbus.consumer import Item, Stored
from ravenbus.errors import PoisonError
from ravenbus.messages import DeadLetter, Reading, Run
from ravenbus.notifications import KINDS
from ravenmongo import documents as mapping
from ravenmongo.database import Document, client, database, sorted_errors
from ravenmongo.documents import DEAD_LETTER, RUNS

DUPLICATE_KEY: Final = 11000

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
        """Create the indexes, and with them the collections; raise RetryableError."""
        with sorted_errors():
            for kind in KINDS:
                self._db[kind].create_index([("meter", ASCENDING), ("time", ASCENDING)])
                self._db[kind].create_index([("run", ASCENDING), ("time", ASCENDING)])
            self._db[DEAD_LETTER].create_index([("at", ASCENDING)])

    def store(self, items: Sequence[Item]) -> Stored:
        """Commit the items; raise PoisonError or RetryableError."""
        documents: dict[str, list[Document]] = defaultdict(list)
        runs: list[Run] = []
        for item in items:
            match item:
                case Reading():
                    documents[item.kind].append(mapping.of_reading(item))
                case DeadLetter():
                    documents[DEAD_LETTER].append(mapping.of_letter(item))
                case Run():
                    runs.append(item)
        new = sum(self._insert(name, found) for name, found in documents.items())
        new += self._put_runs(runs)
        return Stored(new, len(items) - new)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.close()

    def _insert(self, name: str, documents: list[Document]) -> int:
        """Insert what is new and return how many those were."""
        with sorted_errors():
            try:
                self._db[name].insert_many(documents, ordered=False)
            except BulkWriteError as error:
                failures = error.details["writeErrors"]
                others = [one for one in failures if one["code"] != DUPLICATE_KEY]
                if others or error.details["writeConcernErrors"]:
                    raise
                self._require_same(name, [documents[one["index"]] for one in failures])
                return len(documents) - len(failures)
            return len(documents)

    def _require_same(self, name: str, documents: list[Document]) -> None:
        """Raise PoisonError if another reading has the identity of one of these.

        So it is when the reader's state was put back from an older copy.
        """
        received = {document["_id"]: document.get("received") for document in documents}
        found = self._db[name].find({"_id": {"$in": list(received)}}, {"received": 1})
        for stored in found:
            if stored.get("received") != received[stored["_id"]]:
                detail = f"another reading is stored as {stored['_id']}"
                raise PoisonError("identity-conflict", detail)

    def _put_runs(self, runs: list[Run]) -> int:
        """Put the runs as they are now and return how many were not known."""
        if not runs:
            return 0
        updates = [
            UpdateOne({"_id": run.hash}, {"$set": mapping.of_run(run)}, upsert=True) for run in runs
        ]
        with sorted_errors():
            return int(self._db[RUNS].bulk_write(updates).upserted_count)
