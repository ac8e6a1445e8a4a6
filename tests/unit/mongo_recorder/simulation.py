"""A reader, recorders, a broker and a database in one thread of control, in any order.

The recorders are the real ones down to their connections and their ledger, the reader is its real
spool and publisher.  Each of their threads stops wherever it would talk to somebody else or wait,
and only one goes on at a time.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

from tenacity import wait_fixed

from raven_mongo_recorder import slots as slots_module
from raven_mongo_recorder.group import Group
from raven_mongo_recorder.slots import LeasedSlots
from raven_reader.outbox import SpoolOutbox
from raven_reader.spool import Spool
from ravenbus import publisher as publisher_module
from ravenbus import storing as storing_module
from ravenbus.confirming import Stores
from ravenbus.consumer import Consumer
from ravenbus.errors import BrokerAwayError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import Confirmation, Envelope, Reading, encode
from ravenbus.metrics import ConsumerMetrics, PublisherMetrics
from ravenbus.mqtt import DEFAULT_PACKET_MAX, Lost, Published, Received, matches
from ravenbus.notifications import InstantaneousDemand
from ravenbus.publisher import Publisher
from ravenbus.retrying import Retry
from ravenbus.storing import Stored, Storing
from ravenbus.topics import READING, RUN, Topics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE_S = 10.0
WINDOW = 4
HASH = "11111111-2222-4333-8444-555555555555"
TOPIC = Topics().of(READING, node="home", kind="instantaneous_demand")
GROUP = "recorder"
STORE = "raven-tester"


class KilledError(BaseException):
    """Ends a thread of a process that was killed."""


class Task:
    """A thread that goes on only when it is its turn."""

    def __init__(self, world: World, process: Process, target: Callable[[], None]) -> None:
        self.process = process
        self.ready: Callable[[], bool] = lambda: True
        self.wake_at = float("inf")
        self.done = False
        self.error: BaseException | None = None
        self._world = world
        self._target = target
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._world.tasks.append(self)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        with suppress(KilledError):
            try:
                self._target()
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.error = error
        self.done = True
        self._world.back.release()

    def step(self) -> None:
        """Let it go on until it stops again."""
        self._world.current = self
        self._go.release()
        self._world.back.acquire()

    def pause(self, ready: Callable[[], bool] = lambda: True, timeout_s: float = 0.0) -> None:
        """Wait for a turn, when something is ready or the time is over."""
        if self.process.killed:
            raise KilledError
        self.ready, self.wake_at = ready, self._world.now + timeout_s
        self._world.back.release()
        self._go.acquire()
        if self.process.killed:
            raise KilledError

    def runnable(self) -> bool:
        due = self.process.killed or self.ready() or self._world.now >= self.wake_at
        return not self.done and not self.process.paused and due


class World:
    """What the processes share: time, the broker, the database."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.back = threading.Semaphore(0)
        self.broker = SimulatedBroker(self)
        self.database_away = False
        self.group: Group = {}
        self.revision = 0
        self.stored: set[int] = set()
        self.forgets = False
        """The database does what it is asked, and its answer is lost."""

    def point(self) -> None:
        """Let others go first, perhaps."""
        assert self.current
        self.current.pause()

    def run(self, steps: int, choose: random.Random) -> None:
        """Let threads and the network go on in a random order; time passes when all wait."""
        for _ in range(steps):
            self.now += 0.001
            self.tasks = [task for task in self.tasks if not task.done]
            ready = [task for task in self.tasks if task.runnable()]
            moves: list[Callable[[], None]] = [task.step for task in ready]
            if not self.broker.stalled:
                moves += [one.deliver for one in self.broker.connections if one.outbox]
                moves += [one.answer for one in self.broker.connections if one.answers]
            if moves:
                choose.choice(moves)()
            else:
                later = [t.wake_at for t in self.tasks if not t.process.paused]
                self.now = max(self.now, min(later, default=self.now + 1))

    def run_for(self, seconds: float, choose: random.Random) -> None:
        end = self.now + seconds
        while self.now < end:
            self.run(20, choose)
            if not self.tasks:
                self.now += 1


class SimulatedEvent:
    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        assert self._world.current
        self._world.current.pause(self.is_set, float("inf") if timeout is None else timeout)
        return self._set


class SimulatedLock:
    def __init__(self, world: World) -> None:
        self._world = world
        self._taken = False

    def __enter__(self) -> None:
        while self._taken:
            assert self._world.current
            self._world.current.pause(lambda: not self._taken, float("inf"))
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


