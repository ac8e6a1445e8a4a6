"""A consumer with scripted connections and a store in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace as replaced
from tenacity import wait_none

from ravenbus import retrying
from ravenbus.consumer import Consumer
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import (
    DeadLetter,
    Envelope,
    Item,
    Reading,
    Run,
    dead_letter,
    encode,
)
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import Received
from ravenbus.notifications import InstantaneousDemand
from ravenbus.retrying import Retry
from ravenbus.slots import Alone
from ravenbus.storing import Stored, Storing
from ravenbus.topics import Topics

from .fakes import Clock, FakeBroker, FakeConnection

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HASH = "11111111-2222-4333-8444-555555555555"
TOPIC = "raven/v1/home/reading/instantaneous_demand"


def reading(seq: int) -> Reading:
    envelope = Envelope(node="home", run="r", hash=HASH, seq=seq, received=NOW)
    body = InstantaneousDemand(
        device=None, meter=None, time=NOW, multiplier=1, divisor=1000, demand=seq, demand_kw=0.001
    )
    return Reading(envelope, body)


LETTER = dead_letter("sql-writer", TOPIC, b"", NOW, PoisonError("not-json", "no"))
OF_READER = replaced(LETTER, service="reader", node="home", topic=None)
"""Not the reader's."""


def message(seq: int) -> Received:
    return Received(seq, TOPIC, encode(reading(seq)))


class MemorySink:
    """A store with identities; ``poison`` numbers are refused, ``away`` calls fail first."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.letters: list[DeadLetter] = []
        self.runs: list[Run] = []
        self.batches: list[int] = []
        self.poison: set[int] = set()
        self.refuses_letters: set[str] = set()
        self.away = 0
        self.on_store: Callable[[], None] = lambda: None

    def prepare(self) -> None:
        pass

    def store(self, items: Sequence[Item]) -> Stored:
        self.on_store()
        if self.away:
            self.away -= 1
            raise RetryableError("away")
        self.batches.append(len(items))
        new = 0
        numbers = [item.envelope.seq for item in items if isinstance(item, Reading)]
        if self.poison & set(numbers):
            raise PoisonError("not-storable", "poison")
        for item in items:
            match item:
                case Reading() if item.envelope.seq not in self.numbers:
                    self.numbers.append(item.envelope.seq)
                    new += 1
                case DeadLetter() if item.id in self.refuses_letters:
                    raise PoisonError("duplicate-key", "an index of somebody's")
                case DeadLetter():
                    self.letters.append(item)
                    new += 1
                case Run():
                    self.runs.append(item)
                    new += 1
        return Stored(new, len(items) - new)


class Bench:
    def __init__(self, monkeypatch, *prepare, batch_size: int = 100) -> None:
        monkeypatch.setattr(retrying, "LONGEST_PAUSE_S", 0)
        self.clock = Clock()
        self.stop = threading.Event()
        self.sink = MemorySink()
        self.metrics = ConsumerMetrics()
        self.health = Health()
        self.broker = FakeBroker(*prepare, wakes=False)
        name, topics, retry = "raven-tester", Topics(), Retry(self.health, self.stop, wait_none())
        self.storing = Storing(
            "tester",
            self.sink,
            topics,
            retry,
            self.metrics,
            name=name,
            batch_size=batch_size,
            clock=self.clock,
            utc=lambda: NOW,
        )
        alone = Alone(self.broker)
        self.consumer = Consumer(alone, self.storing, topics, retry, self.metrics, name, self.clock)

    def go(self) -> None:
        self.consumer.run()

    def counts(self) -> dict[str, float]:
        names = ("received", "stored", "duplicate", "given_back")
        found = {n: getattr(self.metrics, n)._value.get() for n in names}
        samples = self.metrics.dead.collect()[0].samples
        found["dead"] = sum(s.value for s in samples if s.name.endswith("_total"))
        found["in_flight"] = self.metrics.in_flight._value.get()
        return found


def bringing(bench: list[Bench], *messages: Received) -> Callable[[FakeConnection], None]:
    """Return a connection that brings messages and stops the consumer when all are acknowledged."""

    def prepare(connection: FakeConnection) -> None:
        for one in messages:
            connection.events.put(one)

        def turn() -> None:
            bench[0].clock.now += 1 if connection.events.empty() else 0.001
            if len(connection.acknowledged) == len(messages):
                bench[0].stop.set()

        connection.on_turn = turn

    return prepare


def started(monkeypatch, *messages: Received, batch_size: int = 100) -> Bench:
    holder: list[Bench] = []
    holder.append(Bench(monkeypatch, bringing(holder, *messages), batch_size=batch_size))
    return holder[0]
