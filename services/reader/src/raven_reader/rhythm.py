"""How often each kind of report comes: what is usual, what is scheduled, what is observed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import datetime
from statistics import median_low
from typing import Final

from ravenbus.notifications import Notification, ScheduleInfo, kind_of

USUAL_S: Final = {
    "instantaneous_demand": 15,
    "current_summation_delivered": 240,
    "price_cluster": 90,
}
"""The slower model's schedule."""
EVENTS: Final = {
    "demand": "instantaneous_demand",
    "summation": "current_summation_delivered",
    "price": "price_cluster",
}
"""What a schedule (RAVEn XML API r127 p.12) calls a kind."""
OBSERVED: Final = 5
"""Reports that a few lost ones do not change the median of."""


class Rhythm:
    """Expects the next report of a kind; ``usual_s`` has the kinds that come by themselves."""

    def __init__(self, usual_s: Mapping[str, int] = USUAL_S) -> None:
        self._usual_s = usual_s
        self._scheduled_s: dict[str, int] = {}
        self._observed_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=OBSERVED))
        self._last: dict[str, datetime] = {}

    def pause(self) -> None:
        """Count no interval from before to after now: the device was away."""
        self._last.clear()

    def note(self, notification: Notification) -> None:
        """Take up what the device says of its schedule."""
        if isinstance(notification, ScheduleInfo) and notification.event in EVENTS:
            self._scheduled_s[EVENTS[notification.event]] = notification.frequency_s or 0

    def heard(self, notification: Notification, at: datetime) -> None:
        """Take up that a report came, also one that says nothing new."""
        kind = kind_of(notification)
        if last := self._last.get(kind):
            self._observed_s[kind].append((at - last).total_seconds())
        self._last[kind] = at

    def intervals_s(self) -> dict[str, int]:
        """Return how long the next report of each kind may take, seconds.

        It is the usual time, doubled until it is enough, so that it seldom changes.
        """
        return {kind: self._interval_s(kind, usual_s) for kind, usual_s in self._usual_s.items()}

    def _interval_s(self, kind: str, interval_s: int) -> int:
        observed_s = self._observed_s[kind]
        needed_s = max(self._scheduled_s.get(kind, 0), median_low(observed_s) if observed_s else 0)
        # A second, because reports do not come to the second.
        while interval_s + 1 < needed_s:
            interval_s *= 2
        return interval_s
