"""A lease in a collection: one of several programs does what several must not do at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from ravenbus.errors import RetryableError
from ravenmongo.database import Document, sorted_errors

LEASE_S: Final = 60.0
"""Longer than any call of the driver is waited for; whoever moves nothing for so long is dead."""
LOOK_AGAIN_S: Final = 0.5


class Lease:
    """A document that its holder moves; others look at it by their own clock alone.

    Every call raises RetryableError: somebody else has the lease, or the database is away.
    ``wait`` waits for some seconds and says whether it was asked to stop.
    """

    def __init__(
        self,
        documents: Any,
        name: str,
        wait: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._documents = documents
        self._id = name
        self._wait = wait
        self._clock = clock
        self._me = uuid.uuid4().hex
        self._beat = 0
        self._renewed_at = float("-inf")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease, after a dead holder's is over."""
        with sorted_errors():
            self._take()
        try:
            yield
        finally:
            with suppress(RetryableError), sorted_errors():
                self._documents.delete_one({"_id": self._id, "holder": self._me})

    def keep(self) -> None:
        """Show that the holder is alive; to be called more often than LEASE_S."""
        if self._clock() - self._renewed_at < LEASE_S / 10:
            return
        began = self._clock()
        with sorted_errors():
            if not self._moved({"holder": self._me}):
                raise RetryableError("another one has begun to archive meanwhile")
        self._renewed_at = began

    def _take(self) -> None:
        seen = self._documents.find_one({"_id": self._id})
        looked_at = self._clock()
        while seen and self._clock() - looked_at < LEASE_S:
            if self._wait(LOOK_AGAIN_S):
                raise RetryableError("it was asked to stop")
            now = self._documents.find_one({"_id": self._id})
            if now and now != seen:
                raise RetryableError("another one is archiving")
            seen = now
        self._renewed_at = self._clock()
        if seen:
            if not self._moved({"holder": seen["holder"], "beat": seen["beat"]}):
                raise RetryableError("another one is archiving")
            return
        try:
            self._documents.insert_one({"_id": self._id, "holder": self._me, "beat": 0})
        except DuplicateKeyError as error:
            raise RetryableError("another one is archiving") from error

    def _moved(self, as_seen: Document) -> bool:
        self._beat += 1
        new = {"_id": self._id, "holder": self._me, "beat": self._beat}
        result = self._documents.replace_one({"_id": self._id, **as_seen}, new)
        return bool(result.matched_count)
