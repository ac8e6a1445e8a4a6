"""Checks that a meter's registers move as registers do, and finds the true of two that differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from raven_reader.verdicts import (
    SETTLES_AFTER,
    WAITING_MAX,
    Decision,
    Impossible,
    Possible,
    Report,
    emptied,
)
from ravenbus.errors import PoisonError
from ravenbus.notifications import CurrentSummationDelivered, Notification

REGISTER_SETTLES_AFTER: Final = timedelta(minutes=10)
"""A register that contradicts the known one has to go on, and grow, for so long."""
SLACK: Final = timedelta(hours=1)
"""Added to the time in which a register may have grown: clocks are set, reports are late."""

NAMES: Final = ("delivered_kwh", "received_kwh")
"""The registers of a meter; a meter that counts one way alone may report no value in the other."""


class Baseline(NamedTuple):
    """A meter's register when it was last accepted; ``meter`` is None if none is named."""

    meter: str | None
    name: str
    kwh: float
    at: datetime


def baselines(notification: Notification, at: datetime) -> list[Baseline]:
    """Return the registers that a notification has a value of; ``at`` is when it came."""
    if not isinstance(notification, CurrentSummationDelivered):
        return []
    values = ((name, getattr(notification, name)) for name in NAMES)
    return [Baseline(notification.meter, *one, at) for one in values if one[1] is not None]


@dataclass
class _Series:
    """Reports of registers of which each follows the one before it.

    ``grew`` counts how often a register moved, ``reports`` what was said since the start.
    """

    registers: dict[str, Baseline]
    first: Report | None = None
    last: Report | None = None
    waiting: list[Impossible] = field(default_factory=list)
    grew: int = 0
    reports: int = 0

    def go_on(self, report: Report, new: list[Baseline]) -> None:
        self.first, self.last = self.first or report, report
        self.reports += 1
        self.grew += any(
            one.name in self.registers and one.kwh != self.registers[one.name].kwh for one in new
        )
        self.registers |= {one.name: one for one in new}

    def behaves_like_a_register(self) -> bool:
        """Say whether it is more than damage, or the zero of a meter that has just started."""
        return len(self.waiting) >= SETTLES_AFTER and self._lasts_enough() and self.grew > 0

    def _lasts_enough(self) -> bool:
        """Go by the device's clock, right or not: the host's may be set meanwhile."""
        if self.first is None or self.last is None:
            return False
        both_said = self.first.said and self.last.said
        start, end = (
            (self.first.said, self.last.said) if both_said else (self.first.at, self.last.at)
        )
        return bool(start and end and end - start >= REGISTER_SETTLES_AFTER)


class Registers:
    """A meter's registers go up by what is possible; others replace them by going on and growing."""

    def __init__(self, max_demand_kw: float) -> None:
        self._max_demand_kw = max_demand_kw
        self._known: dict[str | None, _Series] = {}
        self._others: dict[str | None, list[_Series]] = {}

    def resume(self, baseline: Baseline) -> None:
        """Take up what a register was before a restart."""
        known = self._known.setdefault(baseline.meter, _Series({}))
        known.registers[baseline.name] = baseline

    def take(self, report: Report) -> Iterator[Decision]:
        """Judge a report of registers; what contradicts the known ones waits."""
        new = baselines(report.notification, report.at) if report.at else []
        if not new:
            yield Possible(report)
            return
        meter = report.notification.meter
        known = self._known.setdefault(meter, _Series({}))
        others = self._others.setdefault(meter, [])
        problem = self._problem(known, new)
        if problem is None:
            known.go_on(report, new)
            # What grew and was said more often than the known one may yet be the true one.
            for other in [one for one in others if not one.grew or one.reports <= known.reports]:
                others.remove(other)
                yield from other.waiting
            yield Possible(report)
            return
        series = self._followed(others, new)
        series.go_on(report, new)
        series.waiting.append(Impossible(report, problem))
        if series.behaves_like_a_register():
            others.remove(series)
            self._known[meter] = series
            for other in emptied(others):
                yield from other.waiting
            yield from (Possible(waited.report) for waited in emptied(series.waiting))
        elif sum(len(other.waiting) for other in others) > WAITING_MAX:
            yield from others.pop(0).waiting

    def finish(self) -> Iterable[Impossible]:
        """Reject all that waits."""
        waiting = [other for others in self._others.values() for other in emptied(others)]
        return [problem for other in waiting for problem in other.waiting]

    def _followed(self, others: list[_Series], new: list[Baseline]) -> _Series:
        """Return the series that a report goes on with, the longest first, or a new one."""
        for other in sorted(others, key=lambda one: len(one.waiting), reverse=True):
            if self._problem(other, new) is None:
                return other
        others.append(_Series({}))
        return others[-1]

    def _problem(self, series: _Series, new: list[Baseline]) -> PoisonError | None:
        """Return what is impossible about a register's growth."""
        for after in new:
            before = series.registers.get(after.name)
            if before is None:
                continue
            elapsed = max(after.at - before.at, timedelta()) + SLACK
            most = self._max_demand_kw * (elapsed / timedelta(hours=1))
            if after.kwh < before.kwh:
                detail = f"{after.name} went down from {before.kwh} to {after.kwh}"
                return PoisonError("summation-down", detail)
            if most and after.kwh - before.kwh > most:
                return PoisonError(
                    "summation-jump",
                    f"{after.name} jumped from {before.kwh} to {after.kwh}: "
                    f"allowed is {most:.0f} more",
                )
        return None
