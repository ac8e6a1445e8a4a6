"""The reader as a node on the bus: what it tells of itself there, and the commands it answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from queue import Full
from typing import Literal

from raven_reader import commands, discovery
from raven_reader.clocks import Clocks
from raven_reader.framing import decoded
from raven_reader.secrets import mask
from raven_reader.settings import ReaderSettings
from ravenbus import __version__
from ravenbus.errors import PoisonError
from ravenbus.logs import Sparse
from ravenbus.messages import Command, Raw, Reading, Reply, Run, Status, decode, encode, now
from ravenbus.mqtt import Received, Will
from ravenbus.notifications import DeviceInfo, Notification, PriceCluster
from ravenbus.publisher import Publisher
from ravenbus.topics import HOMEASSISTANT_DISCOVERY, LATEST, RAW, REPLY, RUN, STATUS, Topics

log = logging.getLogger(__name__)


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
    ) -> None:
        self._name = name
        self._settings = settings
        self._publisher = publisher
        self._ask = ask
        self._clock = clock
        self._sparse = Sparse(log)
        self._topics = Topics(settings.raven_topic_prefix)
        self._latest: dict[str, bytes] = {}
        self._status: Status | None = None
        self._described: tuple[str, DeviceInfo | None, int | None] | None = None
        self._info: DeviceInfo | None = None
        self._currency: int | None = None

    # The line's side.

    def begin(self, run: Run, latest: Iterable[Reading]) -> None:
        """Publish what is known from before: the run, and the last reading of each kind."""
        for reading in latest:
            self._note(reading.notification)
            self.set_latest(reading)
        self.set_run(run)
        if not self._settings.raven_homeassistant:
            # An empty payload takes away what Home Assistant was told before.
            self._publisher.set_state(
                self._topics.of(HOMEASSISTANT_DISCOVERY, node=self._name), b""
            )

    def set_run(self, run: Run) -> None:
        """Publish the run under way."""
        self._publisher.set_state(self._topics.of(RUN, node=self._name), encode(run))

    def set_latest(self, reading: Reading) -> None:
        """Publish the last reading of its kind."""
        self._latest[reading.kind] = encode(reading)
        self.refresh(reading.kind)

    def refresh(self, kind: str) -> None:
        """Publish the last reading again, so that nobody takes it for out of date."""
        if payload := self._latest.get(kind):
            self._publisher.set_state(self._topics.of(LATEST, node=self._name, kind=kind), payload)

    def set_status(
        self,
        device: Literal["connected", "silent", "disconnected"],
        port: str | None,
        detail: str | None,
        clocks: Clocks | None,
        service: Literal["online", "offline"] = "online",
    ) -> None:
        """Publish a status that is another one; its time stays while only the reason changes."""
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
        )
        if status != last:
            self._status = status
            self._publisher.set_state(self._topics.of(STATUS, node=self._name), encode(status))

    def describe(self, notification: Notification) -> None:
        """Describe the stick to Home Assistant when a notification says something new of it."""
        self._note(notification)
        if self._settings.raven_homeassistant and notification.device:
            described = notification.device, self._info, self._currency
            if described != self._described:
                self._described = described
                self._publish_description()

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

    def homeassistant_status(self, message: Received) -> None:
        """Describe the stick again when Home Assistant starts."""
        if message.payload == b"online":
            self._publish_description()

    def _note(self, notification: Notification) -> None:
        """Take up what describes the stick."""
        if isinstance(notification, DeviceInfo):
            self._info = notification
        if isinstance(notification, PriceCluster):
            self._currency = notification.currency

    def _publish_description(self) -> None:
        if self._described:
            payload = discovery.payload(self._topics, self._name, *self._described)
            self._publisher.set_state(
                self._topics.of(HOMEASSISTANT_DISCOVERY, node=self._name), payload
            )
