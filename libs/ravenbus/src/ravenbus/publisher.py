"""The publishing half: from an Outbox to a broker, where only a PUBACK says an entry is taken.

Reason 0 says so.  Reason 16 (nobody subscribes) and every refusal (0x80 and above) keep it,
and the entries behind it go on.  What the account may not write is said by its topic, once when
that begins and once when it ends.  An entry is published at most once in a connection; what was
kept is published again in the next one, which the publisher opens by itself: soon after a
subscriber has come, and otherwise after a wait that doubles.  So it does where an answer does not
come: a node that is cut off from its cluster answers a ping and no more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from tenacity.wait import wait_base

from ravenbus.confirming import StoreListener
from ravenbus.errors import BrokerAwayError, RetryableError
from ravenbus.health import Health
from ravenbus.logs import Sparse
from ravenbus.messages import Confirmation
from ravenbus.metrics import PublisherMetrics
from ravenbus.mqtt import (
    NETWORK_ENDED,
    NO_SUBSCRIBERS,
    NOT_AUTHORIZED,
    REFUSED,
    Connect,
    Connection,
    Denied,
    Event,
    Events,
    Lost,
    Published,
    Received,
    Wake,
    matches,
    puback_name,
)
from ravenbus.retrying import DEFAULT_WAIT, Reconnecting, Retry
from ravenbus.topics import GONE, RUN, STORED, Topics

log = logging.getLogger(__name__)

TICK_S = 1.0
TAKEN_OVER_PAUSE_S = 60.0
"""Two publishers with one client id would otherwise throw each other out without end."""
FIRST_RETRY_S = 15.0
LONGEST_RETRY_S = 900.0
SUBSCRIBER_CAME_S = 2.0
"""Age that a connection reaches before it is renewed for a subscriber that came."""
PREFETCH = 500
ANSWER_S = 60.0
"""Longest time that something may be without a PUBACK while no entry is taken either.

