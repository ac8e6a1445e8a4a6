"""From what a connection brings to a Sink, acknowledged only after the sink committed.

Messages are stored in batches.  One that is full is stored at once; one that is not is stored when
the store has rested, so that a reading alone does not wait and small batches keep no store busy.
Where a broker may send no more before these are acknowledged, it is stored as soon as nothing came
for as long as the store last worked.  A batch that the sink refuses is split until the message at fault
stands alone; that one becomes a dead letter and the others are stored.  What is retryable is
retried for ever, while Receive Maximum bounds what the broker sends meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

import msgspec

from ravenbus.confirming import CONFIRM_AT, CONFIRM_S, Confirmations
from ravenbus.errors import BrokerAwayError, ContractError, FatalError, PoisonError
from ravenbus.logs import Sparse
from ravenbus.messages import (
    DeadLetter,
    Item,
    dead_letter,
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
    Events,
    Lost,
    Received,
)
from ravenbus.retrying import Retry
from ravenbus.slots import Slot
from ravenbus.topics import DEAD, READER, STORE, Topics

log = logging.getLogger(__name__)

TAKEN_OVER = (
    "another client took over this one's session: "
    "two services with the same RAVEN_CLIENT_ID must not run at once"
)
REST = 4
"""After a batch a store rests for so many times the time that it took, if the next is not full."""
WINDOW_MIN = 10
"""A broker has so many messages under way, or more: RabbitMQ (4.3) has ten."""
BATCH_BYTES = 4 * 2**20
"""A batch of more is stored before it is full: each store needs its bytes several times."""


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


@dataclass
class Intake:
    """One connection and what it has brought; a message never outlives its connection."""

    slot: Slot
    connection: Connection
    events: Events
    pending: list[Received] = field(default_factory=list)
    pending_bytes: int = 0
    came_at: float = float("-inf")
    took_s: float = 0.0
    rested_at: float = float("-inf")
    """When the last message came, how long the last batch took, and when the store has rested."""

    @property
    def flush_at(self) -> float:
        """When what is pending is to be stored."""
        if not self.pending:
            return float("inf")
        may_be_all = len(self.pending) >= WINDOW_MIN
        return min(self.rested_at, self.came_at + self.took_s) if may_be_all else self.rested_at


class Storing:
    """Stores what connections bring and says so; ``service`` buries, ``name`` is what confirms.

    A connection has a Receive Maximum of twice ``batch_size`` or more, so that a batch can fill
    while another is stored.
    """

    def __init__(
        self,
        service: str,
        sink: Sink,
        topics: Topics,
        retry: Retry,
        metrics: ConsumerMetrics,
        *,
        name: str,
        batch_size: int = 200,
        flush_after_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = now,
    ) -> None:
        self._service = service
        self._sink = sink
        self._topics = topics
        self._retry = retry
        self._metrics = metrics
        self._confirmations = Confirmations(name, topics)
        self._confirm_at = 0.0
        self._batch_size = batch_size
        self._flush_after_s = flush_after_s
        self._clock = clock
        self._utc = utc
        self._sparse = Sparse(log)

    def prepare(self) -> None:
        """Return when the sink is ready; raise RetryableError after a stop."""
        self._retry("store", self._sink.prepare)

    def open(self, slot: Slot) -> Intake:
        """Resume a slot's session; raise BrokerAwayError or SlotLostError."""
        slot.require()
        events: Events = SimpleQueue()
        return Intake(slot, slot.connect(events), events)

    @contextmanager
    def closing(self, intake: Intake) -> Iterator[None]:
        """Settle what an intake still has when it ends, however it ends; then disconnect."""
        try:
            yield
        except BrokerAwayError:
            if intake.connection.taken_over:
                self._refuse_takeover(intake.slot)
            # A broker that crashed may have forgotten them: ours can be the only copy.
            self.flush(intake, acknowledge=False)
            raise
        finally:
            self._metrics.given_back.inc(len(intake.pending))
            self._metrics.in_flight.set(0)
            intake.connection.close()

    def take(self, intake: Intake, wait_s: float) -> bool:
        """Take what comes next and store what is due; return False if nothing came in time.

        Raise BrokerAwayError if the connection has ended.
        """
        self._retry.health.ok("broker")
        self._retry.health.beat()
        intake.slot.require()
        alive = intake.connection.alive()
        came = self._receive(intake, wait_s)
        if not (came or alive):
            raise BrokerAwayError(NETWORK_ENDED.detail)
        began = self._clock()
        if came:
            intake.came_at = began
        if self._is_full(intake) or (began >= intake.flush_at and intake.events.empty()):
            self.flush(intake)
            ended = self._clock()
            intake.took_s = ended - began
            intake.rested_at = ended + min(self._flush_after_s, REST * intake.took_s)
        if len(self._confirmations) >= CONFIRM_AT or self._clock() >= self._confirm_at:
            self.confirm(intake)
        return came

    def _receive(self, intake: Intake, wait_s: float) -> bool:
        """Take what there is, as much as a batch holds; return False if nothing came in time."""
        count, event = len(intake.pending), None
        try:
            event = intake.events.get(timeout=wait_s)
            while True:
                match event:
                    case Received():
                        intake.pending.append(event)
                        intake.pending_bytes += len(event.payload)
                    case Denied(detail) | Lost(detail):
                        raise BrokerAwayError(detail)
                if self._is_full(intake):
                    return True
                event = intake.events.get_nowait()
        except Empty:
            return len(intake.pending) > count or event is not None
        finally:
            self._metrics.received.inc(len(intake.pending) - count)
            self._metrics.in_flight.set(len(intake.pending))

    def _is_full(self, intake: Intake) -> bool:
        return len(intake.pending) >= self._batch_size or intake.pending_bytes >= BATCH_BYTES

    def flush(self, intake: Intake, *, acknowledge: bool = True) -> None:
        """Store what is pending and acknowledge it in order; raise RetryableError after a stop."""
        items: list[tuple[Received, Item]] = []
        refused: list[tuple[Received, PoisonError]] = []
        for message in intake.pending:
            try:
                items.append((message, read(self._topics, message.topic, message.payload)))
            except PoisonError as error:
                refused.append((message, error))
        stored = self._store(intake, items, refused)
        letters = [(message, self._letter(message, error)) for message, error in refused]
        # A letter that the store refuses is on the bus and in the log alone.
        unburied: list[tuple[Received, PoisonError]] = []
        self._store(intake, letters, unburied)
        for _, why in unburied:
            self._sparse.warning("dead letter refused", why.reason, detail=why.detail)
        self._metrics.stored.inc(stored.new)
        self._metrics.duplicate.inc(stored.duplicate)
        for _, letter in letters:
            fitting = _fitting(letter, intake.connection.packet_max - PACKET_RESERVE)
            intake.connection.publish(self._topics.of(DEAD, service=self._service), encode(fitting))
            self._metrics.dead.labels(reason=letter.reason).inc()
        for _, item in items:
            self._confirmations.note(item)
        taken, intake.pending, intake.pending_bytes = intake.pending, [], 0
        self._metrics.in_flight.set(0)
        if acknowledge:
            intake.slot.require()
            intake.connection.acknowledge(taken)

    def confirm(self, intake: Intake) -> None:
        """Say what is committed."""
        if self._confirmations:
            most = intake.connection.packet_max - PACKET_RESERVE
            for topic, payload in self._confirmations.take(most):
                intake.connection.tell(topic, payload)
            self._confirm_at = self._clock() + CONFIRM_S

    def _store(
        self,
        intake: Intake,
        items: Sequence[tuple[Received, Item]],
        refused: list[tuple[Received, PoisonError]],
    ) -> Stored:
        """Commit the items; halve what the sink refuses until the culprit stands alone."""
        if not items:
            return Stored(0, 0)
        try:
            return self._commit(intake, [item for _, item in items])
        except PoisonError as error:
            if len(items) == 1:
                refused.append((items[0][0], error))
                return Stored(0, 0)
        half = len(items) // 2
        first = self._store(intake, items[:half], refused)
        second = self._store(intake, items[half:], refused)
        return Stored(first.new + second.new, first.duplicate + second.duplicate)

    def _letter(self, message: Received, error: PoisonError) -> DeadLetter:
        self._sparse.warning("dead letter", error.reason, topic=message.topic, detail=error.detail)
        return dead_letter(self._service, message.topic, message.payload, self._utc(), error)

    def _commit(self, intake: Intake, items: Sequence[Item]) -> Stored:
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


def _fitting(letter: DeadLetter, most: int) -> DeadLetter:
    """Return the letter with as much of its payload, and then of its detail, as there is room for."""
    letter = shortened(letter, most)
    excess = max(0, len(encode(letter)) - most)
    return msgspec.structs.replace(
        letter, detail=letter.detail[: max(0, len(letter.detail) - excess)]
    )


def read(topics: Topics, topic: str, payload: bytes) -> Item:
    """Return what a message says; raise ContractError if it is none, or on another's topic."""
    channel = topics.channel(topic)
    if STORE not in channel.receivers:
        raise ContractError("not-contract", f"{topic!r} is not for stores")
    item: Item = topics.read(channel, topic, payload)
    if not isinstance(item, DeadLetter):
        return item
    if item.service != READER:
        raise ContractError("not-contract", f"service {item.service!r} buries elsewhere")
    # What came from the serial line was sent to no topic.
    if item.topic is not None:
        raise ContractError("not-contract", f"a reader's dead letter names a topic: {item.topic}")
    # Every reader before version 1.1 buries on one topic: nobody vouches for the node that it names.
    return msgspec.structs.replace(item, topic=topic) if channel is DEAD else item
