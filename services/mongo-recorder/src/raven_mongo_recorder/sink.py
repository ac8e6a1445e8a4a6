"""The MongoDB store: what a message looks like as a document, and what an error means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import msgspec
from bson import Int64
from bson.errors import BSONError, InvalidDocument
from pymongo import ASCENDING, MongoClient, UpdateOne
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)

from raven_mongo_recorder.database import Document, client, database, explain
from ravenbus.consumer import Item, Stored
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.messages import DeadLetter, Reading, Run
from ravenbus.notifications import KINDS

RUNS: Final = "runs"
DEAD_LETTER: Final = "dead_letter"

DUPLICATE_KEY: Final = 11000
POISON_CODES: Final = frozenset(
    {
        2,  # BadValue
        9,  # FailedToParse
        14,  # TypeMismatch
        22,  # InvalidBSON
        121,  # DocumentValidationFailure
        10334,  # BSONObjectTooLarge
        17280,  # KeyTooLong
    }
)
"""Codes that blame the document; every other failure is the server's state and is retried."""

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
        with _errors_sorted():
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
                    documents[item.kind].append(_reading(item))
                case DeadLetter():
                    documents[DEAD_LETTER].append(_dead_letter(item))
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
        with _errors_sorted():
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
            UpdateOne({"_id": run.hash}, {"$set": _typed(msgspec.structs.asdict(run))}, upsert=True)
            for run in runs
        ]
        with _errors_sorted():
            return int(self._db[RUNS].bulk_write(updates).upserted_count)


def _reading(reading: Reading) -> Document:
    envelope = reading.envelope
    return {
        "_id": f"{envelope.hash}/{envelope.seq}",
        **_typed(msgspec.structs.asdict(envelope)),
        "kind": reading.kind,
        **_typed(msgspec.structs.asdict(reading.notification)),
    }


def _dead_letter(letter: DeadLetter) -> Document:
    document = _typed(msgspec.structs.asdict(letter))
    return {"_id": document.pop("id"), **document}


def _typed(fields: dict[str, Any]) -> Document:
    """Return the fields with every integer as 64 bits, as BSON would choose by size."""
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> Any:
    if type(value) is int:
        return Int64(value)
    if type(value) is list:
        return [_value(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _typed(msgspec.structs.asdict(value))
    return value


@contextmanager
def _errors_sorted() -> Iterator[None]:
    """Turn the driver's errors into ours, keeping the original as the cause."""
    try:
        yield
    except (InvalidDocument, DocumentTooLarge, BSONError, OverflowError) as error:
        raise PoisonError("not-storable", str(error)) from error
    except BulkWriteError as error:
        failures = error.details["writeErrors"]
        blamed = [one for one in failures if one["code"] in POISON_CODES]
        if blamed:
            raise PoisonError("not-storable", blamed[0]["errmsg"]) from error
        raise RetryableError(explain(error)) from error
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in POISON_CODES:
            raise PoisonError("not-storable", str(error)) from error
        raise RetryableError(explain(error)) from error
