"""The group's document in MongoDB: changed only as it was read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Final

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, PyMongoError

from raven_mongo_recorder.group import Group, Slot, State
from raven_mongo_recorder.slots import Rule
from ravenbus.errors import RetryableError
from ravenmongo.database import Document, client, database, explain
from ravenmongo.documents import SLOTS

TIMEOUT_MS: Final = 5_000
"""Less than the default lease, so that one call that hangs does not cost it."""


class MongoLedger:
    """The slots of the recorders with one client id at one broker, ``address``."""

    def __init__(self, url: str, client_id: str, address: str) -> None:
        self._url = url
        self._client_id = client_id
        self._id = f"{client_id}@{address}"

    @cached_property
    def _client(self) -> MongoClient[Document]:
        return client(self._url, TIMEOUT_MS)

    @cached_property
    def _documents(self) -> Collection[Document]:
        return database(self._client, TIMEOUT_MS)[SLOTS]

    def change(self, rule: Rule) -> Group:
        """Replace the group by what the rule makes of it; raise RetryableError.

        The rule is asked again when somebody else was faster.
        """
        with _away_is_retryable():
            while True:
                document = self._documents.find_one({"_id": self._id})
                revision = document["revision"] if document else 0
                old = _group(document) if document else self._elsewhere()
                new = rule(old)
                if new == old or self._replace(revision, new):
                    return new

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.close()

    def _replace(self, revision: int, group: Group) -> bool:
        """Write the group if it still has the revision; say whether it had."""
        document = {
            "_id": self._id,
            "client_id": self._client_id,
            "revision": revision + 1,
            "slots": [
                {"number": number, **slot._asdict()} for number, slot in sorted(group.items())
            ],
        }
        try:
            result = self._documents.replace_one(
                {"_id": self._id, "revision": revision}, document, upsert=revision == 0
            )
        except DuplicateKeyError:
            return False
        return bool(result.matched_count or result.upserted_id)

    def _elsewhere(self) -> Group:
        """Return the slots that the same client id has at other addresses.

        The broker may have had another name yesterday, and then has their sessions.
        """
        found = self._documents.find({"client_id": self._client_id})
        return {number: Slot(State.CLOSED) for other in found for number in _group(other)}


def _group(document: Document) -> Group:
    return {
        one["number"]: Slot(State(one["state"]), one["holder"], one["beat"])
        for one in document["slots"]
    }


@contextmanager
def _away_is_retryable() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise RetryableError(explain(error)) from error
