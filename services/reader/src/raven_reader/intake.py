"""From bytes to what the reader makes of them: framing, decoding and acceptance in a row."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import NamedTuple

from raven_reader.acceptance import Acceptance, Limits
from raven_reader.decoding import decode
from raven_reader.framing import Counts, Fragment, Parser
from ravenbus.errors import PoisonError
from ravenbus.notifications import Notification


class Accepted(NamedTuple):
    """A notification to publish, with the bytes that it came in."""

    notification: Notification
    raw: bytes


class Repeated(NamedTuple):
    """A cached report that the device sent again unchanged."""

    notification: Notification
    raw: bytes


class Rejected(NamedTuple):
    """A whole fragment that cannot be used, and why."""

    error: PoisonError
    raw: bytes


Outcome = Accepted | Repeated | Rejected


class Intake:
    """Takes the bytes of one serial line; ``outcomes`` counts what became of its fragments."""

    def __init__(self, limits: Limits) -> None:
        self.acceptance = Acceptance(limits)
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._parser = Parser()

    @property
    def counts(self) -> Counts:
        """What the framing has met."""
        return self._parser.counts

    def feed(self, piece: bytes, received: datetime | None) -> list[Outcome]:
        """Take bytes and say what became of each fragment that they completed.

        ``received`` is None where the bytes are not from now, as in a file: the device's clock
        and repetitions are then not judged.
        """
        outcomes = [self._outcome(fragment, received) for fragment in self._parser.feed(piece)]
        self.outcomes.update(type(outcome).__name__.lower() for outcome in outcomes)
        return outcomes

    def another_port(self) -> None:
        """Start over with another stick, or the same one after a gap."""
        self._parser.restart()
        self.acceptance.another_port()

    def _outcome(self, fragment: Fragment, received: datetime | None) -> Outcome:
        try:
            notification = decode(fragment)
            if received and self.acceptance.is_repeat(notification):
                return Repeated(notification, fragment.raw)
            self.acceptance.judge(notification, received)
        except PoisonError as error:
            self.reasons[error.reason] += 1
            return Rejected(error, fragment.raw)
        self.acceptance.remember(notification)
        return Accepted(notification, fragment.raw)
