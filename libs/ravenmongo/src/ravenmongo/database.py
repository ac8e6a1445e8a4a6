"""Access to MongoDB, and the translation of the driver's errors into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from bson.errors import BSONError, InvalidDocument
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)

from ravenbus.errors import PoisonError, RetryableError

Document = dict[str, Any]

DATABASE: Final = "raven"
"""Used where the URL names no database."""
SELECTION_TIMEOUT_MS: Final = 2_000
"""Short, so that a stop is not held up; who waits longer is our own retrying."""

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
    """Return the database that the URL names; what it commits is in a majority's journals."""
    concern = WriteConcern("majority", j=True, wtimeout=timeout_ms)
    return client.get_default_database(DATABASE, write_concern=concern)


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
        if isinstance(error, OperationFailure) and error.code in POISON_CODES:
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
    failures = error.details.get("writeErrors") if isinstance(error, BulkWriteError) else None
    return f"MongoDB cannot do it now: {failures[0]['errmsg'] if failures else text}"
