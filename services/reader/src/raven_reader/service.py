"""The reader's service: what a line says, kept in the spool and published."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from queue import Full
from typing import Final, Literal

from prometheus_client import Counter, Gauge

from raven_reader import commands, discovery
from raven_reader.clocks import Clocks
from raven_reader.framing import decoded
from raven_reader.host import is_synchronised
from raven_reader.intake import Accepted, Intake, Outcome, Rejected, Repeated, Waiting
from raven_reader.secrets import mask
from raven_reader.settings import ReaderSettings
from raven_reader.spool import Spool, WaitingFragment
from raven_reader.verdicts import Report
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.logs import Sparse
from ravenbus.messages import (
    DEAD_PAYLOAD_MAX,
    Command,
    DeadLetter,
    Raw,
    Reading,
    Reply,
    Status,
    decode,
    encode,
    now,
)
from ravenbus.metrics import PublisherMetrics
from ravenbus.mqtt import Received
from ravenbus.notifications import DeviceInfo, Notification, PriceCluster, kind_of
from ravenbus.publisher import Publisher
from ravenbus.topics import HOMEASSISTANT_DISCOVERY, LATEST, RAW, REPLY, RUN, STATUS, Topics

log = logging.getLogger(__name__)

SERVICE: Final = "reader"
PENDING_MAX: Final = 10_000
"""Readings held in memory while the disk is full; older ones are then refused."""
KEEP_AGAIN_S: Final = 1.0
"""A full disk is tried again after this; each try costs as much as all that waits."""
LINE_STALL_S: Final = 60.0


class ReaderMetrics(PublisherMetrics):
    """Metrics of what became of the fragments: accepted ones leave the spool as ``taken``."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.fragments = Counter(
            "raven_fragments", "Fragments by what became of them", ["outcome"], registry=registry
        )
        self.rejected = Counter(
            "raven_rejected", "Fragments rejected, by reason", ["reason"], registry=registry
        )
        self.refused = Counter(
            "raven_refused", "Readings lost because the spool had no room", registry=registry
        )
        self.given_up = Counter(
            "raven_given_up",
            "Entries that made room in a full spool before every required store confirmed them",
            registry=registry,
        )
        self.spooled = Gauge(
            "raven_spooled", "Entries that no subscriber took yet", registry=registry
        )
        self.unconfirmed = Gauge(
            "raven_unconfirmed",
            "Entries taken that a required store has not confirmed yet",
            registry=registry,
        )
        self.oldest = Gauge(
            "raven_spooled_oldest_timestamp_seconds",
            "When the oldest entry came that no subscriber took yet, 0 if there is none",
            registry=registry,
        )
        self.heard = Gauge(
            "raven_device_connected", "1 while the stick is heard", registry=registry
        )
        self.waiting = Gauge(
            "raven_waiting",
            "Fragments that contradict what is known, until what follows decides on them",
            registry=registry,
        )
        self.clock_problem = Gauge(
            "raven_clock_problem",
            "1 while a clock is wrong: the stick's (device) or this machine's (host)",
            ["clock"],
            registry=registry,
        )
        self.clock_ahead = Gauge(
            "raven_device_clock_ahead_seconds",
            "How far the stick's clock is ahead of this machine's",
            registry=registry,
        )

    def watch(
        self, depth: Callable[[], tuple[int, float | None]], unconfirmed: Callable[[], int]
    ) -> None:
        """Ask how deep the spool is when somebody asks for the metrics."""
        self.unconfirmed.set_function(unconfirmed)
        self.spooled.set_function(lambda: depth()[0])
        self.oldest.set_function(lambda: depth()[1] or 0)