A broker that has much to do answers late, and would have as much again to do for who left it.
"""
UNANSWERED = Lost("the broker does not answer what was published", taken_over=False)
FORBIDDEN_MAX = 100
"""Topics that are named of those that the account may not write."""
DRAIN_S = 5.0
ONCE_MAX = 1000


class Entry(NamedTuple):
    """One message of an outbox; ``key`` grows and is never used again."""

    key: int
    topic: str
    payload: bytes


class Outbox(Protocol):
    """Queue of entries that wait until subscribers have them; it survives the process.

    Every call but ``begin`` raises RetryableError if it is not possible now.
    """

    def begin(self) -> None:
        """Begin a connection, in which what nobody took may be tried again."""

    def tend(self) -> None:
        """Do what is due by now: forget what is done with, and have sent again what was lost.

        Called each time before entries are asked for.
        """

    def entries(self, after: int, limit: int) -> list[Entry]:
        """Return at most ``limit`` entries to send, in order of their keys, all above ``after``."""

    def taken(self, keys: list[int]) -> None:
        """Send entries no more: each was taken by a subscriber.

        What stores must confirm is kept until they do, and comes again under another key if they
        do not.
        """

    def kept(self, keys: list[int]) -> None:
        """Hear that nobody took entries, or that they were refused."""

    def forbidden(self, topics: frozenset[str]) -> None:
        """Hear to which topics nothing may be sent, as far as this connection has shown.

        It is called before entries that were refused are ``kept``.
        """

    def confirmed(self, said: Confirmation) -> None:
        """Note what a store has; raise PoisonError for a store that cannot be one."""

    def gone(self, stores: frozenset[str]) -> None:
        """Hear which stores are gone for good, as far as somebody said so."""


class Publisher:
    """Publishes an outbox, and retained state beside it, over one connection after another.

    ``wake``, ``set_state`` and ``send_once`` may be called from any thread; ``run`` is the main
    loop.
    ``window`` bounds the messages without a PUBACK; the broker may ask for less.
    The outbox is asked each ``tick_s`` seconds even if nobody wakes the loop.
    """

    def __init__(
        self,
        connect: Connect,
        outbox: Outbox,
        health: Health,
        metrics: PublisherMetrics,
        *,
        window: int = 100,
        tick_s: float = TICK_S,
        wait: wait_base = DEFAULT_WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._outbox = outbox
        self._health = health
        self._metrics = metrics
        self._window = window
        self._tick_s = tick_s
        self._subscriptions: dict[str, tuple[Callable[[Received], None], bool]] = {}
        self._wait = wait
        self._clock = clock
        self._sparse = Sparse(log)
        self._lock = threading.Lock()
        self._state: dict[str, bytes] = {}
        self._answers: dict[str, Callable[[bool], None]] = {}
        self._unsent_state: dict[str, None] = {}
        self._once: deque[tuple[str, bytes]] = deque(maxlen=ONCE_MAX)
        self._events: Events = SimpleQueue()
        self._retained_at: str | None = None
        self._retry_s = FIRST_RETRY_S
        self._unheard = False
        self._forbidden: set[str] = set()
        self._taken: list[int] = []
        self._kept: list[int] = []

    def subscribe(
        self, topic_filter: str, handle: Callable[[Received], None], *, retained: bool = False
    ) -> None:
        """Have what is sent to topics handled on the main loop; called before ``run``.

        Retained messages are passed over unless they are asked for.
        """
        self._subscriptions[topic_filter] = handle, retained

    def hear_stores(self, topics: Topics, nodes: Iterable[str]) -> None:
        """Tell the outbox what stores confirm of nodes, ``+`` for every one, and who is gone.

        A store that comes is told the nodes' runs again: RabbitMQ (4.3) gives what is retained to
        nobody who subscribes with a wildcard.
        """
        listener = StoreListener(topics, self._outbox)
        runs: list[str] = []
        for node in nodes:
            self.subscribe(topics.of(STORED, node=node, store="+"), listener.confirmed)
            runs.append(topics.of(RUN, node=node))

        def gone(message: Received) -> None:
            listener.gone(message)
            if not message.payload:
                with self._lock:
                    self._unsent_state |= dict.fromkeys(t for t in runs if t in self._state)

        self.subscribe(topics.of(GONE, store="+"), gone, retained=True)

    def wake(self) -> None:
        """Say that the outbox has more, or that ``stop`` was set."""
        # An event that still waits wakes the loop too; while the broker is away nobody takes any.
        if self._events.empty():
            self._events.put(Wake())

    def set_state(
        self, topic: str, payload: bytes, answered: Callable[[bool], None] | None = None
    ) -> None:
        """Retain ``payload`` at ``topic``, and again whenever a connection was lost.

        What is empty removes what is retained, once.  ``answered`` is told on the main loop whether
        the broker did it.
        """
        with self._lock:
            if answered:
                self._answers[topic] = answered
            self._state[topic] = payload
            self._unsent_state[topic] = None
        self.wake()

    def send_once(self, topic: str, payload: bytes) -> None:
        """Publish something that nobody needs later: it is not kept, nor sent again."""
        with self._lock:
            self._once.append((topic, payload))
        self.wake()

    def run(self, stop: threading.Event) -> None:
        """Publish until ``stop`` is set, then drain what is in flight."""
        reconnecting = Reconnecting()
        retry = Retry(self._health, stop, self._wait)
        while not stop.is_set():
            self._events = SimpleQueue()
            try:
                connection = retry("broker", self._open)
            except BrokerAwayError:
                return
            if connection.at != self._retained_at:
                # Who was away may have lost what was retained, and each of a cluster may have its own.
                with self._lock:
                    self._unsent_state = dict.fromkeys(self._state)
                    self._once.clear()
            log.info("connected to the broker")
            self._metrics.connected.set(1)
            opened_at = self._clock()
            lost = self._serve(connection, stop)
            self._metrics.connected.set(0)
            connection.close()
            self._retained_at = None if lost else connection.at
            if lost:
                pause_s = reconnecting.pause_s(self._clock() - opened_at)
                reason = f"connection lost: {lost.detail}{reconnecting.suspicion}"
                self._health.failing("broker", reason)
                stop.wait(TAKEN_OVER_PAUSE_S if lost.taken_over else pause_s)

    def _open(self) -> Connection:
        try:
            return self._connect(self._events)
        except BrokerAwayError:
            self._retained_at = None
            raise

    def _serve(self, connection: Connection, stop: threading.Event) -> Lost | None:
        """Publish over one connection; return why it was lost, or None if it is to be closed."""
        if self._subscriptions:
            connection.subscribe(list(self._subscriptions))
        epoch = _Epoch(connection, min(self._window, connection.receive_maximum), self._clock)
        self._outbox.begin()
        renew_at = self._clock() + self._retry_s
        soon = self._clock() + SUBSCRIBER_CAME_S
        stop_at: float | None = None
        while True:
            self._health.ok("broker")
            self._health.beat()
            if stop_at is None and (stop.is_set() or self._has_to_renew(epoch, renew_at, soon)):
                stop_at = self._clock() + DRAIN_S
                if not stop.is_set():
                    log.info("connecting anew", extra={"reason": self._reason(epoch)})
            if self._forbidden and self._clock() >= renew_at:
                self._allow_unless_refused(epoch)
            self._fill(epoch, draining=stop_at is not None)
            if stop_at is not None and (not epoch.in_flight or self._clock() > stop_at):
                self._end(epoch)
                return None
            alive = connection.alive()
            events = _wait_for(self._events, self._tick_s)
            # What comes while these are handled, which a database may hold up, is not late.
            came_at = self._clock()
            lost = self._handle(epoch, events)
            if not lost and epoch.is_unanswered(came_at):
                lost = UNANSWERED
            if lost or (not alive and not events):
                self._end(epoch)
                return lost or NETWORK_ENDED

    def _end(self, epoch: _Epoch) -> None:
        with self._lock:
            unanswered = [sent.topic for sent in epoch.in_flight.values() if sent.retained]
            self._unsent_state |= dict.fromkeys(t for t in unanswered if t in self._state)
        self._metrics.unanswered.inc(epoch.entries)
        self._metrics.in_flight.set(0)

    def _has_to_renew(self, epoch: _Epoch, renew_at: float, soon: float) -> bool:
        now = self._clock()
        if epoch.subscriber_came and now >= soon and epoch.exhausted:
            self._retry_s = FIRST_RETRY_S
            return True
        if epoch.kept and now >= renew_at and epoch.exhausted:
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)
            return True
        return False

    def _reason(self, epoch: _Epoch) -> str:
        """Return why a connection that works is left for another."""
        if epoch.subscriber_came:
            return f"a subscriber came: it is sent the {epoch.kept} entries that nobody took before"
        return f"{epoch.kept} entries were not taken: they are tried again, next in {self._retry_s:.0f} s"

    def _fill(self, epoch: _Epoch, *, draining: bool) -> None:
        """Publish what the window has room for: state first, then the outbox in order."""
        while epoch.has_room() and (state := self._next_state()):
            topic, payload, retain = state
            epoch.publish(topic, payload, retain=retain)
        while epoch.has_room() and not draining:
            if not epoch.ready and not self._take_more(epoch):
                break
            entry = epoch.ready.popleft()
            epoch.cursor = entry.key
            epoch.publish(entry.topic, entry.payload, entry=entry)
            self._metrics.published.inc()
        self._metrics.in_flight.set(epoch.entries)

    def _take_more(self, epoch: _Epoch) -> bool:
        try:
            self._outbox.tend()
            epoch.ready.extend(self._outbox.entries(epoch.cursor, PREFETCH))
        except RetryableError as error:
            self._health.failing("outbox", str(error))
            return False
        if not self._taken:
            self._health.ok("outbox")
        epoch.exhausted = not epoch.ready
        return not epoch.exhausted

    def _next_state(self) -> tuple[str, bytes, bool] | None:
        with self._lock:
            if self._unsent_state:
                topic = next(iter(self._unsent_state))
                del self._unsent_state[topic]
                return topic, self._state[topic], True
            if self._once:
                return *self._once.popleft(), False
            return None

    def _handle(self, epoch: _Epoch, events: list[Event]) -> Lost | None:
        lost: Lost | None = None
        for event in events:
            match event:
                case Published(mid, reason):
                    sent = epoch.in_flight.pop(mid, _NOTHING)
                    if sent.entry:
                        self._answered(epoch, sent.entry, reason)
                    elif sent.retained:
                        self._is_retained(sent.topic, reason)
                case Received():
                    # It may be the confirmation of what was taken just before.
                    self._settle_taken()
                    # A retained message would be obeyed again at each connection.
                    for topic_filter, (handle, retained) in self._subscriptions.items():
                        if matches(topic_filter, event.topic) and retained >= event.retained:
                            handle(event)
                    epoch.connection.acknowledge([event])
                case Denied(detail):
                    log.warning(
                        "subscription refused: no commands or confirmations will come",
                        extra={"reason": detail},
                    )
                case Lost():
                    lost = event
        self._settle_taken()
        if self._kept:
            self._outbox.kept(self._kept)
            self._kept = []
        if epoch.exhausted and not epoch.in_flight and not epoch.refused:
            self._health.ok("publish")
        return lost

    def _settle_taken(self) -> None:
        if not self._taken:
            return
        try:
            self._outbox.taken(self._taken)
        except RetryableError as error:
            self._health.failing("outbox", str(error))
            return
        self._health.ok("outbox")
        self._metrics.taken.inc(len(self._taken))
        self._taken = []

    def _answered(self, epoch: _Epoch, entry: Entry, reason: int) -> None:
        epoch.entries -= 1
        if self._is_taken(epoch, entry, reason):
            epoch.taken_at = self._clock()
            self._taken.append(entry.key)
        else:
            self._kept.append(entry.key)

    def _is_retained(self, topic: str, reason: int) -> None:
        """Hear what became of a state."""
        if reason >= REFUSED:
            self._sparse.warning("state refused", puback_name(reason), topic=topic)
        with self._lock:
            if topic not in self._unsent_state and not self._state.get(topic):
                self._state.pop(topic, None)
            answered = self._answers.pop(topic, None)
        if answered:
            answered(reason < REFUSED)

    def _is_taken(self, epoch: _Epoch, entry: Entry, reason: int) -> bool:
        if reason == NO_SUBSCRIBERS:
            epoch.unheard.add(entry.topic)
            if not self._unheard:
                self._unheard = True
                log.warning("nobody subscribes, entries are kept", extra={"topic": entry.topic})
        elif reason == NOT_AUTHORIZED:
            self._forbid(epoch, entry.topic)
        elif reason >= REFUSED:
            epoch.refused += 1
            why = f"the broker refuses what we publish: {puback_name(reason)} ({reason:#x})"
            self._health.failing("publish", why)
        else:
            if entry.topic in epoch.unheard:
                epoch.subscriber_came = True
            if entry.topic in self._forbidden:
                self._allow(entry.topic)
                # What was refused before it may be written is tried again in another connection.
                epoch.subscriber_came = True
            if self._unheard:
                self._unheard = False
                log.info("a subscriber takes entries", extra={"topic": entry.topic})
            return True
        epoch.kept += 1
        self._metrics.kept.labels(reason=f"{reason:#x}").inc()
        return False

    def _forbid(self, epoch: _Epoch, topic: str) -> None:
        if topic not in epoch.forbidden:
            epoch.forbidden.add(topic)
            self._outbox.forbidden(frozenset(epoch.forbidden))
        if topic in self._forbidden:
            return
        self._forbidden.add(topic)
        if len(self._forbidden) <= FORBIDDEN_MAX:
            why = f"the broker refuses what is sent there: {puback_name(NOT_AUTHORIZED)}"
            self._health.failing(f"publish:{topic}", f"{why} ({NOT_AUTHORIZED:#x})")

    def _allow(self, topic: str) -> None:
        self._forbidden.remove(topic)
        self._health.ok(f"publish:{topic}")

    def _allow_unless_refused(self, epoch: _Epoch) -> None:
        """Let go what was refused before, once this connection has tried what there is of it."""
        if epoch.exhausted and not epoch.in_flight and not epoch.forbidden:
            for topic in list(self._forbidden):
                self._allow(topic)


class _Sent(NamedTuple):
    topic: str
    retained: bool
    entry: Entry | None
    at: float


_NOTHING = _Sent("", False, None, 0.0)


class _Epoch:
    """State of one connection, gone with it: entries below ``cursor`` were published in it."""

    def __init__(self, connection: Connection, window: int, clock: Callable[[], float]) -> None:
        self.connection = connection
        self.window = window
        self._clock = clock
        self.cursor = 0
        self.ready: deque[Entry] = deque()
        self.exhausted = False
        self.in_flight: dict[int, _Sent] = {}
        self.entries = 0
        self.kept = 0
        self.refused = 0
        self.unheard: set[str] = set()
        self.forbidden: set[str] = set()
        self.subscriber_came = False
        self.taken_at = clock()

    def has_room(self) -> bool:
        return len(self.in_flight) < self.window

    def is_unanswered(self, now: float) -> bool:
        oldest = next(iter(self.in_flight.values()), None)
        return oldest is not None and now > max(oldest.at, self.taken_at) + ANSWER_S

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, entry: Entry | None = None
    ) -> None:
        mid = self.connection.publish(topic, payload, retain=retain)
        self.in_flight[mid] = _Sent(topic, retain, entry, self._clock())
        self.entries += entry is not None


def _wait_for(events: Events, timeout_s: float) -> list[Event]:
    """Return what is in the queue, waiting for a first event if there is none."""
    found: list[Event] = []
    try:
        found.append(events.get(timeout=timeout_s))
        while True:
            found.append(events.get_nowait())
    except Empty:
        return found
