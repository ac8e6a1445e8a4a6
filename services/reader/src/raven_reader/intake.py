"""From bytes to what the reader makes of them: framing, decoding, clocks and acceptance in a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec

from raven_reader.acceptance import Acceptance, Limits
from raven_reader.clocks import ClockJudge, Clocks
from raven_reader.decoding import decode
from raven_reader.framing import Counts, Fragment, Parser
from raven_reader.verdicts import Decision, Impossible, Report
from ravenbus.errors import PoisonError
from ravenbus.notifications import IntervalChannel, ProfileData


@dataclass(frozen=True)
class _Reported:
    report: Report

    @property
    def raw(self) -> bytes:
        """The fragment's bytes."""
        return self.report.raw


class Accepted(_Reported):
    """A report to publish."""


class Repeated(_Reported):
    """A cached report that the device sent again unchanged."""


class Waiting(_Reported):
    """A report that contradicts what is known: it is accepted or rejected later."""


class Rejected(NamedTuple):
    """A whole fragment that cannot be used, and why; ``report`` is None if it says nothing."""

    error: PoisonError
    raw: bytes
    received: datetime | None
    report: Report | None = None


Outcome = Accepted | Repeated | Waiting | Rejected


class Intake:
    """Takes the bytes of one serial line.

    ``is_synchronised`` says whether a time server keeps the host's clock, ``channel_asked`` which
    channel the intervals that have come are of.
    """

    def __init__(
        self,
        limits: Limits,
        is_synchronised: Callable[[], bool] = lambda: True,
        channel_asked: Callable[[], IntervalChannel | None] = lambda: None,
    ) -> None:
        self.acceptance = Acceptance(limits)
        self._clocks = ClockJudge(limits.max_clock_skew_s, is_synchronised)
        self._channel_asked = channel_asked
        self._parser = Parser()

    @property
    def counts(self) -> Counts:
        """Counts of what the framing has met."""
        return self._parser.counts

    @property
    def clocks(self) -> Clocks | None:
        """State of the device's clock and the host's; None while the device's has not shown."""
        return self._clocks.clocks

    def feed(self, piece: bytes, received: datetime | None) -> list[Outcome]:
        """Take bytes and say what became of each fragment that they completed, or that waited.

        ``received`` is None where the bytes are not from now, as in a file: the device's clock
        and repetitions are then not judged.
        """
        return [
            outcome
            for fragment in self._parser.feed(piece)
            for outcome in self._outcomes(fragment, received)
        ]

    def finish(self) -> list[Rejected]:
        """Reject what waits: nothing follows that could decide on it."""
        return [
            Rejected(error, report.raw, report.received, report)
            for report, error in self.acceptance.finish()
        ]

    def another_port(self) -> None:
        """Start over with another stick, or the same one after a gap."""
        self._parser.restart()
        self.acceptance.another_port()

    def _outcomes(self, fragment: Fragment, received: datetime | None) -> list[Outcome]:
        try:
            notification = decode(fragment)
        except PoisonError as error:
            return [Rejected(error, fragment.raw, received)]
        if isinstance(notification, ProfileData):
            channel = self._channel_asked()
            notification = msgspec.structs.replace(notification, interval_channel=channel)
        if received:
            if self.acceptance.is_repeat(notification):
                return [Repeated(Report(notification, fragment.raw, received))]
            notification = self._clocks.judge(notification, received)
        report = Report(notification, fragment.raw, received)
        decisions = self.acceptance.judge(report)
        outcomes: list[Outcome] = [self._decided(decision) for decision in decisions]
        if all(decision.report is not report for decision in decisions):
            outcomes.append(Waiting(report))
        return outcomes

    def _decided(self, decision: Decision) -> Accepted | Repeated | Rejected:
        report = decision.report
        if isinstance(decision, Impossible):
            return Rejected(decision.error, report.raw, report.received, report)
        # While it waited, the device may have sent it again.
        if report.received and self.acceptance.is_repeat(report.notification):
            return Repeated(report)
        self.acceptance.remember(report.notification)
        return Accepted(report)