class SimulatedQueue:
    def __init__(self, world: World) -> None:
        self._world = world
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def empty(self) -> bool:
        return not self._items

    def get(self, timeout: float) -> Any:
        assert self._world.current
        self._world.current.pause(lambda: bool(self._items), timeout)
        if not self._items:
            raise Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise Empty
        return self._items.popleft()


Queued = tuple[str, bytes]


@dataclass
class Session:
    """What the broker keeps of one client id."""

    subscriptions: set[str] = field(default_factory=set)
    queue: deque[Queued] = field(default_factory=deque)
    in_flight: dict[int, Queued] = field(default_factory=dict)
    connection: SimulatedConnection | None = None
    mids: int = 0

    def send(self) -> None:
        while self.connection and self.queue and len(self.in_flight) < WINDOW:
            self.mids += 1
            self.in_flight[self.mids] = self.queue.popleft()
            self.connection.bring(self.mids, *self.in_flight[self.mids])

    def wants(self, topic: str, head: str) -> bool:
        """Say whether it has a subscription, shared or not as ``head`` says, for a topic."""
        return any(
            one.startswith("$share/") == bool(head) and matches(one.removeprefix(head), topic)
            for one in self.subscriptions
        )


class SimulatedBroker:
    """Mosquitto, as far as sessions go: shared messages go round, to the absent too.

    While it is ``stalled`` it reads nothing.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.sessions: dict[str, Session] = {}
        self.connections: list[SimulatedConnection] = []
        self.says_takeover = False
        self.can_share = True
        self.away = False
        self.stalled = False
        self.retained: dict[str, bytes] = {}
        self._turn = 0

    def publish(self, number: int) -> bool:
        """Give a reading to whom it concerns; return whether there was anybody."""
        return self.route(TOPIC, message(number))

    def route(self, topic: str, payload: bytes) -> bool:
        """Give a message to whom it concerns; return whether there was anybody."""
        members = [s for s in self.sessions.values() if s.wants(topic, f"$share/{GROUP}/")]
        to = [one for one in self.sessions.values() if one.wants(topic, "")]
        if members:
            self._turn += 1
            to.append(members[self._turn % len(members)])
        for session in to:
            session.queue.append((topic, payload))
            session.send()
        return bool(to)

    def subscribe(self, session: Session, topics: list[str]) -> None:
        """Have a session subscribe; what is retained comes with a new subscription."""
        for one in set(topics) - session.subscriptions:
            found = [item for item in self.retained.items() if matches(one, item[0])]
            session.queue.extend(found)
        session.subscriptions.update(topics)
        session.send()

    def connect(self, client_id: str, events: Any, *, clean: bool = False) -> SimulatedConnection:
        self._world.point()
        if self.away:
            raise BrokerAwayError("away")
        if clean and client_id in self.sessions:
            self.sessions[client_id] = Session(connection=self.sessions[client_id].connection)
        present = client_id in self.sessions
        session = self.sessions.setdefault(client_id, Session())
        if session.connection:
            session.connection.end(taken_over=self.says_takeover)
        connection = SimulatedConnection(self._world, client_id, events, session_present=present)
        session.connection = connection
        self.connections.append(connection)
        for mid, (topic, payload) in session.in_flight.items():
            connection.bring(mid, topic, payload)
        session.send()
        self._world.point()
        return connection

    def stop(self) -> None:
        """Be away until it is started again, with all that it knew."""
        self.away = True
        for connection in list(self.connections):
            connection.end(taken_over=False)

    def lose_its_disk(self) -> None:
        """Forget every session and what is retained."""
        self.stop()
        self.sessions.clear()
        self.retained.clear()


class SimulatedConnection:
    """What is sent takes its time, and is lost with the connection."""

    def __init__(self, world: World, client_id: str, events: Any, *, session_present: bool) -> None:
        self.at = "broker"
        self.receive_maximum = WINDOW
        self.packet_max = DEFAULT_PACKET_MAX
        self.can_share = world.broker.can_share
        self.taken_over = False
        self.session_present = session_present
        self.outbox: deque[Callable[[Session], None]] = deque()
        self.answers: deque[Published] = deque()
        self._mids = 0
        self.open = True
        self.process = world.current.process if world.current else None
        self._world = world
        self._client_id = client_id
        self._events = events

    @property
    def _session(self) -> Session:
        return self._world.broker.sessions[self._client_id]

    def bring(self, mid: int, topic: str, payload: bytes, qos: int = 1) -> None:
        self._events.put(Received(mid, topic, payload, qos))

    def tell(self, topic: str, payload: bytes) -> None:
        def route(_: Session) -> None:
            for one in self._world.broker.connections:
                if one._session.wants(topic, ""):
                    one.bring(0, topic, payload, qos=0)

        self._send(route)

    def answer(self) -> None:
        """Let whoever published have the first PUBACK."""
        self._events.put(self.answers.popleft())

    def deliver(self) -> None:
        """Let the broker have what was sent first."""
        self.outbox.popleft()(self._session)

    def end(self, *, taken_over: bool) -> None:
        """End as the broker, or the process's death, wants it."""
        self.open = False
        self.taken_over = taken_over
        self.outbox.clear()
        self.answers.clear()
        self._world.broker.connections.remove(self)
        if self._session.connection is self:
            self._session.connection = None
        self._events.put(Lost("ended", taken_over))

    def _send(self, command: Callable[[Session], None]) -> None:
        if self.open:
            self.outbox.append(command)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        self._world.point()
        self._mids += 1
        mid, broker = self._mids, self._world.broker

        def take(_: Session) -> None:
            if retain:
                broker.retained[topic] = payload
            self.answers.append(Published(mid, 0 if broker.route(topic, payload) else 0x10))

        self._send(take)
        return mid

    def subscribe(self, topics: list[str]) -> None:
        self._world.point()
        self._send(lambda session: self._world.broker.subscribe(session, topics))

    def unsubscribe(self, topics: list[str]) -> None:
        self._world.point()
        self._send(lambda session: session.subscriptions.difference_update(topics))

    def settle(self) -> None:
        assert self._world.current
        self._world.current.pause(lambda: not self.outbox, 5)
        if self.outbox or not self.open:
            raise BrokerAwayError("not confirmed")

    def acknowledge(self, messages: Sequence[Received]) -> None:
        mids = [message.mid for message in messages if message.qos]

        def take(session: Session) -> None:
            for mid in mids:
                session.in_flight.pop(mid)
                session.send()

        if mids:
            self._send(take)

    def alive(self) -> bool:
        return True

    def close(self, *, end_session: bool = False) -> None:
        self._world.point()
        while self.open and self.outbox:
            self.deliver()
        if self.open:
            self.end(taken_over=False)
            if end_session:
                del self._world.broker.sessions[self._client_id]


