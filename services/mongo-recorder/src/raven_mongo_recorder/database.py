"""How the recorder reaches MongoDB: what its clients have in common."""

from __future__ import annotations

from typing import Any, Final

from pymongo import MongoClient, WriteConcern
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

Document = dict[str, Any]

DATABASE: Final = "raven"
"""Used where the URL names no database."""
SELECTION_TIMEOUT_MS: Final = 2_000
"""Short, so that a stop is not held up; who waits longer is our own retrying."""


def client(url: str, timeout_ms: int) -> MongoClient[Document]:
    """Return a client that waits no longer than ``timeout_ms`` for an answer."""
    return MongoClient(
        url,
        serverSelectionTimeoutMS=SELECTION_TIMEOUT_MS,
        connectTimeoutMS=SELECTION_TIMEOUT_MS,
        socketTimeoutMS=timeout_ms,
        retryWrites=False,
        tz_aware=True,
        appname="raven-mongo-recorder",
    )


def database(client: MongoClient[Document], timeout_ms: int) -> Database[Document]:
    """Return the database that the URL names; what it commits is in a majority's journals."""
    concern = WriteConcern("majority", j=True, wtimeout=timeout_ms)
    return client.get_default_database(DATABASE, write_concern=concern)


def explain(error: PyMongoError) -> str:
    """Say in a line what keeps the store away, without the driver's topology dump."""
    text = str(error)
    for noise in (", Timeout:", ", full error:", " (configured timeouts:"):
        text = text.partition(noise)[0]
    refused = isinstance(error, OperationFailure) and error.code in (13, 18)
    if refused or "authentication failed" in text.lower():
        return f"MongoDB refuses the account: {text} (see MONGO_URL)"
    return f"MongoDB is away: {text}"
