"""A store that keeps dead letters for a time alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from ravenbus.errors import RetryableError
from ravenbus.messages import Item, now
from ravenbus.storing import Sink, Stored

log = logging.getLogger(__name__)

EVERY_S: Final = 3600.0


class LetterSink(Sink, Protocol):
    """A sink that can remove dead letters."""

    def forget_letters(self, before: datetime) -> int:
        """Remove the dead letters from before a time; return how many. Raise RetryableError."""


class Forgetting:
    """A sink that removes dead letters after ``keep``, once an hour, when something is stored."""

    def __init__(
        self,
        sink: LetterSink,
        keep: timedelta,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = now,
    ) -> None:
        self._sink = sink
        self._keep = keep
        self._clock = clock
        self._utc = utc
        self._due_at = float("-inf")

    def prepare(self) -> None:
        """Prepare the sink."""
        self._sink.prepare()

    def store(self, items: Sequence[Item]) -> Stored:
        """Store in the sink, then remove what is old enough; what cannot be removed now stays."""
        stored = self._sink.store(items)
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + EVERY_S
            try:
                count = self._sink.forget_letters(self._utc() - self._keep)
            except RetryableError as error:
                log.info("removing old dead letters postponed", extra={"reason": str(error)})
            else:
                if count:
                    log.info("old dead letters removed", extra={"count": count})
        return stored

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
