"""Access to MongoDB, and the translation of the driver's errors into ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bson.errors import BSONError, InvalidDocument
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    WriteError,
)

from ravenbus.errors import PoisonError, RetryableError

Document = dict[str, Any]

DATABASE: Final = "raven"
"""Used where the URL names no database."""
SELECTION_TIMEOUT_MS: Final = 2_000
"""Short, so that a stop is not held up; who waits longer is our own retrying."""
ANSWER_RESERVE: Final = 0.1
"""The part of a timeout in which a server can still say that a majority is missing."""

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
"""Codes that blame the document whose error they are.

Every other failure is the server's state and is retried, and so is one of a whole command: there
BadValue is what a server without a journal answers to ``j``.
"""


def client(url: str, timeout_ms: int) -> MongoClient[Document]:
    """Return a client that waits no longer than ``timeout_ms`` for an answer."""
    return MongoClient(
        url,
        serverSelectionTimeoutMS=SELECTION_TIMEOUT_MS,
        connectTimeoutMS=SELECTION_TIMEOUT_MS,
        socketTimeoutMS=timeout_ms,
        retryWrites=False,
        tz_aware=True,
        appname="python-raven",
    )


def database(client: MongoClient[Document], timeout_ms: int) -> Database[Document]:
    """Return the database that the URL names; what it commits is in a majority's journals.

    It reads from the primary whatever the URL says: what another member does not know yet would be
    stored again or counted without.
    """
    wtimeout = int(timeout_ms * (1 - ANSWER_RESERVE))
    concern = WriteConcern("majority", j=True, wtimeout=wtimeout)
    return client.get_default_database(
        DATABASE, read_preference=ReadPreference.PRIMARY, write_concern=concern
    )


@contextmanager
def sorted_errors() -> Iterator[None]:
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
        if isinstance(error, WriteError) and error.code in POISON_CODES:
            raise PoisonError("not-storable", str(error)) from error
        raise RetryableError(explain(error)) from error


def explain(error: PyMongoError) -> str:
    """Say in a line what keeps the store away, without the driver's topology dump."""
    text = str(error)
    for noise in (", Timeout:", ", full error:", " (configured timeouts:"):
        text = text.partition(noise)[0]
    refused = isinstance(error, OperationFailure) and error.code in (13, 18)
    if refused or "authentication failed" in text.lower():
        return f"MongoDB refuses the account: {text} (see MONGO_URL)"
    if isinstance(error, ConnectionFailure):
        return f"MongoDB is away: {text}"
    if isinstance(error, BulkWriteError):
        failures = error.details["writeErrors"] + error.details["writeConcernErrors"]
        # That a document is there already is no reason as long as there is another one.
        text = min(failures, key=lambda one: one["code"] == DUPLICATE_KEY)["errmsg"]
    return f"MongoDB cannot do it now: {text}"


def duplicates(error: BulkWriteError) -> list[Mapping[str, Any]]:
    """Return what duplicate keys kept out; raise the error if there is anything else wrong.

    What a majority does not have yet can be all that is.
    """
    failures: list[Mapping[str, Any]] = error.details["writeErrors"]
    others = [one for one in failures if one["code"] != DUPLICATE_KEY]
    if others or error.details["writeConcernErrors"]:
        raise error
    return failures


def is_identity(failure: Mapping[str, Any]) -> bool:
    """Say whether the key that keeps a document out is its ``_id``."""
    return bool(failure.get("keyPattern") == {"_id": 1})
