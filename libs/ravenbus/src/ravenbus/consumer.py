"""The consuming half: from a broker to a Sink, acknowledged only after the sink committed.

Messages are stored in batches by size or age.  A batch that the sink refuses is split until the
message at fault stands alone; that one becomes a dead letter and the others are stored.  What is
retryable is retried for ever, while Receive Maximum bounds what the broker sends meanwhile.

Consumers that form a group share the topics among them; whose session a consumer uses, and when it
may be unsubscribed, its slot says.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from tenacity.wait import wait_base

from ravenbus.confirming import CONFIRM_AT, CONFIRM_S, Confirmations
from ravenbus.errors import (
    BrokerAwayError,
    ContractError,
    FatalError,
    PoisonError,
    RavenError,
    RetryableError,
    SlotLostError,
)
from ravenbus.health import Health
from ravenbus.logs import Sparse
from ravenbus.messages import (
    DeadLetter,
    Item,
    Run,
    dead_letter,
    decode,
    decode_reading,
    encode,
    now,
    shortened,
)
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import (
    NETWORK_ENDED,
    PACKET_RESERVE,
    Connection,
    Denied,
    Event,
    Events,
    Lost,
    Received,
)
from ravenbus.retrying import DEFAULT_WAIT, Reconnecting, retrying
from ravenbus.slots import Slot, Slots
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

TICK_S = 1.0
SESSION_EXPIRY_S = 30 * 24 * 3600
"""Time that the broker keeps undelivered messages for a consumer that is away."""

TAKEN_OVER = (
    "another client took over this one's session: "
    "two services with the same RAVEN_CLIENT_ID must not run at once"
)
DRAIN_S = 10.0
"""Longest time that messages are taken after a stop; Docker's grace period has to be longer."""
LEAVE_S = 20.0
"""Longest time for a session to drain after a stop; what it still holds is left to the group."""
BURST_TRUSTED = 8
BURST_TRUSTED_MAX = 1024
"""Batches that do not wait once it was shown that nothing more comes to one, at first and at most."""
QUIET_S = 1.0
"""A session that brings nothing for so long is asked whether it is empty."""

BATCH_BYTES = 4 * 2**20
"""A batch of more is stored before it is full: each store needs its bytes several times."""

T = TypeVar("T")


class Stored(NamedTuple):
    """Counts of the items that a commit added and of those that were there before."""

    new: int
    duplicate: int


class Sink(Protocol):
    """A store.

    Every call raises RetryableError when the store is away or busy, and has then stored nothing
    or part, which is the same because storing twice changes nothing.
    """

    def prepare(self) -> None:
        """Create what the store lacks; called at each start until it succeeds."""

    def store(self, items: Sequence[Item]) -> Stored:
        """Commit the items; raise PoisonError if one of them can never be stored."""

    def close(self) -> None:
        """Give back what the sink holds."""