@dataclass(frozen=True)
class Connector:
    """What the recorder's slots and the reader make their connections with."""

    world: World
    client_id: str
    clean: bool = False
    former: None = None

    def __call__(self, events: Any) -> SimulatedConnection:
        return self.world.broker.connect(self.client_id, events, clean=self.clean)


class SimulatedLedger:
    def __init__(self, world: World) -> None:
        self._world = world

    def change(self, rule: Callable[[Group], Group]) -> Group:
        while True:
            self._ask()
            revision, new = self._world.revision, rule(self._world.group)
            self._ask()
            if revision == self._world.revision:
                self._world.group, self._world.revision = new, revision + 1
                if self._world.forgets:
                    raise RetryableError("no answer")
                return new

    def _ask(self) -> None:
        self._world.point()
        if self._world.database_away:
            raise RetryableError("away")

    def close(self) -> None:
        pass


class SimulatedSink:
    def __init__(self, world: World) -> None:
        self._world = world

    def prepare(self) -> None:
        pass

    def store(self, items: Any) -> Stored:
        self._world.point()
        if self._world.database_away:
            raise RetryableError("away")
        readings = [item for item in items if isinstance(item, Reading)]
        new = {item.envelope.seq for item in readings} - self._world.stored
        self._world.stored |= new
        self._world.point()
        if self._world.forgets:
            raise RetryableError("no answer")
        return Stored(len(new), len(items) - len(new))

    def close(self) -> None:
        pass


class Process:
    """Something that can hang and be killed."""

    def __init__(self, world: World) -> None:
        self.killed = False
        self.paused = False
        self.stop: Any = SimulatedEvent(world)
        self._world = world

    def begin(self, run: Callable[[Any], None]) -> None:
        self.main = Task(self._world, self, lambda: run(self.stop))
        self.main.start()

    def kill(self) -> None:
        """End it where it stands; the kernel closes its connections."""
        self.killed = True
        self.paused = False
        for connection in list(self._world.broker.connections):
            if connection.process is self:
                connection.end(taken_over=False)
        for task in list(self._world.tasks):
            while task.process is self and not task.done:
                task.step()


