"""Choice of the right one of two clocks: the device's, which a meter sets, or the host's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from ravenbus.messages import ClockState
from ravenbus.notifications import (
    CurrentSummationDelivered,
    InstantaneousDemand,
    Notification,
    TimeCluster,
)

SANE_HOST_CLOCK: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A host without a battery starts earlier than this; its clock then judges nobody."""

_FRESH: Final = (InstantaneousDemand, CurrentSummationDelivered, TimeCluster)
"""They show the device's clock; the others may be old when they come: a price that was set."""


class Clocks(NamedTuple):
    """State of the two clocks, and how far the device's was ahead when it last showed."""

    state: ClockState
    ahead_s: float | None

    @property
    def problem(self) -> str | None:
        """A sentence that says what is wrong and what follows; None if nothing is."""
        apart = f"{abs(self.ahead_s or 0) / 86400:.1f} days"
        match self.state:
            case "unset":
                return "the stick's clock is not set: readings go by this machine's time"
            case "off" if (self.ahead_s or 0) < 0:
                return f"the stick's clock is {apart} behind: readings go by this machine's time"
            case "off":
                return f"the stick's clock is {apart} ahead: readings go by this machine's time"
            case "host-behind":
                return f"this machine's clock is {apart} behind: readings go by the stick's time"
        return None


class ClockJudge:
    """Takes from each notification the time that cannot be true, and keeps what it claimed."""

    def __init__(self, max_skew_s: float, is_synchronised: Callable[[], bool]) -> None:
        self._max_skew_s = max_skew_s
        self._is_synchronised = is_synchronised
        self.clocks: Clocks | None = None

    def judge(self, notification: Notification, received: datetime) -> Notification:
        """Return the notification with a usable time, or with none.

        A host that no time server has set goes on from when it was switched off, so it can be
        behind; a device that is ahead of such a host is right.
        """
        said = notification.time or notification.claimed_time
        ahead_s = (said - received).total_seconds() if said else None
        state = self._state(notification.time, ahead_s, received)
        if isinstance(notification, _FRESH):
            self.clocks = Clocks(state, ahead_s)
        elif self.clocks and self.clocks.state == "off":
            state = "off"
        elif state == "off" and (ahead_s or 0) < 0:
            state = "right"
        if state in ("unset", "off") and notification.time:
            return msgspec.structs.replace(notification, time=None, claimed_time=said)
        return notification

    def _state(
        self, time: datetime | None, ahead_s: float | None, received: datetime
    ) -> ClockState:
        if time is None or ahead_s is None:
            return "unset"
        if not self._max_skew_s or abs(ahead_s) <= self._max_skew_s:
            return "right"
        if received < SANE_HOST_CLOCK:
            return "host-behind"
        return "off" if ahead_s < 0 or self._is_synchronised() else "host-behind"