class _LostError(Exception):
    """The connection has ended."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.detail)
        self.lost = lost


class _Burst:
    """The most messages that a broker has under way at once, where that is less than a batch.

    It shows when nothing came to a batch for a while, and the next message comes as soon as that
    batch is acknowledged.  A stream that begins after a pause looks the same, so some batches wait
    all the same to show it again: the more often it was shown, the fewer.
    """

    def __init__(self, while_s: float) -> None:
        self._while_s = while_s
        self._size: int | None = None
        self._ended: int | None = None
        self._trusted = BURST_TRUSTED
        self._left = 0
        self._last_at = self._stored_at = float("-inf")

    def came(self, now: float, *, first: bool) -> None:
        """Hear of a message, which may be the first of a batch."""
        if first:
            self._size = self._ended if now - self._stored_at <= self._while_s else None
        self._last_at = now

    def is_all(self, count: int) -> bool:
        """Return whether nothing more comes to a batch of so many, as far as is known."""
        return count == self._size and self._left > 0

    def ends(self, now: float, count: int) -> None:
        """Hear that a batch is stored that has room for more."""
        if now - self._last_at >= self._while_s:
            again = count == self._size
            self._trusted = min(2 * self._trusted, BURST_TRUSTED_MAX) if again else BURST_TRUSTED
            self._ended, self._left = count, self._trusted
        elif self.is_all(count):
            self._left -= 1
        else:
            self._ended = None

    def stored(self, now: float) -> None:
        """Hear that the batch is acknowledged."""
        self._stored_at = now


@dataclass
class _Intake:
    """One connection and what it has brought; a message never outlives its connection."""

    slot: Slot
    connection: Connection
    events: Events
    burst: _Burst
    shared: bool = False
    pending: list[Received] = field(default_factory=list)
    pending_bytes: int = 0
    flush_at: float = float("inf")

    def shares(self) -> bool:
        """Return True if the topics are to be shared with others."""
        return self.slot.shared() and self.connection.can_share


class Consumer:
    """Receives from a broker, stores in a sink; ``run`` is the main loop.

    ``service`` buries, and ``name`` is what the store confirms as.
    A slot's connection has a Receive Maximum of twice ``batch_size`` or more, so that a batch can
    fill while another is stored.
    """

    def __init__(
        self,
        service: str,
        slots: Slots,
        sink: Sink,
        topics: Topics,
        health: Health,
        metrics: ConsumerMetrics,
        *,
        name: str,
        batch_size: int = 200,
        flush_after_s: float = 0.5,
        wait: wait_base = DEFAULT_WAIT,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = now,
    ) -> None:
        self._service = service
        self._name = name
        self._confirmations = Confirmations(name, topics)
        self._confirm_at = 0.0
        self._slots = slots
        self._sink = sink
        self._topics = topics
        self._health = health
        self._metrics = metrics
        self._batch_size = batch_size
        self._flush_after_s = flush_after_s
        self._wait = wait
        self._clock = clock
        self._utc = utc
        self._sparse = Sparse(log)
        self._stop = threading.Event()
        self._spare = False

    def run(self, stop: threading.Event) -> None:
        """Store until ``stop`` is set, then drain; raise FatalError if the session is taken over."""
        self._stop = stop
        try:
            self._retry("store", self._sink.prepare)
            while slot := self._slots.take(stop):
                self._spare = False
                try:
                    self._hold(slot)
                except SlotLostError as error:
                    log.warning("slot given up", extra={"reason": str(error)})
                finally:
                    slot.release()
                if self._spare:
                    self._slots.stand_by(stop)
        except RetryableError:
            return

    def _hold(self, slot: Slot) -> None:
        """Store what the slot's session brings, over one connection after another, until a stop."""
        reconnecting = Reconnecting()
        while not self._stop.is_set():
            intake = self._retry("broker", lambda: self._open(slot))
            self._metrics.connected.set(1)
            opened_at = self._clock()
            try:
                self._serve(intake)
            except _LostError as error:
                pause_s = reconnecting.pause_s(self._clock() - opened_at)
                reason = f"connection lost: {error.lost.detail}{reconnecting.suspicion}"
                self._health.failing("broker", reason)
            else:
                return
            finally:
                self._metrics.connected.set(0)
                intake.connection.close()
            self._stop.wait(pause_s)

    def _open(self, slot: Slot) -> _Intake:
        slot.require()
        events: Events = SimpleQueue()
        return _Intake(slot, slot.connect(events), events, _Burst(self._flush_after_s / 2))

    def _serve(self, intake: _Intake) -> None:
        """Store what one connection brings until a stop, then leave the group if it goes on."""
        slot = intake.slot
        with self._closing(intake):
            self._subscribe(intake)
            log.info("connected to the broker")
            if former := slot.former():
                self._adopt(former)
            if slot.group and not intake.connection.can_share and self._may_leave(slot):
                log.warning(
                    "standing by: the broker has no shared subscriptions for a second replica"
                )
                self._drain(intake, QUIET_S, self._stop.is_set)
                self._spare = True
                return
            while not self._stop.is_set():
                if intake.shares() != intake.shared:
                    self._share(intake, shared=not intake.shared)
                self._take(intake, min(TICK_S, max(0.0, intake.flush_at - self._clock())))
                if abandoned := slot.adopt():
                    self._flush(intake)
                    if former := abandoned.former():
                        self._adopt(former)
                    self._adopt(abandoned)
            stopped_at = self._clock()
            if self._may_leave(slot):
                self._drain(intake, QUIET_S, lambda: self._clock() > stopped_at + LEAVE_S)
            else:
                if intake.shared:
                    # Mosquitto's own persistence forgets shared subscriptions at a restart.
                    self._share(intake, shared=False)
                while self._clock() < stopped_at + DRAIN_S and self._take(intake, 0):
                    pass
                self._flush(intake)
            self._confirm(intake)

    def _may_leave(self, slot: Slot) -> bool:
        try:
            return self._retry("slot", slot.leave)
        except RetryableError:
            return False

    @contextmanager
    def _closing(self, intake: _Intake) -> Iterator[None]:
        """Settle what an intake still has when it ends, however it ends."""
        try:
            yield
        except _LostError as error:
            if error.lost.taken_over:
                self._refuse_takeover(intake.slot)
            # A broker that crashed may have forgotten them: ours can be the only copy.
            self._flush(intake, acknowledge=False)
            raise
        finally:
            self._metrics.given_back.inc(len(intake.pending))
            self._metrics.in_flight.set(0)

    def _subscribe(self, intake: _Intake) -> None:
        """Subscribe on a new connection as the group needs it."""
        self._retry("slot", intake.slot.confirm)
        self._share(intake, shared=intake.shares())
        intake.connection.publish(self._topics.gone(self._name), b"", retain=True)
        self._retry("slot", intake.slot.joined)

    def _share(self, intake: _Intake, *, shared: bool) -> None:
        """Have the topics shared or alone; what is not needed is given up last."""
        intake.shared = shared
        alone, together = self._subscriptions(intake.slot)
        wanted, other = (together, alone) if shared else (alone, together)
        intake.connection.subscribe(wanted)
        self._settle(intake)
        if unwanted := [topic for topic in other if topic not in wanted]:
            intake.connection.unsubscribe(unwanted)
            self._settle(intake)

    def _subscriptions(self, slot: Slot) -> tuple[list[str], list[str]]:
        """Return what a consumer subscribes to alone, and what as one of a group."""
        return self._topics.stored(), self._topics.shared(slot.group) if slot.group else []

    def _settle(self, intake: _Intake) -> None:
        try:
            intake.connection.settle()
        except BrokerAwayError as error:
            raise _LostError(Lost(str(error), taken_over=False)) from error

    def _adopt(self, slot: Slot) -> None:
        """Drain a session that nobody uses; whatever comes in between leaves it to a next time."""
        try:
            intake = self._open(slot)
            try:
                with self._closing(intake):
                    quiet_s = QUIET_S if intake.connection.session_present else 0
                    self._drain(intake, quiet_s, self._stop.is_set)
            finally:
                intake.connection.close()
        except (_LostError, RavenError) as error:
            log.warning("session not drained", extra={"reason": str(error)})
        finally:
            slot.release()

    def _drain(self, intake: _Intake, quiet_s: float, enough: Callable[[], bool]) -> None:
        """Unsubscribe, store all that the session holds and end it; or stop when it is enough.

        ``quiet_s`` is 0 for a session that was not there before.
        """
        if quiet_s:
            alone, shared = self._subscriptions(intake.slot)
            intake.connection.unsubscribe(sorted({*alone, *shared}))
            self._settle(intake)
        while not enough():
            if self._take(intake, quiet_s):
                continue
            self._flush(intake)
            # What the acknowledgements made room for comes before the answer to what follows them.
            # It is about a topic that nobody subscribes to: who gives up what it does not have
            # takes it from everybody else on ejabberd (26.07).
            intake.connection.unsubscribe([self._topics.gone(self._name)])
            self._settle(intake)
            if intake.events.empty():
                self._confirm(intake)
                intake.connection.close(end_session=True)
                self._retry("slot", intake.slot.closed)
                if quiet_s:
                    log.info("session drained and ended")
                return
        self._flush(intake)

    def _take(self, intake: _Intake, wait_s: float) -> bool:
        """Take what comes next and store what is due; return False if nothing came in time."""
        self._health.ok("broker")
        self._health.beat()
        intake.slot.require()
        alive = intake.connection.alive()
        try:
            event: Event | None = intake.events.get(timeout=wait_s)
        except Empty:
            event = None if alive else NETWORK_ENDED
        match event:
            case Received():
                now = self._clock()
                intake.burst.came(now, first=not intake.pending)
                if not intake.pending:
                    intake.flush_at = now + self._flush_after_s
                intake.pending.append(event)
                intake.pending_bytes += len(event.payload)
                self._metrics.received.inc()
                self._metrics.in_flight.set(len(intake.pending))
            case Denied(detail):
                raise _LostError(Lost(detail, taken_over=False))
            case Lost():
                raise _LostError(event)
        count = len(intake.pending)
        full = count >= self._batch_size or intake.pending_bytes >= BATCH_BYTES
        is_all = intake.burst.is_all(count) and intake.events.empty()
        if full or is_all or self._clock() >= intake.flush_at:
            intake.burst.ends(self._clock(), count)
            self._flush(intake)
            intake.burst.stored(self._clock())
        if len(self._confirmations) >= CONFIRM_AT or self._clock() >= self._confirm_at:
            self._confirm(intake)
        return event is not None

    def _flush(self, intake: _Intake, *, acknowledge: bool = True) -> None:
        """Store what is pending and acknowledge it in order; raise RetryableError after a stop."""
        items: list[tuple[Received, Item]] = []
        letters: list[DeadLetter] = []
        for message in intake.pending:
            try:
                items.append((message, read(self._topics, message.topic, message.payload)))
            except PoisonError as error:
                letters.append(self._letter(message, error))
        stored = self._store(intake, items, letters)
        self._bury(intake, letters)
        self._metrics.stored.inc(stored.new)
        self._metrics.duplicate.inc(stored.duplicate)
        for letter in letters:
            fitting = shortened(letter, intake.connection.packet_max - PACKET_RESERVE)
            intake.connection.publish(self._topics.dead(self._service), encode(fitting))
            self._metrics.dead.labels(reason=letter.reason).inc()
        for _, item in items:
            self._confirmations.note(item)
        taken, intake.pending, intake.pending_bytes = intake.pending, [], 0
        intake.flush_at = float("inf")
        self._metrics.in_flight.set(0)
        if acknowledge:
            intake.slot.require()
            for message in taken:
                intake.connection.acknowledge(message)

    def _confirm(self, intake: _Intake) -> None:
        """Say what is committed."""
        if self._confirmations:
            for topic, payload in self._confirmations.take():
                intake.connection.tell(topic, payload)
            self._confirm_at = self._clock() + CONFIRM_S

    def _store(
        self, intake: _Intake, items: list[tuple[Received, Item]], letters: list[DeadLetter]
    ) -> Stored:
        """Commit the items; halve what the sink refuses until the culprit stands alone."""
        if not items:
            return Stored(0, 0)
        try:
            return self._commit(intake, [item for _, item in items])
        except PoisonError as error:
            if len(items) == 1:
                letters.append(self._letter(items[0][0], error))
                return Stored(0, 0)
        half = len(items) // 2
        first = self._store(intake, items[:half], letters)
        second = self._store(intake, items[half:], letters)
        return Stored(first.new + second.new, first.duplicate + second.duplicate)

    def _bury(self, intake: _Intake, letters: Sequence[DeadLetter]) -> None:
        """Commit dead letters; one that the store refuses is on the bus and in the log alone."""
        if not letters:
            return
        try:
            self._commit(intake, letters)
        except PoisonError as error:
            if len(letters) == 1:
                self._sparse.warning("dead letter refused", error.reason, detail=error.detail)
                return
            half = len(letters) // 2
            self._bury(intake, letters[:half])
            self._bury(intake, letters[half:])

    def _commit(self, intake: _Intake, items: Sequence[Item]) -> Stored:
        """Store items however long the store is away, but not beside one who took our session."""

        def store() -> Stored:
            intake.slot.require()
            if intake.connection.taken_over:
                self._refuse_takeover(intake.slot)
            return self._sink.store(items)

        return self._retry("store", store)

    def _refuse_takeover(self, slot: Slot) -> None:
        """Raise SlotLostError if another one holds the slot now, FatalError if none should."""
        self._retry("slot", slot.confirm)
        raise FatalError(TAKEN_OVER)

    def _retry(self, check: str, call: Callable[[], T]) -> T:
        """Return what a call returns once it works; raise RetryableError after a stop."""
        result: T = retrying(self._stop, self._wait)(self._try, check, call)
        return result

    def _try(self, check: str, call: Callable[[], T]) -> T:
        self._health.beat()
        try:
            result = call()
        except RetryableError as error:
            self._health.failing(check, str(error))
            raise
        self._health.ok(check)
        return result

    def _letter(self, message: Received, error: PoisonError) -> DeadLetter:
        self._sparse.warning("dead letter", error.reason, topic=message.topic, detail=error.detail)
        return dead_letter(self._service, message.topic, message.payload, self._utc(), error)


