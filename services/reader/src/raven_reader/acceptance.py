"""Decides what of a device's notifications is accepted: not the impossible, nothing twice.

What contradicts something known, as a new meter or a register that fell, waits until what follows
shows whether it was damage or news.  Then it is rejected, or taken in with the rest of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from ravenbus.errors import PoisonError
from ravenbus.notifications import (
    BlockPriceDetail,
    CurrentSummationDelivered,
    InstantaneousDemand,
    Notification,
    PriceCluster,
)

T = TypeVar("T")

SETTLES_AFTER: Final = 3
"""Reports that agree with each other replace what was known, or add to it."""
REGISTER_SETTLES_AFTER: Final = timedelta(minutes=10)
"""A register that contradicts the known one has to go on, and grow, for so long."""
WAITING_MAX: Final = 1000
"""Reports that may wait in one place; the oldest is then rejected."""
WAITS_AT_MOST: Final = timedelta(hours=1)
"""A meter reports its demand and its clock far more often."""
SLACK: Final = timedelta(hours=1)
"""Added to the time in which a register may have grown: clocks are set, reports are late."""


@dataclass(frozen=True)
class Limits:
    """What is possible at this meter; 0 turns a limit off."""

    max_demand_kw: float = 100.0
    max_clock_skew_s: float = 86400.0
    max_price_per_kwh: float = 100.0


@dataclass(frozen=True, eq=False)
class Report:
    """A fragment as it came, and what it says.

    ``received`` is None where the bytes are not from now, as in a file.
    """

    notification: Notification
    raw: bytes
    received: datetime | None

    @property
    def at(self) -> datetime | None:
        """When it came, or else what the device's clock said."""
        return self.received or self.said

    @property
    def said(self) -> datetime | None:
        """What the device's clock said, true or not."""
        return self.notification.time or self.notification.claimed_time


class Possible(NamedTuple):
    """A report that nothing speaks against."""

    report: Report


class Impossible(NamedTuple):
    """A report and what speaks against it."""

    report: Report
    error: PoisonError


Decision = Possible | Impossible


class Acceptance:
    """Judges the reports of one serial line, one after another."""

    def __init__(self, limits: Limits) -> None:
        self._device = _Device()
        self._meters = _Meters()
        self._stages: tuple[_Stage, ...] = (
            self._device,
            self._meters,
            _Values(limits),
            _Registers(limits.max_demand_kw),
        )
        self._last: dict[tuple[type, str | None], Notification] = {}

    def is_repeat(self, notification: Notification) -> bool:
        """Say whether the device sent a cached report again: the same time, true or not, and values.

        Without a time nobody can tell a repetition from a second reading of the same value.
        """
        said = _as_said(notification)
        key = type(notification), notification.meter
        return said.time is not None and self._last.get(key) == said

    def remember(self, notification: Notification) -> None:
        """Take a notification as the last of its kind and meter."""
        self._last[type(notification), notification.meter] = _as_said(notification)

    def resume(self, notification: Notification, received: datetime) -> None:
        """Take up a notification that was accepted before a restart."""
        self.remember(notification)
        for stage in self._stages:
            stage.resume(Report(notification, b"", received))

    def knows_meter(self, meter: str) -> None:
        """Take a meter for a real one."""
        self._meters.known.add(meter)

    def another_port(self) -> None:
        """Forget which stick it is: another one may be plugged in now."""
        self._device.known = None

    def judge(self, report: Report) -> list[Decision]:
        """Return what is decided now, oldest first: on this report, or on those that waited."""
        return list(self._from(0, Possible(report)))

    def finish(self) -> list[Impossible]:
        """Reject whatever waits still: nothing will follow it."""
        return [decision for stage in self._stages for decision in stage.finish()]

    def _from(self, number: int, decision: Decision) -> Iterator[Decision]:
        if isinstance(decision, Impossible) or number == len(self._stages):
            yield decision
            return
        for decided in self._stages[number].take(decision.report):
            yield from self._from(number + 1, decided)


def _as_said(notification: Notification) -> Notification:
    """Return a notification with the time that the device said, whatever was made of it."""
    if notification.claimed_time is None:
        return notification
    claimed = notification.claimed_time
    return msgspec.structs.replace(notification, time=claimed, claimed_time=None)


