"""When a stick reports what: the model's periods, those that the host set, and fast poll."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raven_simulator.reports import UNSET

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from raven_simulator.station import Moment


@dataclass(frozen=True, slots=True)
class FastPoll:
    """Demands each frequency_s until until_s, elapsed wall seconds; end is that on the device's clock."""

    frequency_s: int = 0
    until_s: float = -math.inf
    end: int = UNSET


class Schedule:
    """Events at their periods in schedule seconds, of which speed pass in a wall second; None: disabled.

    Of the events in periods_s only the reported ones ever become due.
    """

    def __init__(
        self, periods_s: Mapping[str, int | None], reported: Collection[str], speed: float
    ) -> None:
        self.periods_s = dict(periods_s)
        self.fast_poll = FastPoll()
        self._reported = reported
        self._speed = speed
        self._due: dict[str, float] = {}

    def start(self, moment: Moment) -> None:
        """Start each event's period now."""
        self._due.clear()
        for event in self._reported:
            self._start(event, moment)

    def at_s(self, moment: Moment) -> float:
        """Return the second of the schedule."""
        return moment.elapsed_s * self._speed

    def due_s(self) -> float:
        """Elapsed wall seconds at which the next event is due; infinity when every event is disabled."""
        return min(self._due.values(), default=math.inf) / self._speed

    def take(self, moment: Moment) -> tuple[str, float] | None:
        """Return the oldest event that is due by now and its second of the schedule; it is then due a period later."""
        if self.due_s() > moment.elapsed_s:
            return None
        event = min(self._due, key=self._due.__getitem__)
        at_s = self._due[event]
        self._due[event] = at_s + self._period_s(event, moment)
        return event, at_s

    def skip(self, moment: Moment) -> None:
        """Leave out what is due by now; the schedule keeps its phase."""
        for event, at_s in self._due.items():
            if at_s / self._speed <= moment.elapsed_s:
                period = self._period_s(event, moment)
                periods = max(math.floor((self.at_s(moment) - at_s) / period), 0) + 1
                self._due[event] = at_s + period * periods

    def set(self, event: str, period_s: int | None, moment: Moment) -> None:
        """Give an event another period, which starts now."""
        self.periods_s[event] = period_s
        self._start(event, moment)

    def poll_fast(self, frequency_s: int, duration_s: int, moment: Moment) -> None:
        """Have demands more often for a while; a zero ends that."""
        self.fast_poll = FastPoll()
        if frequency_s > 0 and duration_s > 0:
            end = UNSET if moment.clock == UNSET else moment.clock + duration_s
            self.fast_poll = FastPoll(frequency_s, moment.elapsed_s + duration_s, end)
        self._start("demand", moment)

    def _start(self, event: str, moment: Moment) -> None:
        self._due.pop(event, None)
        period = self._period_s(event, moment)
        if event in self._reported and period < math.inf:
            self._due[event] = self.at_s(moment) + period

    def _period_s(self, event: str, moment: Moment) -> float:
        period = self.periods_s.get(event) or math.inf
        if event == "demand" and moment.elapsed_s < self.fast_poll.until_s:
            return min(period, self.fast_poll.frequency_s)
        return period