def read(topics: Topics, topic: str, payload: bytes) -> Item:
    """Return what a message says; raise ContractError if it is none, or on another's topic."""
    try:
        node, leaf, kind = topics.parse(topic)
    except ValueError as error:
        raise ContractError("not-contract", str(error)) from error
    if node == "dead":
        letter = _of_reader(payload)
        _require_same(letter.service, leaf, "service")
        # Every reader before version 1.1 buries here: nobody vouches for the node that it names.
        return msgspec.structs.replace(letter, topic=topic)
    if leaf == "dead":
        letter = _of_reader(payload)
        _require_same(str(letter.node), node, "node")
        return letter
    if leaf == "run":
        run = decode(payload, Run)
        _require_same(run.node, node, "node")
        return run
    reading = decode_reading(payload)
    _require_same(reading.envelope.node, node, "node")
    _require_same(reading.kind, kind, "kind")
    return reading


def _of_reader(payload: bytes) -> DeadLetter:
    """Return a reader's dead letter: what came from the serial line was sent to no topic."""
    letter = decode(payload, DeadLetter)
    _require_same(letter.service, "reader", "service")
    if letter.topic is not None:
        raise ContractError("not-contract", f"a reader's dead letter names a topic: {letter.topic}")
    return letter


def _require_same(said: str, addressed: str, what: str) -> None:
    if said != addressed:
        detail = f"{what} {said!r} on the topic of {addressed!r}"
        raise ContractError("not-contract", detail)