class Recorder(Process):
    """A recorder."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.metrics = ConsumerMetrics()
        health = Health(clock=lambda: world.now)
        clock: Callable[[], float] = lambda: world.now  # noqa: E731
        connector: Any = Connector(world, GROUP)
        self.slots = LeasedSlots(SimulatedLedger(world), connector, LEASE_S, health, clock)
        topics, retry = Topics(), Retry(health, self.stop, wait_fixed(1))
        storing = Storing(
            "tester",
            SimulatedSink(world),
            topics,
            retry,
            self.metrics,
            name=STORE,
            batch_size=WINDOW // 2,
            clock=clock,
        )
        consumer = Consumer(
            self.slots, storing, topics, retry, self.metrics, name=STORE, clock=clock
        )
        self.begin(lambda _: consumer.run())

    def balances(self) -> bool:
        """Received = stored + duplicate + given back + in flight."""
        counted = (self.metrics.stored, self.metrics.duplicate, self.metrics.given_back)
        total = sum(one._value.get() for one in counted) + self.metrics.in_flight._value.get()
        return bool(self.metrics.received._value.get() == total)


class PointedOutbox(SpoolOutbox):
    """The reader's outbox, before and after each change of which others may go first."""

    world: World

    def taken(self, keys: list[int]) -> None:
        self.world.point()
        super().taken(keys)
        self.world.point()

    def confirmed(self, said: Confirmation) -> None:
        self.world.point()
        super().confirmed(said)
        self.world.point()


class Home(Process):
    """A reader's publishing half, which knows that the recorders must confirm."""

    def __init__(self, world: World, spool: Path) -> None:
        super().__init__(world)
        self.metrics = PublisherMetrics()
        topics = Topics()
        self.spool = Spool(spool, topics, max_mb=16)
        self.outbox = PointedOutbox(
            spool,
            metrics=self.metrics,
            stores=Stores(STORE),
            clock=lambda: world.now,
        )
        self.outbox.world = world
        run = self.spool.begin("home", "default", NOW)
        connector: Any = Connector(world, "home", clean=True)
        self.publisher = Publisher(
            connector,
            self.outbox,
            Health(clock=lambda: world.now),
            self.metrics,
            wait=wait_fixed(1),
            clock=lambda: world.now,
        )
        self.publisher.hear_stores(topics, ["home"])
        self.publisher.set_state(topics.of(RUN, node="home"), encode(run))
        self.begin(self.publisher.run)

    def accept(self, count: int) -> int:
        """Accept so many readings and return the number of the last one."""
        body = InstantaneousDemand(
            device=None, meter=None, time=NOW, multiplier=1, divisor=1, demand=1, demand_kw=1.0
        )
        readings = self.spool.accept([(body, NOW)] * count, [])
        self.publisher.wake()
        return readings[-1].envelope.seq

    def balances(self) -> bool:
        """Published = taken + kept + unanswered, when nothing is in flight."""
        m = self.metrics
        kept = sum(s.value for s in m.kept.collect()[0].samples if s.name.endswith("_total"))
        total = m.taken._value.get() + kept + m.unanswered._value.get()
        return bool(m.published._value.get() == total)

    def close(self) -> None:
        self.kill()
        self.spool.close()
        self.outbox.close()


def patch(monkeypatch: Any, world: World) -> None:
    """Let the recorders wait as the world wants it."""

    def thread(target: Any, args: Any, **_: Any) -> Task:
        assert world.current
        return Task(world, world.current.process, lambda: target(*args))

    simulated = SimpleNamespace(
        Event=lambda: SimulatedEvent(world), Lock=lambda: SimulatedLock(world), Thread=thread
    )
    monkeypatch.setattr(slots_module, "threading", simulated)
    monkeypatch.setattr(storing_module, "SimpleQueue", lambda: SimulatedQueue(world))
    monkeypatch.setattr(publisher_module, "SimpleQueue", lambda: SimulatedQueue(world))


def message(number: int) -> bytes:
    envelope = Envelope(node="home", run="r", hash=HASH, seq=number, received=NOW)
    body = InstantaneousDemand(
        device=None, meter=None, time=NOW, multiplier=1, divisor=1, demand=number, demand_kw=1.0
    )
    return encode(Reading(envelope, body))