class Reader:
    """Listens to a line (the line's thread) and answers commands (the publisher's thread)."""

    def __init__(
        self,
        settings: ReaderSettings,
        spool: Spool,
        publisher: Publisher,
        ask: Callable[[bytes], None],
        health: Health,
        metrics: ReaderMetrics,
        *,
        clock: Callable[[], datetime] = now,
        elapsed: Callable[[], float] = time.monotonic,
        synchronised: Callable[[], bool] = is_synchronised,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._publisher = publisher
        self._ask = ask
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._elapsed = elapsed
        self._keep_again_at = 0.0
        self._sparse = Sparse(log)
        self._node = spool.node
        self._topics = Topics(settings.raven_topic_prefix)
        self._intake = Intake(settings.limits, synchronised)
        self._clocks: Clocks | None = None
        self._damaged = 0
        self._pending: deque[tuple[Notification, datetime]] = deque(maxlen=PENDING_MAX)
        self._letters: deque[DeadLetter] = deque(maxlen=PENDING_MAX)
        self._waiting: dict[Report, WaitingFragment] = {}
        self._not_kept: dict[str, WaitingFragment] = {}
        self._decided: list[str] = []
        self._latest: dict[str, bytes] = {}
        self._status: Status | None = None
        self._described: tuple[str, DeviceInfo | None, int | None] | None = None
        self._info: DeviceInfo | None = None
        self._currency: int | None = None

    def begin(self) -> None:
        """Publish what is known from before: the run, and the last reading of each kind."""
        for reading in self._spool.latest():
            self._note(reading.notification)
            self._intake.acceptance.resume(reading.notification)
            self._publish_latest(reading)
        for baseline in self._spool.registers():
            self._intake.acceptance.resume_register(baseline)
        for waiting in self._spool.waiting():
            self._wait_again(waiting)
        self._publish_run()
        self._set_status("disconnected", None, "starting")
        if not self._settings.raven_homeassistant:
            # An empty payload takes away what Home Assistant was told before.
            self._publisher.set_state(
                self._topics.of(HOMEASSISTANT_DISCOVERY, node=self._node), b""
            )

    def end(self) -> None:
        """Say goodbye: a will is not sent when the connection is closed properly."""
        self._keep()
        self._set_status("disconnected", None, "stopped", service="offline")

    # The line's side.

    def opened(self, port: str) -> None:
        """Start over with whatever is plugged in now."""
        log.info("port opened", extra={"port": port})
        self._intake.another_port()
        self._set_status("silent", port, "nothing heard yet")

    def bytes_came(self, data: bytes) -> bool:
        """Keep what is accepted of the bytes; return whether a whole fragment was among them."""
        self._health.ok("line", for_s=LINE_STALL_S)
        outcomes = self._intake.feed(data, self._clock()) if data else []
        for outcome in outcomes:
            self._take(outcome)
        self._count_damaged()
        if self._to_keep and self._elapsed() >= self._keep_again_at:
            self._keep()
        if outcomes:
            self._look_at_clocks()
            port = self._status.port if self._status else None
            self._set_status("connected", port, None)
            self._health.ok("device")
        return bool(outcomes)

    def silent(self, for_s: float) -> None:
        """Say that the device has gone quiet."""
        port = self._status.port if self._status else None
        self._set_status("silent", port, "the device says nothing")
        self._health.failing("device", f"silent for more than {for_s:.0f} s, asking it")

    def lost(self, reason: str) -> None:
        """Say that there is no device."""
        self._health.ok("line", for_s=LINE_STALL_S)
        self._set_status("disconnected", None, reason)
        self._health.failing("device", reason)

    # The bus's side.

    def command(self, message: Received) -> None:
        """Send a command that is allowed to the device, and reply what became of it."""
        name = request_id = None
        try:
            request = decode(message.payload, Command)
            name, request_id = request.name, request.id
            setters = self._settings.raven_allow_setters
            command = commands.write(name, request.parameters, allow_setters=setters)
            if self._status and self._status.device != "disconnected":
                self._ask(command)
                sent, detail = True, "sent to the device; its answer is a reading"
            else:
                sent, detail = False, "no stick is connected"
        except Full:
            sent, detail = False, "too many commands wait already"
        except PoisonError as error:
            sent, detail = False, error.detail
            self._sparse.warning("command refused", error.reason, detail=detail)
        reply = Reply(node=self._node, id=request_id, name=name, sent=sent, detail=detail)
        self._publisher.send_once(self._topics.of(REPLY, node=self._node), encode(reply))

    def homeassistant_status(self, message: Received) -> None:
        """Describe the stick again when Home Assistant starts."""
        if message.payload == b"online" and self._described:
            self._publish_description(*self._described)

    # Helpers of the line's side.

    @property
    def _to_keep(self) -> bool:
        return bool(self._pending or self._letters or self._not_kept or self._decided)

    def _take(self, outcome: Outcome) -> None:
        """Take what became of a fragment: it waits, or it is decided."""
        report = outcome.report
        if isinstance(outcome, Waiting):
            self._wait(outcome.report)
            return
        waiting = self._waiting.pop(report, None) if report else None
        if waiting and not self._not_kept.pop(waiting.id, None):
            self._decided.append(waiting.id)
        self._metrics.waiting.set(len(self._waiting))
        self._metrics.fragments.labels(outcome=type(outcome).__name__.lower()).inc()
        if self._settings.raven_publish_raw:
            self._publish_raw(outcome.raw)
        match outcome:
            case Accepted(report):
                self._accept(report)
            case Repeated(report):
                self._repeat(report.notification)
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
        self._pending.append((report.notification, report.received or self._clock()))
        self._note(report.notification)
        self._describe(report.notification)

    def _note(self, notification: Notification) -> None:
        """Take up what describes the stick."""
        if isinstance(notification, DeviceInfo):
            self._info = notification
        if isinstance(notification, PriceCluster):
            self._currency = notification.currency

    def _publish_raw(self, raw: bytes) -> None:
        fragment = Raw(node=self._node, received=self._clock(), fragment=decoded(mask(raw)))
        self._publisher.send_once(self._topics.of(RAW, node=self._node), encode(fragment))

    def _repeat(self, notification: Notification) -> None:
        """Publish the last reading again, so that nobody takes it for out of date."""
        kind = kind_of(notification)
        if payload := self._latest.get(kind):
            self._publisher.set_state(self._topics.of(LATEST, node=self._node, kind=kind), payload)

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
                node=self._node,
                at=received,
                reason=error.reason,
                detail=error.detail,
                payload=mask(raw)[:DEAD_PAYLOAD_MAX],
                size=len(raw),
            )
        )

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
            )
        except RetryableError as error:
            self._health.failing("spool", str(error))
            self._keep_again_at = self._elapsed() + KEEP_AGAIN_S
            return
        self._health.ok("spool")
        self._pending.clear()
        self._letters.clear()
        self._not_kept.clear()
        self._decided.clear()
        for reading in readings:
            self._publish_latest(reading)
        if self._spool.run.meter != meter:
            self._publish_run()
        self._publisher.wake()

    def _publish_latest(self, reading: Reading) -> None:
        self._latest[reading.kind] = encode(reading)
        topic = self._topics.of(LATEST, node=self._node, kind=reading.kind)
        self._publisher.set_state(topic, self._latest[reading.kind])

    def _publish_run(self) -> None:
        topic = self._topics.of(RUN, node=self._node)
        self._publisher.set_state(topic, encode(self._spool.run))

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

    def _set_status(
        self,
        device: Literal["connected", "silent", "disconnected"],
        port: str | None,
        detail: str | None,
        service: Literal["online", "offline"] = "online",
    ) -> None:
        last = self._status
        same = last and (last.service, last.device, last.port) == (service, device, port)
        status = Status(
            node=self._node,
            service=service,
            device=device,
            since=last.since if last and same else self._clock(),
            port=port,
            detail=detail,
            clock=self._clocks and self._clocks.state,
            clock_ahead_s=self._clocks and self._clocks.ahead_s,
        )
        if status == last:
            return
        self._status = status
        self._metrics.heard.set(device == "connected")
        topic = self._topics.of(STATUS, node=self._node)
        self._publisher.set_state(topic, encode(self._status))

    def _describe(self, notification: Notification) -> None:
        if not self._settings.raven_homeassistant or not notification.device:
            return
        described = notification.device, self._info, self._currency
        if described != self._described:
            self._described = described
            self._publish_description(*described)

    def _publish_description(
        self, device: str, info: DeviceInfo | None, currency: int | None
    ) -> None:
        payload = discovery.payload(self._topics, self._node, device, info, currency)
        self._publisher.set_state(
            self._topics.of(HOMEASSISTANT_DISCOVERY, node=self._node), payload
        )
