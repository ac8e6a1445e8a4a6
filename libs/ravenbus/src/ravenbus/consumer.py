"""The consuming half: from a broker to a Sink, acknowledged only after the sink committed.

Messages are stored in batches by size or age.  A batch that the sink refuses is split until the
message at fault stands alone; that one becomes a dead letter and the others are stored.  What is
retryable is retried for ever, while Receive Maximum bounds what the broker sends meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol, TypeVar

from tenacity.wait import wait_base

from ravenbus.errors import BrokerAwayError, ContractError, FatalError, PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.logs import Sparse
from ravenbus.messages import (
    DeadLetter,
    Reading,
    Run,
    dead_letter,
    decode,
    decode_reading,
    encode,
    now,
)
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import NETWORK_ENDED, Connect, Connection, Denied, Event, Events, Lost, Received
from ravenbus.retrying import DEFAULT_WAIT, Reconnecting, retrying
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

TICK_S = 1.0
SESSION_EXPIRY_S = 30 * 24 * 3600
"""How long the broker keeps what a consumer that is away has not had."""

TAKEN_OVER = (
    "another client took over this one's session: "
    "two services with the same RAVEN_CLIENT_ID must not run at once"
)
DRAIN_S = 10.0
"""How long messages are still taken after a stop; Docker's grace period has to be longer."""

T = TypeVar("T")

Item = Reading | Run | DeadLetter
"""What a store keeps."""


class Stored(NamedTuple):
    """How many items a commit added, and how many were there before."""

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


