"""Decides what of a device's notifications is accepted: not the impossible, nothing twice.

What contradicts something known, as a new meter or a register that fell, waits until what follows
shows whether it was damage or news.  Then it is rejected, or taken in with the rest of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from raven_reader.registers import Baseline, Registers
from raven_reader.verdicts import (
    SETTLES_AFTER,
    WAITING_MAX,
    Decision,
    Impossible,
    Possible,
    Report,
    Stage,
    emptied,
)
from ravenbus.errors import PoisonError
from ravenbus.notifications import (
    BlockPriceDetail,
    InstantaneousDemand,
    Notification,
    PriceCluster,
)

WAITS_AT_MOST: Final = timedelta(hours=1)
"""A meter reports its demand and its clock far more often."""


@dataclass(frozen=True)
class Limits:
    """Limits of what is possible at this meter; 0 turns a limit off."""

    max_demand_kw: float = 100.0
    max_clock_skew_s: float = 86400.0
    max_price_per_kwh: float = 100.0


class Acceptance:
    """Judges the reports of one serial line, one after another."""

    def __init__(self, limits: Limits) -> None:
        self._device = _Device()
        self._meters = _Meters()
        self._registers = Registers(limits.max_demand_kw)
        self._stages: tuple[Stage, ...] = (
            self._device,
            self._meters,
            _Values(limits),
            self._registers,
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

    def resume(self, notification: Notification) -> None:
        """Take up a notification that was accepted before a restart."""
        self.remember(notification)
        if notification.meter:
            self.knows_meter(notification.meter)

    def resume_register(self, baseline: Baseline) -> None:
        """Take up what a register was before a restart."""
        self._registers.resume(baseline)

    def knows_meter(self, meter: str) -> None:
        """Take a meter for a real one."""
        self._meters.known.add(meter)

    def another_port(self) -> None:
        """Forget which stick it is: another one may be plugged in now."""
        self._device.known = None

    def judge(self, report: Report) -> list[Decision]:
        """Return what is decided now, oldest first: on this report, or on those that waited."""
        decided: list[Decision] = [Possible(report)]
        for stage in self._stages:
            passed: list[Decision] = []
            for decision in decided:
                if isinstance(decision, Possible):
                    passed += stage.take(decision.report)
                else:
                    passed.append(decision)
            decided = passed
        return decided

    def finish(self) -> list[Impossible]:
        """Reject whatever waits still: nothing will follow it."""
        return [decision for stage in self._stages for decision in stage.finish()]


def _as_said(notification: Notification) -> Notification:
    """Return a notification with the time that the device said, whatever was made of it."""
    if notification.claimed_time is None:
        return notification
    claimed = notification.claimed_time
    return msgspec.structs.replace(notification, time=claimed, claimed_time=None)


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
            yield from (Possible(waited.report) for waited in emptied(self._waiting))
            return
        yield from (Possible(waited.report) for waited in emptied(self._waiting))
        yield Possible(report)

    def finish(self) -> Iterable[Impossible]:
        return emptied(self._waiting)


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

    def finish(self) -> Iterable[Impossible]:
        return emptied(self._waiting)

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
