"""Reports, what is decided on them, and the stages that decide."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from ravenbus.errors import PoisonError
from ravenbus.notifications import Notification

T = TypeVar("T")

SETTLES_AFTER: Final = 3
"""Reports that agree with each other replace what was known, or add to it."""
WAITING_MAX: Final = 1000
"""Reports that may wait in one stage; the oldest is then rejected."""


class Report(msgspec.Struct, frozen=True, eq=False):
    """A fragment as it came, and what it says.

    ``received`` is None where the bytes are not from now, as in a file.
    """

    notification: Notification
    raw: bytes
    received: datetime | None

    @property
    def at(self) -> datetime | None:
        """Time when it came, or else the time that the device's clock said."""
        return self.received or self.said

    @property
    def said(self) -> datetime | None:
        """Time that the device's clock said, true or not."""
        return self.notification.time or self.notification.claimed_time


class Possible(NamedTuple):
    """A report that nothing speaks against."""

    report: Report


class Impossible(NamedTuple):
    """A report and what speaks against it."""

    report: Report
    error: PoisonError


Decision = Possible | Impossible


class Stage(Protocol):
    """One thing that is judged; a report that it yields no decision on waits in it."""

    def take(self, report: Report) -> Iterable[Decision]:
        """Judge a report, and decide on those that it sheds light on."""

    def finish(self) -> Iterable[Impossible]:
        """Reject all that waits."""


def emptied(waiting: list[T]) -> list[T]:
    """Return what is in a list, and leave it empty."""
    found = list(waiting)
    waiting.clear()
    return found
