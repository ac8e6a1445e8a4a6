"""The reader as a node on the bus: what it tells of itself there, and the commands it answers."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from queue import Full
from typing import Final, Literal

import msgspec

from raven_reader import commands, discovery
from raven_reader.clocks import Clocks
from raven_reader.discovery import Described
from raven_reader.framing import decoded
from raven_reader.outbox import Backlog
from raven_reader.rhythm import USUAL_S, Rhythm
from raven_reader.secrets import mask
from raven_reader.settings import ReaderSettings
from ravenbus import __version__
from ravenbus.errors import PoisonError
from ravenbus.logs import Sparse
from ravenbus.messages import (
    Command,
    Raw,
    Reading,
    Reply,
    Run,
    Status,
    decode,
    encode,
    encode_latest,
    now,
)
from ravenbus.mqtt import Received, Will
from ravenbus.notifications import KINDS, DeviceInfo, Notification, PriceCluster, kind_of
from ravenbus.publisher import Publisher
from ravenbus.topics import HOMEASSISTANT_DISCOVERY, LATEST, RAW, REPLY, RUN, STATUS, Topics

log = logging.getLogger(__name__)

MIGRATION_S: Final = 5.0
"""Time that Home Assistant has to let go of the sensors of a former name."""


def will(topics: Topics, node: str, started: datetime) -> Will:
    """Return the status that the broker publishes when the connection is lost."""
    detail = "connection lost; the reader had started at the time given"
    gone = Status(
        node=node,
        service="offline",
        device="disconnected",
        since=started,
        detail=detail,
        version=__version__,
    )
    return Will(topics.of(STATUS, node=node), encode(gone))


class Node:
    """Tells what is known of the stick (the line's thread), answers commands (the publisher's)."""

    def __init__(
        self,
        name: str,
        settings: ReaderSettings,
        publisher: Publisher,
        ask: Callable[[bytes], None],
        *,
        clock: Callable[[], datetime] = now,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._settings = settings
        self._publisher = publisher
        self._ask = ask
        self._clock = clock
        self._elapsed = elapsed
        self._sparse = Sparse(log)
        self._topics = settings.topics
        self._latest: dict[str, tuple[Reading, datetime]] = {}
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._backlog = Backlog(None, None)
        self._former: dict[str, Callable[[], None]] = {}
        self._migrating: set[str] = set()
        self._describe_at = 0.0
        self._described: Described | None = None
        self._identity: str | None = None
        self._stick: str | None = None
        self._info: DeviceInfo | None = None
        self._currency: int | None = None
        usual_s = {**USUAL_S, "connection_status": math.ceil(settings.raven_link_ask_s)}
        written_s = math.ceil(settings.raven_write_every_s)
        self._rhythm = Rhythm({kind: max(one_s, written_s) for kind, one_s in usual_s.items()})

    # The line's side.

    def begin(self, run: Run, latest: Iterable[Reading], identity: str | None) -> None:
        """Publish what is known from before: the run, and the last reading of each kind.

        ``identity`` is what Home Assistant knows the meter by.
        """
        self.set_run(run)
        self._identity = identity
        for reading in sorted(latest, key=lambda reading: reading.envelope.received):
            self._note(reading.notification)
            self.set_latest(reading)
        self._describe()
        if not self._settings.raven_homeassistant:
            # An empty payload takes away what Home Assistant was told before.
            self._publisher.set_state(
                self._topics.of(HOMEASSISTANT_DISCOVERY, node=self._name), b""
            )

    def leave(self, former: str, left: Callable[[], None]) -> None:
        """Remove what is retained under a former name; ``left`` is called once that is done.

        Home Assistant knows a sensor by one topic at a time: it is told to let go of the former one,
        has some time for that, and only then hears of the new one.
        """
        for kind in KINDS:
            self._publisher.set_state(self._topics.of(LATEST, node=former, kind=kind), b"")
        for channel in (RUN, STATUS):
            self._publisher.set_state(self._topics.of(channel, node=former), b"")
        topic = self._topics.of(HOMEASSISTANT_DISCOVERY, node=former)
        if not self._settings.raven_homeassistant:
            # There is nowhere to go to: what Home Assistant let go of would stay for ever.
            self._publisher.set_state(topic, b"", partial(_if_done, left))
            return
        self._former[former] = left
        self._migrating.add(former)
        self._publisher.set_state(topic, discovery.MIGRATE, partial(self._migrates, former))

    def set_run(self, run: Run) -> None:
        """Publish the run under way."""
        self._publisher.set_state(self._topics.of(RUN, node=self._name), encode(run))

    def set_latest(self, reading: Reading) -> None:
        """Publish the last reading of its kind."""
        self._latest[reading.kind] = reading, reading.envelope.received
        self._publish_latest(reading.kind)

    def refresh(self, notification: Notification) -> None:
        """Publish that the last reading was said again, so that nobody takes it for out of date."""
        kind, at = kind_of(notification), self._clock()
        self._rhythm.heard(notification, at)
        if kind in self._latest:
            self._latest[kind] = self._latest[kind][0], at
            self._publish_latest(kind)
        self._describe()

    def opened(self) -> None:
        """Expect nothing by what came over another port."""
        self._rhythm.pause()

    def set_status(
        self,
        device: Literal["connected", "silent", "disconnected"],
        port: str | None,
        detail: str | None,
        clocks: Clocks | None,
        service: Literal["online", "offline"] = "online",
    ) -> None:
        """Publish a status that is another one; its time stays while only the reason changes."""
        with self._lock:
            last = self._status
            same = last and (last.service, last.device, last.port) == (service, device, port)
            status = Status(
                node=self._name,
                service=service,
                device=device,
                since=last.since if last and same else self._clock(),
                port=port,
                detail=detail,
                clock=clocks and clocks.state,
                clock_ahead_s=clocks and clocks.ahead_s,
                version=__version__,
                waiting=self._backlog.waiting,
                behind=self._backlog.behind,
            )
            self._publish_status(status)

    def describe(self, reading: Reading, identity: str | None) -> None:
        """Publish a reading as the last of its kind, and to Home Assistant what it says of the meter."""
        self.set_latest(reading)
        self._identity = identity
        self._note(reading.notification)
        self._rhythm.heard(reading.notification, reading.envelope.received)
        self._describe()

    def send_raw(self, raw: bytes) -> None:
        """Publish a fragment as it came, its secrets masked, where that is asked for."""
        if self._settings.raven_publish_raw:
            fragment = Raw(node=self._name, received=self._clock(), fragment=decoded(mask(raw)))
            self._publisher.send_once(self._topics.of(RAW, node=self._name), encode(fragment))

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
        reply = Reply(node=self._name, id=request_id, name=name, sent=sent, detail=detail)
        self._publisher.send_once(self._topics.of(REPLY, node=self._name), encode(reply))

    def set_backlog(self, backlog: Backlog) -> None:
        """Publish what has yet to reach the stores."""
        with self._lock:
            self._backlog = backlog
            if self._status:
                self._publish_status(msgspec.structs.replace(self._status, **backlog._asdict()))

    def homeassistant_status(self, message: Received) -> None:
        """Describe the meter again when Home Assistant starts."""
        if message.payload == b"online":
            self._publish_description()

    def _note(self, notification: Notification) -> None:
        """Take up what describes the meter and its stick."""
        self._rhythm.note(notification)
        self._stick = notification.device or self._stick
        if isinstance(notification, DeviceInfo):
            self._info = notification
        if isinstance(notification, PriceCluster):
            self._currency = notification.currency or 0

    def _publish_latest(self, kind: str) -> None:
        topic = self._topics.of(LATEST, node=self._name, kind=kind)
        self._publisher.set_state(topic, encode_latest(*self._latest[kind]))

    def _publish_status(self, status: Status) -> None:
        if status != self._status:
            self._status = status
            self._publisher.set_state(self._topics.of(STATUS, node=self._name), encode(status))

    def _migrates(self, former: str, _: bool) -> None:
        """Hear that Home Assistant was told to let go of a former name, or that nobody can tell it."""
        self._describe_at = self._elapsed() + MIGRATION_S
        self._migrating.discard(former)

    def _describe(self) -> None:
        """Describe the meter to Home Assistant if there is something new to say."""
        if self._migrating or self._elapsed() < self._describe_at:
            return
        self._describe_anew()
        while self._former:
            former, left = self._former.popitem()
            topic = self._topics.of(HOMEASSISTANT_DISCOVERY, node=former)
            self._publisher.set_state(topic, b"", partial(_if_done, left))

    def _describe_anew(self) -> None:
        if not (self._settings.raven_homeassistant and self._identity and self._stick):
            return
        described = Described(
            node=self._name,
            name=self._settings.raven_name or f"Smart meter {self._name}",
            identity=self._identity,
            stick=self._stick,
            info=self._info,
            currency=self._currency,
            intervals_s=self._rhythm.intervals_s(),
            dashboard_url=self._settings.raven_dashboard_url,
        )
        if described != self._described:
            self._described = described
            self._publish_description()

    def _publish_description(self) -> None:
        if self._described:
            payload = discovery.payload(self._topics, self._described)
            self._publisher.set_state(
                self._topics.of(HOMEASSISTANT_DISCOVERY, node=self._name), payload
            )
            # A sensor that is described anew has no value until it hears one.
            for kind in list(self._latest):
                self._publish_latest(kind)


def _if_done(then: Callable[[], None], done: bool) -> None:
    if done:
        then()
