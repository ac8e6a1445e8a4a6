"""After an outage the distance falls: what is sent again never keeps a store from what is new."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from raven_reader.outbox import TURN_S, SpoolOutbox
from raven_reader.spool import Spool
from ravenbus.messages import Confirmation
from ravenbus.metrics import PublisherMetrics
from ravenbus.ranges import merged
from ravenbus.topics import Topics
from tests.unit.ravenbus.fakes import Clock

from .test_spool import NOON, reading

STORE = "store"
CAPACITY = 2.5
"""Readings that the store takes for each that the homes send."""


class Home:
    """A home's spool, as much of it as accepts, sends and hears."""

    def __init__(self, path: Path, clock: Clock, metrics: PublisherMetrics) -> None:
        self.spool = Spool(path, Topics(), max_mb=1024)
        self.spool.begin("home", "default", NOON)
        self.outbox = SpoolOutbox(path, metrics=metrics, clock=clock)
        for db in (self.spool._db, self.outbox._db):
            db.execute("PRAGMA synchronous = OFF")
        self.hash = self.spool.run.hash
        self.accepted = 0
        self.due = 0.0

    def accept(self, due: float) -> None:
        self.due += due
        if count := int(self.due):
            self.due -= count
            self.spool.accept([reading(1)] * count, [])
            self.accepted += count

    def close(self) -> None:
        self.outbox.close()
        self.spool.close()


class Fleet:
    """Homes, a broker with one queue, and a store that takes so much in a turn and no more.

    ``arriving`` are the readings that the homes send together in a second.
    """

    def __init__(self, folder: Path, count: int, arriving: float, queue_max: float) -> None:
        self.arriving = arriving
        self.clock = Clock()
        metrics = PublisherMetrics()
        self.homes = [Home(folder / f"{n}.sqlite", self.clock, metrics) for n in range(count)]
        self.queue: deque[tuple[int, int]] = deque()
        self.queue_max = queue_max
        self.stored: list[set[int]] = [set() for _ in self.homes]
        self.taken = 0
        for home in self.homes:
            home.outbox.confirmed(Confirmation(node="home", store=STORE))

    def turn(self, capacity: float, *, silent: bool = False) -> None:
        """Let a turn pass: homes send, the broker drops what its queue has no room for."""
        self.clock.now += TURN_S
        for number, home in enumerate(self.homes):
            if not silent:
                home.accept(self.arriving * TURN_S / len(self.homes))
            home.outbox.tend()
            entries = home.outbox.entries(0, 10_000)
            home.outbox.taken([entry.key for entry in entries])
            for entry in entries:
                if len(self.queue) < self.queue_max:
                    self.queue.append(
                        (number, int(entry.payload.split(b'"seq":')[1].split(b",")[0]))
                    )
        told: dict[int, list[int]] = defaultdict(list)
        for _ in range(min(len(self.queue), int(capacity * self.arriving * TURN_S))):
            number, seq = self.queue.popleft()
            self.taken += 1
            self.stored[number].add(seq)
            told[number].append(seq)
        for number, seqs in told.items():
            runs = {self.homes[number].hash: merged((seq, seq) for seq in seqs)}
            said = Confirmation(node="home", store=STORE, runs=runs)
            self.homes[number].outbox.confirmed(said)

    def count(self) -> int:
        """Return how many readings are stored, each once."""
        return sum(map(len, self.stored))

    def distance(self) -> int:
        return sum(home.accepted for home in self.homes) - self.count()

    def close(self) -> None:
        for home in self.homes:
            home.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[[int, float, float], Fleet]]:
    with ExitStack() as stack:
        yield lambda *how: stack.enter_context(closing(Fleet(tmp_path, *how)))


@pytest.mark.parametrize(
    ("homes", "arriving", "outage_s", "queue_max"),
    [
        (1, 100, 300, float("inf")),
        (1, 100, 300, 5_000),
        (40, 100, 300, float("inf")),
        (40, 100, 300, 5_000),
        # Each of so many homes sends so little that it never has more to send again than it may.
        (1_000, 100, 90, float("inf")),
        (1_000, 100, 150, 10_000),
    ],
)
def test_after_an_outage_the_distance_falls_as_fast_as_the_store_can(
    fleet: Callable[[int, float, float], Fleet],
    homes: int,
    arriving: float,
    outage_s: float,
    queue_max: float,
):
    """At 0.8 of the store's spare capacity or more, and nearly nothing is stored twice."""
    those = fleet(homes, arriving, queue_max)
    those.turn(CAPACITY)
    for _ in range(int(outage_s / TURN_S)):
        those.turn(0)
    most, taken, stored = those.distance(), those.taken, those.count()
    assert most >= 0.98 * arriving * outage_s
    limit_s = most / (CAPACITY * arriving - arriving) / 0.8
    for _ in range(int(limit_s / TURN_S)):
        those.turn(CAPACITY)
    assert those.distance() <= arriving * TURN_S, f"of {most}"
    assert those.taken - taken <= 1.02 * (those.count() - stored)


def test_a_broker_that_loses_its_queue_loses_nothing(fleet: Callable[[int, float, float], Fleet]):
    """While the store is away and while it catches up; then nothing more comes from the stick."""
    those = fleet(4, 100, float("inf"))
    for capacity in (CAPACITY, 0, 0, 0, CAPACITY, 0, 0):
        for _ in range(4):
            those.turn(capacity)
        those.queue.clear()
    for _ in range(60):
        those.turn(CAPACITY, silent=True)
    assert those.distance() == 0