class _Stage(Protocol):
    """One thing that is judged; a report that it yields no decision on waits in it."""

    def take(self, report: Report) -> Iterable[Decision]:
        """Judge a report, and decide on those that it sheds light on."""

    def resume(self, report: Report) -> None:
        """Take up what was accepted before a restart."""

    def finish(self) -> Iterable[Impossible]:
        """Reject all that waits."""


class _Device:
    """A line has one stick; another one counts once it came three times in a row."""

    def __init__(self) -> None:
        self.known: str | None = None
        self._waiting: list[Impossible] = []

    def take(self, report: Report) -> Iterator[Decision]:
        device = report.notification.device
        if device is None:
            yield Possible(report)
            return
        waits_for = self._waiting[0].report.notification.device if self._waiting else None
        if self.known is None:
            self.known = device
        if device not in (self.known, waits_for) or device == self.known != waits_for:
            yield from self.finish()
        if device != self.known:
            error = PoisonError("other-device", f"device {device}: this stick is {self.known}")
            self._waiting.append(Impossible(report, error))
            if len(self._waiting) < SETTLES_AFTER:
                return
            self.known = device
            yield from (Possible(waited.report) for waited in _emptied(self._waiting))
            return
        yield from (Possible(waited.report) for waited in _emptied(self._waiting))
        yield Possible(report)

    def resume(self, report: Report) -> None:
        """Another stick may be plugged in since."""

    def finish(self) -> Iterable[Impossible]:
        return _emptied(self._waiting)


class _Meters:
    """A stick may hear several meters; a new one counts once it came three times."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self._waiting: list[Impossible] = []

    def take(self, report: Report) -> Iterator[Decision]:
        meter = report.notification.meter
        if not self.known and meter:
            self.known.add(meter)
        while self._waiting and self._is_overdue(self._waiting[0].report, report):
            yield self._waiting.pop(0)
        if meter is None or meter in self.known:
            yield Possible(report)
            return
        detail = f"meter {meter} came fewer than {SETTLES_AFTER} times: damage, or a new meter"
        self._waiting.append(Impossible(report, PoisonError("unknown-meter", detail)))
        same = [one for one in self._waiting if one.report.notification.meter == meter]
        if len(same) >= SETTLES_AFTER:
            self.known.add(meter)
            self._waiting = [one for one in self._waiting if one not in same]
            yield from (Possible(one.report) for one in same)

    def resume(self, report: Report) -> None:
        if report.notification.meter:
            self.known.add(report.notification.meter)

    def finish(self) -> Iterable[Impossible]:
        return _emptied(self._waiting)

    def _is_overdue(self, waiting: Report, new: Report) -> bool:
        waits = waiting.received and new.received and new.received - waiting.received
        return len(self._waiting) >= WAITING_MAX or bool(waits and waits > WAITS_AT_MOST)


class _Values:
    """Demands and prices have limits; what is beyond them is never possible."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def take(self, report: Report) -> Iterator[Decision]:
        problem = self._problem(report.notification)
        yield Impossible(report, problem) if problem else Possible(report)

    def resume(self, report: Report) -> None:
        """Nothing is compared with what came before."""

    def finish(self) -> Iterable[Impossible]:
        return ()

    def _problem(self, notification: Notification) -> PoisonError | None:
        if isinstance(notification, InstantaneousDemand):
            limit, demand_kw = self._limits.max_demand_kw, notification.demand_kw
            if limit and demand_kw is not None and abs(demand_kw) > limit:
                detail = f"{demand_kw} kW: allowed is {limit} kW either way"
                return PoisonError("demand-too-large", detail)
        limit = self._limits.max_price_per_kwh
        for price in _prices(notification) if limit else ():
            if price is not None and abs(price) > limit:
                detail = f"{price} for each kWh: allowed is {limit} either way"
                return PoisonError("price-too-large", detail)
        return None


def _prices(notification: Notification) -> list[float | None]:
    match notification:
        case PriceCluster(price_per_kwh=price):
            return [price]
        case BlockPriceDetail(blocks=blocks):
            return [block.price_per_kwh for block in blocks]
    return []


