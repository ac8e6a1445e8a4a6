"""Decides what of a device's notifications is accepted: not the impossible, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

from ravenbus.errors import PoisonError
from ravenbus.notifications import (
    CurrentSummationDelivered,
    InstantaneousDemand,
    Notification,
    TimeCluster,
)

T = TypeVar("T")

SETTLES_AFTER: Final = 3
"""Readings in a row that agree with each other replace a baseline which they all contradict."""
SANE_HOST_CLOCK: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A host without a battery starts earlier than this; its clock then judges nobody."""
SLACK: Final = timedelta(hours=1)
"""Added to the time in which a register may have grown: clocks are set, reports are late."""


@dataclass(frozen=True)
class Limits:
    """What is possible at this meter; 0 turns a limit off."""

    max_demand_kw: float = 100.0
    max_clock_skew_s: float = 86400.0


@dataclass(frozen=True)
class _Register:
    delivered_kwh: float
    received_kwh: float
    at: datetime


class Acceptance:
    """Judges notifications of one serial line, one after another."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._device = _Settling[str]()
        self._registers: dict[str | None, _Settling[_Register]] = {}
        self._last: dict[tuple[type, str | None], Notification] = {}

    def is_repeat(self, notification: Notification) -> bool:
        """Say whether the device sent a cached report again: same time, same values.

        Without a time nobody can tell a repetition from a second reading of the same value.
        """
        key = type(notification), notification.meter
        return notification.time is not None and self._last.get(key) == notification

    def remember(self, notification: Notification) -> None:
        """Take a notification as the last of its kind and meter."""
        self._last[type(notification), notification.meter] = notification

    def resume(self, notification: Notification, received: datetime) -> None:
        """Take up a notification that was accepted before a restart."""
        self.remember(notification)
        if isinstance(notification, CurrentSummationDelivered):
            self._judge_summation(notification, received)

    def another_port(self) -> None:
        """Forget which stick it is: another one may be plugged in now."""
        self._device = _Settling()

    def judge(self, notification: Notification, received: datetime | None) -> None:
        """Raise PoisonError for what is well-formed but impossible.

        ``received`` is the host's clock; without it the device's clock is not judged.
        """
        self._judge_device(notification)
        if received:
            self._judge_clock(notification, received)
        if isinstance(notification, InstantaneousDemand):
            self._judge_demand(notification)
        if isinstance(notification, CurrentSummationDelivered):
            self._judge_summation(notification, received or notification.time)

    def _judge_device(self, notification: Notification) -> None:
        device = notification.device
        if device and not self._device.accepts(device, lambda known, new: known == new):
            detail = f"device {device}: this stick is {self._device.value}"
            raise PoisonError("other-device", detail)

    def _judge_clock(self, notification: Notification, received: datetime) -> None:
        limit = self._limits.max_clock_skew_s
        if not limit or notification.time is None or received < SANE_HOST_CLOCK:
            return
        ahead_s = (notification.time - received).total_seconds()
        # The others may be old when they come: a price that was set, a text, a cached report.
        fresh = isinstance(
            notification, InstantaneousDemand | CurrentSummationDelivered | TimeCluster
        )
        if ahead_s > limit or (fresh and -ahead_s > limit):
            detail = f"device clock {ahead_s:+.0f} s from the host's: allowed is {limit:.0f} s"
            raise PoisonError("clock-far-off", detail)

    def _judge_demand(self, notification: InstantaneousDemand) -> None:
        limit, demand_kw = self._limits.max_demand_kw, notification.demand_kw
        if limit and demand_kw is not None and abs(demand_kw) > limit:
            detail = f"{demand_kw} kW: allowed is {limit} kW either way"
            raise PoisonError("demand-too-large", detail)

    def _judge_summation(
        self, notification: CurrentSummationDelivered, at: datetime | None
    ) -> None:
        delivered, received = notification.delivered_kwh, notification.received_kwh
        if delivered is None or received is None or at is None:
            return
        register = self._registers.setdefault(notification.meter, _Settling())
        new = _Register(delivered, received, at)
        problem = self._growth(register.value, new)
        if not register.accepts(new, lambda old, new: self._growth(old, new) is None) and problem:
            raise problem

    def _growth(self, old: _Register | None, new: _Register) -> PoisonError | None:
        """Return what is impossible about a register's growth."""
        if old is None:
            return None
        elapsed = max(new.at - old.at, timedelta()) + SLACK
        most = self._limits.max_demand_kw * (elapsed / timedelta(hours=1))
        for name in ("delivered_kwh", "received_kwh"):
            before, after = getattr(old, name), getattr(new, name)
            if after < before:
                detail = f"{name} went down from {before} to {after}"
                return PoisonError("summation-down", detail)
            if most and after - before > most:
                detail = f"{name} jumped from {before} to {after}: allowed is {most:.0f} more"
                return PoisonError("summation-jump", detail)
        return None


class _Settling(Generic[T]):
    """A baseline that moves with what follows it, and gives way to what insists."""

    def __init__(self) -> None:
        self.value: T | None = None
        self._candidate: T | None = None
        self._agreeing = 0

    def accepts(self, new: T, follows: Callable[[T, T], bool]) -> bool:
        """Say whether ``new`` follows the baseline, or settles a new one."""
        if self.value is None or follows(self.value, new):
            self.value, self._candidate = new, None
            return True
        agrees = self._candidate is not None and follows(self._candidate, new)
        self._agreeing = self._agreeing + 1 if agrees else 1
        self._candidate = new
        if self._agreeing < SETTLES_AFTER:
            return False
        self.value, self._candidate = new, None
        return True
