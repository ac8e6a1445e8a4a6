"""What homes say of themselves on the bus: the last readings, states, and what stores confirm."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from ravenbus.errors import BrokerAwayError, ContractError, RetryableError
from ravenbus.hearing import Hearing
from ravenbus.messages import Confirmation, Gone, Reading, Run, Status
from ravenbus.mqtt import NETWORK_ENDED, Connect, Connection, Denied, Events, Lost, Received
from ravenbus.ranges import Range, common, count, merged
from ravenbus.retrying import Reconnecting, Retry
from ravenbus.topics import GONE, LATEST, RUN, STATUS, STORED, Topics

log = logging.getLogger(__name__)

HEARD: Final = (LATEST, STATUS, RUN, STORED, GONE)
TURN_S: Final = 1.0
LATEST_MAX: Final = 200
"""Readings that are kept of a home, which may claim any number of meters."""
EXPECTED_S: Final = 60.0
"""Time that the broker has for what it retains of a home that was known before."""


def client_id() -> str:
    """Return a name at the broker that no other dashboard has; nothing is kept under it."""
    return f"raven-dashboard-{uuid.uuid4().hex[:12]}"


@dataclass
class Progress:
    """What a store has confirmed of a home's run under way."""

    caught_up: datetime
    """When it last had all that the home had said."""
    ranges: list[Range] = field(default_factory=list)


@dataclass
class Home:
    """What is known of a node from the bus."""

    node: str
    status: Status | None = None
    run: str | None = None
    """The hash of the run under way."""
    first_seq: int = 0
    """The first number of it that came over this connection as it was sent, 0 for none."""
    last_seq: int = 0
    heard: datetime | None = None
    """When it said a reading last: by our clock, or by its own what the broker had retained."""
    latest: dict[tuple[str, str], Reading] = field(default_factory=dict)
    """The last readings by kind and meter; the meter is empty where a reading names none."""
    stores: dict[str, Progress] = field(default_factory=dict)

    def last(self, kind: str, meter: str | None = None) -> Reading | None:
        """Return the last reading of a kind, of one meter or of any."""
        found = [
            one
            for (of_kind, of_meter), one in list(self.latest.items())
            if of_kind == kind and meter in (None, of_meter)
        ]
        return max(found, key=lambda one: one.envelope.received, default=None)

    def behind(self, store: str) -> int:
        """Return how many of the run's readings a store has not confirmed, of those it is to."""
        if (progress := self.stores.get(store)) is None:
            return 0  # it was said to be gone meanwhile
        ranges = progress.ranges
        first = ranges[0][0] if ranges else self.first_seq
        wanted = [(first, self.last_seq)] if 0 < first <= self.last_seq else []
        return count(wanted) - count(common(wanted, ranges))

    def take(
        self,
        message: Reading | Status | Run | Confirmation,
        now: datetime,
        *,
        retained: bool = False,
    ) -> None:
        """Note what a message says, which the broker may have retained since it was sent."""
        match message:
            case Reading(envelope, notification):
                at = min(now, envelope.received) if retained else now
                self.heard = max(at, self.heard or at)
                known = [one.envelope.received for one in self.latest.values()]
                # What the device says again keeps its number, which may be of a run before.
                if envelope.received >= max(known, default=envelope.received):
                    self._follow(envelope.hash, now)
                if envelope.hash == self.run and envelope.seq > self.last_seq:
                    self.first_seq = self.first_seq or (0 if retained else envelope.seq)
                    self.last_seq = envelope.seq
                self.latest[message.kind, notification.meter or ""] = message
                if len(self.latest) > LATEST_MAX:
                    del self.latest[next(iter(self.latest))]
            case Status():
                self.status = message
            case Run():
                self._follow(message.hash, now)
            case Confirmation(store=store, runs=runs):
                progress = self.stores.setdefault(store, Progress(now))
                if self.run in runs:
                    progress.ranges = merged([*progress.ranges, *runs[self.run]])
        for store, progress in self.stores.items():
            if not self.behind(store):
                progress.caught_up = now

    def _follow(self, run: str, now: datetime) -> None:
        """Begin to count anew where another run is under way."""
        if self.run != run:
            self.run, self.last_seq = run, 0
            self.begin(now)

    def begin(self, now: datetime) -> None:
        """Count anew what stores confirm: on another connection, what they said meanwhile is lost."""
        self.first_seq = 0
        self.stores = {store: Progress(now) for store in self.stores}