class _Register(NamedTuple):
    """A meter's two registers when they were reported."""

    report: Report
    delivered_kwh: float
    received_kwh: float
    at: datetime

    def grew_since(self, old: _Register) -> bool:
        return (self.delivered_kwh, self.received_kwh) != (old.delivered_kwh, old.received_kwh)


@dataclass
class _Series:
    """Registers of which each follows the one before it; ``grew`` counts how often they moved."""

    first: _Register
    last: _Register = field(init=False)
    problems: list[Impossible] = field(default_factory=list)
    grew: int = 0

    def __post_init__(self) -> None:
        self.last = self.first

    def go_on(self, new: _Register) -> None:
        self.grew += new.grew_since(self.last)
        self.last = new

    def behaves_like_a_register(self) -> bool:
        """Say whether it is more than damage, or the zero of a meter that has just started."""
        from_, to = self.first.report.said, self.last.report.said
        lasted = to - from_ if from_ and to else self.last.at - self.first.at
        enough = len(self.problems) >= SETTLES_AFTER and lasted >= REGISTER_SETTLES_AFTER
        return enough and self.grew > 0


class _Registers:
    """A meter's registers go up by what is possible; others replace them by going on and growing."""

    def __init__(self, max_demand_kw: float) -> None:
        self._max_demand_kw = max_demand_kw
        self._known: dict[str | None, _Series] = {}
        self._others: dict[str | None, list[_Series]] = {}

    def take(self, report: Report) -> Iterator[Decision]:
        new = _register(report)
        if new is None:
            yield Possible(report)
            return
        meter = report.notification.meter
        known = self._known.get(meter)
        problem = self._problem(known.last, new) if known else None
        others = self._others.setdefault(meter, [])
        if problem is None:
            if known is None:
                known = self._known[meter] = _Series(new)
            known.go_on(new)
            # What went on for longer than the known one may yet be the true one.
            for other in [one for one in others if one.grew <= known.grew]:
                others.remove(other)
                yield from other.problems
            yield Possible(report)
            return
        series = self._followed(others, new)
        series.go_on(new)
        series.problems.append(Impossible(report, problem))
        if series.behaves_like_a_register():
            others.remove(series)
            self._known[meter] = series
            decided = [Possible(waited.report) for waited in _emptied(series.problems)]
            rejected = [waited for other in _emptied(others) for waited in other.problems]
            yield from rejected + decided
        elif sum(len(other.problems) for other in others) > WAITING_MAX:
            oldest = min(others, key=lambda other: other.first.at)
            others.remove(oldest)
            yield from oldest.problems

    def resume(self, report: Report) -> None:
        if register := _register(report):
            self._known[report.notification.meter] = _Series(register)

    def finish(self) -> Iterable[Impossible]:
        waiting = [other for others in self._others.values() for other in _emptied(others)]
        return [problem for other in waiting for problem in other.problems]

    def _followed(self, others: list[_Series], new: _Register) -> _Series:
        """Return the series that a register goes on with, the longest first, or a new one."""
        for other in sorted(others, key=lambda one: len(one.problems), reverse=True):
            if self._problem(other.last, new) is None:
                return other
        others.append(_Series(new))
        return others[-1]

    def _problem(self, old: _Register, new: _Register) -> PoisonError | None:
        """Return what is impossible about a register's growth."""
        elapsed = max(new.at - old.at, timedelta()) + SLACK
        most = self._max_demand_kw * (elapsed / timedelta(hours=1))
        for name in ("delivered_kwh", "received_kwh"):
            before, after = getattr(old, name), getattr(new, name)
            if after < before:
                detail = f"{name} went down from {before} to {after}"
                return PoisonError("summation-down", detail)
            if most and after - before > most:
                detail = f"{name} jumped from {before} to {after}: allowed is {most:.0f} more"
                return PoisonError("summation-jump", detail)
        return None


def _register(report: Report) -> _Register | None:
    """Return the registers of a report that can be compared, None if there is nothing to."""
    match report.notification:
        case CurrentSummationDelivered(
            delivered_kwh=float(delivered), received_kwh=float(received)
        ):
            return _Register(report, delivered, received, report.at) if report.at else None
    return None


def _emptied(waiting: list[T]) -> list[T]:
    found = list(waiting)
    waiting.clear()
    return found
