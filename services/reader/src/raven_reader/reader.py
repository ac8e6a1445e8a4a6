"""The reader: what a line says, judged and kept in the spool."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Sized
from datetime import datetime
from typing import Final, Literal

from raven_reader.acceptance import Limits
from raven_reader.backfill import Backfill
from raven_reader.clocks import Clocks
from raven_reader.host import is_synchronised
from raven_reader.intake import Accepted, Intake, Outcome, Rejected, Repeated, Waiting
from raven_reader.metrics import ReaderMetrics
from raven_reader.node import Node
from raven_reader.secrets import mask
from raven_reader.spool import Spool, WaitingFragment
from raven_reader.verdicts import Report
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.logs import Sparse
from ravenbus.messages import DEAD_PAYLOAD_MAX, DeadLetter, now
from ravenbus.notifications import Notification

log = logging.getLogger(__name__)

SERVICE: Final = "reader"
PENDING_MAX: Final = 10_000
"""Readings held in memory while the disk is full; older ones are then refused."""
GATHERED_MAX: Final = 1000
"""As many are written at once, however long it is to the next write."""
KEEP_AGAIN_S: Final = 1.0
"""A full disk is tried again after this; each try costs as much as all that waits."""
LINE_STALL_S: Final = 60.0


class Reader:
    """Listens to a line, keeps what is accepted of it, and tells the node what is new.

    What came is kept ``every_s``, at once if that is 0; ``on_kept`` is called when there is more
    in the spool.
    """

    def __init__(
        self,
        limits: Limits,
        spool: Spool,
        node: Node,
        health: Health,
        metrics: ReaderMetrics,
        on_kept: Callable[[], None],
        *,
        every_s: float = 0.0,
        clock: Callable[[], datetime] = now,
        elapsed: Callable[[], float] = time.monotonic,
        synchronised: Callable[[], bool] = is_synchronised,
    ) -> None:
        self._spool = spool
        self._node = node
        self._health = health
        self._metrics = metrics
        self._on_kept = on_kept
        self._clock = clock
        self._elapsed = elapsed
        self._every_s = every_s
        self._keep_at = 0.0
        self._sparse = Sparse(log)
        self._backfill = Backfill(clock=clock, elapsed=elapsed)
        self._intake = Intake(limits, synchronised, self._backfill.answered)
        self._port: str | None = None
        self._clocks: Clocks | None = None
        self._damaged = 0
        self._pending: deque[tuple[Notification, datetime]] = deque(maxlen=PENDING_MAX)
        self._letters: deque[DeadLetter] = deque(maxlen=PENDING_MAX)
        self._waiting: dict[Report | None, WaitingFragment] = {}
        self._not_kept: dict[str, WaitingFragment] = {}
        self._decided: list[str] = []

    def begin(self) -> None:
        """Go on from what is known from before."""
        latest = self._spool.latest()
        self._node.begin(self._spool.run, latest, self._spool.identity)
        for reading in latest:
            self._intake.acceptance.resume(reading.notification)
        registers = self._spool.registers()
        for baseline in registers:
            self._intake.acceptance.resume_register(baseline)
        self._backfill.resume(self._spool.wanted(), registers)
        for waiting in self._spool.waiting():
            self._wait_again(waiting)
        self._set_status("disconnected", "starting")

    def end(self) -> None:
        """Say goodbye: a will is not sent when the connection is closed properly."""
        self._keep()
        self._port = None
        self._set_status("disconnected", "stopped", service="offline")

    def opened(self, port: str) -> None:
        """Start over with whatever is plugged in now."""
        log.info("port opened", extra={"port": port})
        self._intake.another_port()
        self._node.opened()
        self._port = port
        self._set_status("silent", "nothing heard yet")

    def bytes_came(self, data: bytes) -> bool:
        """Keep what is accepted of the bytes; return whether a whole fragment was among them."""
        self._health.ok("line", for_s=LINE_STALL_S)
        outcomes = self._intake.feed(data, self._clock()) if data else []
        for outcome in outcomes:
            self._take(outcome)
        self._count_damaged()
        if self._to_keep and self._elapsed() >= self._keep_at:
            self._keep()
        if outcomes:
            self._look_at_clocks()
            self._set_status("connected", None)
            self._health.ok("device")
        return bool(outcomes)

    def silent(self, for_s: float) -> None:
        """Say that the device has gone quiet."""
        self._set_status("silent", "the device says nothing")
        self._health.failing("device", f"silent for more than {for_s:.0f} s, asking it")

    def lost(self, reason: str) -> None:
        """Say that there is no device."""
        self._health.ok("line", for_s=LINE_STALL_S)
        self._port = None
        self._set_status("disconnected", reason)
        self._health.failing("device", reason)

    def next_command(self) -> bytes | None:
        """Return a question for intervals that are missing, if it is time for one."""
        return self._backfill.next_command()

    def command_sent(self, command: bytes) -> None:
        """Note what the device was asked."""
        self._backfill.command_sent(command)

    def _set_status(
        self,
        device: Literal["connected", "silent", "disconnected"],
        detail: str | None,
        service: Literal["online", "offline"] = "online",
    ) -> None:
        self._metrics.heard.set(device == "connected")
        self._node.set_status(device, self._port, detail, self._clocks, service)

    @property
    def _to_keep(self) -> bool:
        return bool(
            self._pending
            or self._letters
            or self._not_kept
            or self._decided
            or self._backfill.changed
        )

    def _take(self, outcome: Outcome) -> None:
        """Take what became of a fragment: it waits, or it is decided."""
        if isinstance(outcome, Waiting):
            self._wait(outcome.report)
            return
        waiting = self._waiting.pop(outcome.report, None)
        if waiting and not self._not_kept.pop(waiting.id, None):
            self._decided.append(waiting.id)
        self._metrics.waiting.set(len(self._waiting))
        self._metrics.fragments.labels(outcome=type(outcome).__name__.lower()).inc()
        self._node.send_raw(outcome.raw)
        match outcome:
            case Accepted(report):
                self._accept(report)
            case Repeated(report):
                self._node.refresh(report.notification)
                self._backfill.heard(report.notification, report.received or self._clock())
            case Rejected(error, raw, received):
                self._reject(error, raw, received or self._clock())

    def _wait(self, report: Report) -> None:
        """Keep a report on disk until it is decided on."""
        waiting = WaitingFragment(
            uuid.uuid4().hex, report.received or self._clock(), mask(report.raw)
        )
        self._waiting[report] = self._not_kept[waiting.id] = waiting
        self._metrics.waiting.set(len(self._waiting))

    def _wait_again(self, waiting: WaitingFragment) -> None:
        """Judge anew what waited before a restart."""
        self._decided.append(waiting.id)
        for outcome in self._intake.feed(waiting.fragment, waiting.at):
            self._take(outcome)

    def _accept(self, report: Report) -> None:
        if len(self._pending) == PENDING_MAX:
            self._metrics.refused.inc()
        received = report.received or self._clock()
        self._pending.append((report.notification, received))
        self._keep_if_many(self._pending)
        self._backfill.heard(report.notification, received)

    def _reject(self, error: PoisonError, raw: bytes, received: datetime) -> None:
        self._metrics.rejected.labels(reason=error.reason).inc()
        self._sparse.warning("fragment rejected", error.reason, detail=error.detail)
        if error.reason == "unknown-kind":
            return
        if len(self._letters) == PENDING_MAX:
            self._metrics.refused.inc()
        self._letters.append(
            DeadLetter(
                id=uuid.uuid4().hex,
                service=SERVICE,
                node=self._spool.node,
                at=received,
                reason=error.reason,
                detail=error.detail,
                payload=mask(raw)[:DEAD_PAYLOAD_MAX],
                size=len(raw),
            )
        )
        self._keep_if_many(self._letters)

    def _keep_if_many(self, gathered: Sized) -> None:
        if len(gathered) == GATHERED_MAX:
            self._keep_at = 0.0

    def _count_damaged(self) -> None:
        damaged = self._intake.counts.damaged - self._damaged
        if damaged:
            self._damaged += damaged
            self._metrics.fragments.labels(outcome="damaged").inc(damaged)
            log.debug("fragments damaged", extra={"count": damaged})

    def _keep(self) -> None:
        """Put what is pending in the spool; what the disk has no room for stays pending."""
        meter = self._spool.run.meter
        try:
            readings = self._spool.accept(
                list(self._pending),
                list(self._letters),
                list(self._not_kept.values()),
                self._decided,
                self._backfill.changed,
            )
        except RetryableError as error:
            self._health.failing("spool", str(error))
            self._keep_at = self._elapsed() + KEEP_AGAIN_S
            return
        self._keep_at = self._elapsed() + self._every_s
        self._health.ok("spool")
        self._pending.clear()
        self._letters.clear()
        self._not_kept.clear()
        self._decided.clear()
        self._backfill.kept()
        for reading in readings:
            self._node.describe(reading, self._spool.identity)
        if self._spool.run.meter != meter:
            self._node.set_run(self._spool.run)
        self._on_kept()

    def _look_at_clocks(self) -> None:
        """Say which clock is wrong when that begins and when it ends."""
        clocks = self._intake.clocks
        if clocks is None:
            return
        if clocks.ahead_s is not None:
            self._metrics.clock_ahead.set(clocks.ahead_s)
        if self._clocks and self._clocks.state == clocks.state:
            return
        self._clocks = clocks
        self._metrics.clock_problem.labels(clock="device").set(clocks.state in ("unset", "off"))
        self._metrics.clock_problem.labels(clock="host").set(clocks.state == "host-behind")
        if clocks.problem:
            self._health.failing("clock", clocks.problem)
        else:
            self._health.ok("clock")