class Consumer:
    """Receives from a broker, stores in a sink; ``run`` is the main loop.

    ``connect`` resumes the session of a fixed client id, with a Receive Maximum of twice
    ``batch_size`` or more, so that a batch can fill while another is stored.
    """

    def __init__(
        self,
        service: str,
        connect: Connect,
        sink: Sink,
        topics: Topics,
        health: Health,
        metrics: ConsumerMetrics,
        *,
        batch_size: int = 200,
        flush_after_s: float = 0.5,
        wait: wait_base = DEFAULT_WAIT,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = now,
    ) -> None:
        self._service = service
        self._connect = connect
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

    def run(self, stop: threading.Event) -> None:
        """Store until ``stop`` is set, then drain; raise FatalError if the session is taken over."""
        self._stop = stop
        reconnecting = Reconnecting()
        try:
            retrying(stop, self._wait)(self._try, "store", self._sink.prepare)
        except RetryableError:
            return
        while not stop.is_set():
            events: Events = SimpleQueue()
            try:
                connection = retrying(stop, self._wait)(
                    self._try, "broker", lambda events=events: self._connect(events)
                )
            except BrokerAwayError:
                return
            log.info("connected to the broker")
            self._metrics.connected.set(1)
            opened_at = self._clock()
            try:
                lost = self._serve(connection, events)
            finally:
                self._metrics.connected.set(0)
                self._metrics.in_flight.set(0)
                connection.close()
            if lost:
                pause_s = reconnecting.pause_s(self._clock() - opened_at)
                reason = f"connection lost: {lost.detail}{reconnecting.suspicion}"
                self._health.failing("broker", reason)
                stop.wait(pause_s)

    def _serve(self, connection: Connection, events: Events) -> Lost | None:
        """Store what one connection brings; return why it was lost, or None after a stop.

        Everything that belongs to the connection is a local of this call: a message of an older
        connection cannot be acknowledged.
        """
        connection.subscribe(self._topics.stored())
        pending: list[Received] = []
        flush_at = stop_at = float("inf")
        while True:
            self._health.ok("broker")
            self._health.beat()
            alive = connection.alive()
            if self._stop.is_set():
                stop_at = min(stop_at, self._clock() + DRAIN_S)
            try:
                wait_s = min(TICK_S, max(0.0, flush_at - self._clock()))
                event: Event | None = events.get(timeout=0 if stop_at < float("inf") else wait_s)
            except Empty:
                event = None if alive else NETWORK_ENDED
            match event:
                case Received():
                    if not pending:
                        flush_at = self._clock() + self._flush_after_s
                    pending.append(event)
                    self._metrics.received.inc()
                    self._metrics.in_flight.set(len(pending))
                case Denied(detail):
                    event = Lost(detail, taken_over=False)
            if isinstance(event, Lost):
                if event.taken_over:
                    self._give_back(pending)
                    raise FatalError(TAKEN_OVER)
                # A broker that crashed may have forgotten them: ours can be the only copy.
                self._flush(connection, pending, acknowledge=False)
                return event
            drained = self._clock() >= stop_at or (stop_at < float("inf") and event is None)
            if pending and (
                drained or len(pending) >= self._batch_size or self._clock() >= flush_at
            ):
                if not self._flush(connection, pending):
                    return None
                pending = []
                flush_at = float("inf")
            elif drained:
                return None

    def _give_back(self, pending: list[Received]) -> None:
        """Count what the broker will deliver again, because it was never acknowledged."""
        self._metrics.given_back.inc(len(pending))

    def _flush(
        self, connection: Connection, batch: list[Received], *, acknowledge: bool = True
    ) -> bool:
        """Store a batch and acknowledge it in order; return False if a stop came first."""
        items: list[tuple[Received, Item]] = []
        letters: list[DeadLetter] = []
        for message in batch:
            try:
                items.append((message, self._read(message)))
            except PoisonError as error:
                letters.append(self._letter(message, error))
        try:
            self._store(connection, items, letters)
            if letters:
                self._commit(connection, letters)
        except RetryableError:
            self._give_back(batch)
            return False
        for letter in letters:
            connection.publish(self._topics.dead(self._service), encode(letter))
            self._metrics.dead.labels(reason=letter.reason).inc()
        for message in batch if acknowledge else ():
            connection.acknowledge(message)
        self._metrics.in_flight.set(0)
        return True

    def _store(
        self,
        connection: Connection,
        items: list[tuple[Received, Item]],
        letters: list[DeadLetter],
    ) -> None:
        """Commit the items; halve what the sink refuses until the culprit stands alone."""
        if not items:
            return
        try:
            stored = self._commit(connection, [item for _, item in items])
        except PoisonError as error:
            if len(items) == 1:
                letters.append(self._letter(items[0][0], error))
                return
            half = len(items) // 2
            self._store(connection, items[:half], letters)
            self._store(connection, items[half:], letters)
        else:
            self._metrics.stored.inc(stored.new)
            self._metrics.duplicate.inc(stored.duplicate)

    def _commit(self, connection: Connection, items: Sequence[Item]) -> Stored:
        """Store items however long the store is away, but not beside one who took our session."""

        def store() -> Stored:
            if connection.taken_over:
                raise FatalError(TAKEN_OVER)
            return self._sink.store(items)

        stored: Stored = retrying(self._stop, self._wait)(self._try, "store", store)
        return stored

    def _try(self, check: str, call: Callable[[], T]) -> T:
        self._health.beat()
        try:
            result = call()
        except RetryableError as error:
            self._health.failing(check, str(error))
            raise
        self._health.ok(check)
        return result

    def _read(self, message: Received) -> Item:
        try:
            node, leaf, kind = self._topics.parse(message.topic)
        except ValueError as error:
            raise ContractError("not-contract", str(error)) from error
        if node == "dead":
            return decode(message.payload, DeadLetter)
        if leaf == "run":
            run = decode(message.payload, Run)
            self._require_same(run.node, node, "node")
            return run
        reading = decode_reading(message.payload)
        self._require_same(reading.envelope.node, node, "node")
        self._require_same(reading.kind, kind, "kind")
        return reading

    def _require_same(self, said: str, addressed: str, what: str) -> None:
        if said != addressed:
            detail = f"{what} {said!r} on the topic of {addressed!r}"
            raise ContractError("not-contract", detail)

    def _letter(self, message: Received, error: PoisonError) -> DeadLetter:
        self._sparse.warning("dead letter", error.reason, topic=message.topic, detail=error.detail)
        return dead_letter(self._service, message.topic, message.payload, self._utc(), error)