Listener = Callable[[Home, Any], None]
"""Called from the feed's thread with each message, and the home that it is of."""


class Feed:
    """Hears the bus until it is told to stop, over a session of which nothing is kept."""

    def __init__(
        self,
        connect: Connect,
        topics: Topics,
        retry: Retry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.homes: dict[str, Home] = {}
        self.away_since: datetime | None = now()
        """Since when the broker is away, None while it is there."""
        self._connect = connect
        self._topics = topics
        self._retry = retry
        self._clock = clock
        self._expected: set[str] = set()
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` from now on; return what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock, suppress(ValueError):
                self._listeners.remove(listener)

        return end

    def home(self, node: str) -> Home:
        """Return what is known of a node, which may be nothing."""
        return self.homes.get(node) or Home(node)

    def expect(self, node: str, stores: Iterable[str]) -> None:
        """Know of a home and its stores before they say anything, until the broker knows no home."""
        self._expected.add(node)
        home = self.homes.setdefault(node, Home(node))
        home.stores |= {store: Progress(now()) for store in stores}

    def run(self) -> None:
        """Hear until the stop; whatever happens to the connection, another is made."""
        stop, reconnecting = self._retry.stop, Reconnecting()
        while not stop.is_set():
            with suppress(RetryableError):
                events: Events = SimpleQueue()
                connection = self._retry("broker", partial(self._subscribed, events))
                began = self._clock()
                try:
                    reason = self._hear(connection, events)
                finally:
                    self._is_connected(False)
                    connection.close()
                if not stop.is_set():
                    self._retry.health.failing("broker", reason + reconnecting.suspicion)
                    stop.wait(reconnecting.pause_s(self._clock() - began))

    def _subscribed(self, events: Events) -> Connection:
        connection = self._connect(events)
        try:
            topics = [self._topics.of(one, node="+", kind="+", store="+") for one in HEARD]
            connection.subscribe(topics)
            connection.settle()
        except BaseException:
            connection.close()
            raise
        return connection

    def _hear(self, connection: Connection, events: Events) -> str:
        """Take what comes until the connection is lost, or a stop; return the reason."""
        for home in self.homes.values():
            home.begin(now())
        self._is_connected(True)
        hearing = Hearing(connection, self._topics, self._clock)
        forget_at = self._clock() + EXPECTED_S
        while not self._retry.stop.is_set():
            self._retry.health.beat()
            if self._expected and self._clock() > forget_at:
                for node in self._expected:
                    self.homes.pop(node, None)
                self._expected.clear()
            try:
                event = events.get(timeout=TURN_S)
            except Empty:
                if not connection.alive():
                    return NETWORK_ENDED.detail
                try:
                    hearing.ask_if_silent()
                except BrokerAwayError as error:
                    return str(error)
                continue
            match event:
                case Received():
                    hearing.heard()
                    connection.acknowledge([event])
                    self._take(event)
                case Lost(detail) | Denied(detail):
                    return detail
        return "stopped"

    def _take(self, received: Received) -> None:
        """Note a message; one that is none of the contract's is passed over."""
        try:
            channel = self._topics.channel(received.topic)
            if not received.payload:
                # What was retained is removed: of a store that is back, or of a home that is gone.
                if channel is STATUS:
                    self.homes.pop(self._topics.names(channel, received.topic)["node"], None)
                return
            message = self._topics.read(channel, received.topic, received.payload)
        except ContractError as error:
            log.debug("passed over", extra={"topic": received.topic, "reason": str(error)})
            return
        if isinstance(message, Gone):
            for home in self.homes.values():
                home.stores.pop(message.store, None)
            return
        self._expected.discard(message.node)
        home = self.homes.setdefault(message.node, Home(message.node))
        home.take(message, now(), retained=received.retained)
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(home, message)

    def _is_connected(self, connected: bool) -> None:
        self.away_since = None if connected else now()


def now() -> datetime:
    """Return the host's clock in UTC."""
    return datetime.now(UTC)
