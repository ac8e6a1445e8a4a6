"""The publishing half against scripted connections."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial

import pytest
from tenacity import wait_none

from ravenbus import publisher as module
from ravenbus import retrying
from ravenbus.errors import BrokerAwayError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import Confirmation, Gone, encode
from ravenbus.metrics import PublisherMetrics
from ravenbus.mqtt import Received
from ravenbus.publisher import Entry, Publisher
from ravenbus.topics import GONE, Topics

from .fakes import Clock, FakeBroker, FakeConnection


class MemoryOutbox:
    def __init__(self, payloads: list[bytes], topic: str = "t") -> None:
        self.waiting = [Entry(key, topic, p) for key, p in enumerate(payloads, 1)]
        self.full_disk = 0
        self.not_allowed: frozenset[str] = frozenset()

    def begin(self) -> None:
        pass

    def tend(self) -> None:
        pass

    def entries(self, after: int, limit: int) -> list[Entry]:
        return [entry for entry in self.waiting if entry.key > after][:limit]

    def taken(self, keys: list[int]) -> None:
        if self.full_disk:
            self.full_disk -= 1
            raise RetryableError("full")
        self.waiting = [entry for entry in self.waiting if entry.key not in keys]

    def left(self) -> list[bytes]:
        return [entry.payload for entry in self.waiting]

    def kept(self, keys: list[int]) -> None:
        pass

    def forbidden(self, topics: frozenset[str]) -> None:
        self.not_allowed = topics

    def confirmed(self, said: Confirmation) -> None:
        pass

    def gone(self, stores: frozenset[str]) -> None:
        pass


class Run:
    """Runs a publisher until ``done`` says so at a turn of its loop."""

    def __init__(self, outbox: MemoryOutbox, monkeypatch, window: int = 100) -> None:
        monkeypatch.setattr(retrying, "LONGEST_PAUSE_S", 0)
        monkeypatch.setattr(module, "TAKEN_OVER_PAUSE_S", 0)
        self.clock = Clock()
        self.stop = threading.Event()
        self.metrics = PublisherMetrics()
        self.health = Health()
        self.outbox = outbox
        self._window = window
        self.broker = FakeBroker()
        self.publisher: Publisher

    def over(self, *prepare: Callable[[FakeConnection], None]) -> FakeBroker:
        self.broker = FakeBroker(*prepare)
        self.publisher = Publisher(
            self.broker,
            self.outbox,
            self.health,
            self.metrics,
            window=self._window,
            wait=wait_none(),
            clock=self.clock,
        )
        return self.broker

    def go(self) -> None:
        self.publisher.run(self.stop)


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(1, count + 1)]


def test_only_a_puback_of_success_removes_an_entry(monkeypatch):
    """Reasons 16 and 0x97 keep their entries; those behind them go on and are removed."""
    run = Run(MemoryOutbox(numbered(5)), monkeypatch)

    def prepare(connection: FakeConnection) -> None:
        connection.puback = lambda _, payload: {b"2": 0x10, b"4": 0x97}.get(payload, 0)
        connection.on_turn = run.stop.set

    run.over(prepare)
    run.go()
    assert run.outbox.left() == [b"2", b"4"]
    assert "0x97" in run.health.problems()["publish"]


def of_two_nodes(count: int) -> MemoryOutbox:
    """Return an outbox with as many entries of the node ``mine`` as of ``other``, in turn."""
    outbox = MemoryOutbox(numbered(2 * count))
    outbox.waiting = [
        entry._replace(topic="mine" if entry.key % 2 else "other") for entry in outbox.waiting
    ]
    return outbox


def test_what_an_account_may_not_write_is_said_once_by_its_topic(monkeypatch, caplog):
    """The other topic goes on meanwhile; the end is said once too, and what was kept follows soon."""
    caplog.set_level("INFO")
    run = Run(of_two_nodes(3), monkeypatch)
    allowed = False

    def prepare(connection: FakeConnection) -> None:
        connection.puback = lambda topic, _: 0 if topic == "mine" or allowed else 0x87

        def turn() -> None:
            nonlocal allowed
            run.clock.now += 1
            if run.clock.now > 1100 and not allowed:
                allowed = True
                run.outbox.waiting.append(Entry(100, "other", b"100"))
                allowed_at.append(run.clock.now)
            if not run.outbox.waiting:
                run.stop.set()

        connection.on_turn = turn

    allowed_at: list[float] = []
    run.over(*[prepare] * 6)
    run.go()
    assert run.clock.now - allowed_at[0] < 10, "what was kept waits for no other time"
    said = [(r.message, r.check) for r in caplog.records if "publish" in getattr(r, "check", "")]
    assert said == [("problem", "publish:other"), ("recovered", "publish:other")]
    assert 2 < len(run.broker.connections) < 6
    assert run.outbox.not_allowed == {"other"}


def test_what_is_refused_and_then_gone_is_no_problem_for_ever(monkeypatch):
    """Its rows were removed: a connection that has tried all there is finds nothing refused."""
    run = Run(of_two_nodes(2), monkeypatch)

    def first(connection: FakeConnection) -> None:
        connection.puback = lambda topic, _: 0 if topic == "mine" else 0x87

        def turn() -> None:
            run.clock.now += 1

        connection.on_turn = turn

    def second(connection: FakeConnection) -> None:
        assert "publish:other" in run.health.problems()
        run.outbox.waiting.clear()
        end = run.clock.now + 100

        def turn() -> None:
            run.clock.now += 1
            if run.clock.now > end:
                run.stop.set()

        connection.on_turn = turn

    run.over(first, second)
    run.go()
    assert run.health.problems() == {}


def test_very_many_topics_are_not_all_named(monkeypatch):
    """An account with no rights at all, on a database of a thousand homes."""
    run = Run(MemoryOutbox(numbered(300)), monkeypatch)
    run.outbox.waiting = [entry._replace(topic=f"t{entry.key}") for entry in run.outbox.waiting]

    def prepare(connection: FakeConnection) -> None:
        connection.puback = lambda *_: 0x87
        connection.on_turn = lambda: run.stop.set() if not connection.unanswered else None

    run.over(prepare)
    run.go()
    assert len(run.health.problems()) == module.FORBIDDEN_MAX


def test_an_entry_without_an_answer_is_published_again_in_the_next_connection_only(monkeypatch):
    """A connection publishes an entry once; what had no PUBACK comes again in the next one."""
    run = Run(MemoryOutbox(numbered(4)), monkeypatch)

    def first(connection: FakeConnection) -> None:
        connection.puback = lambda _, payload: None if payload in (b"2", b"3") else 0
        turns = iter(range(10))
        connection.on_turn = lambda: connection.lose() if next(turns) == 5 else None

    def second(connection: FakeConnection) -> None:
        connection.on_turn = lambda: None if run.outbox.waiting else run.stop.set()

    broker = run.over(first, second)
    run.go()
    assert broker.connections[0].payloads() == numbered(4)
    assert broker.connections[1].payloads() == [b"2", b"3"]
    assert run.outbox.left() == []


def test_a_broker_that_answers_some_of_what_is_published_is_left_for_another(monkeypatch):
    """A node without its cluster answers what no store takes; the reading goes by the next one."""
    run = Run(MemoryOutbox(numbered(1)), monkeypatch)

    def cut_off(connection: FakeConnection) -> None:
        connection.puback = lambda topic, _: None if topic == "t" else 0

        def turn() -> None:
            run.clock.now += 1
            run.publisher.set_state("latest", b"")

        connection.on_turn = turn

    def second(connection: FakeConnection) -> None:
        connection.on_turn = lambda: None if run.outbox.waiting else run.stop.set()

    began = run.clock.now
    broker = run.over(cut_off, second)
    run.go()
    assert run.clock.now - began == module.ANSWER_S + 1
    assert broker.connections[0].closed
    assert run.outbox.left() == []


def test_a_broker_that_is_slow_is_not_left(monkeypatch):
    """It has taken entries all the time, if each waits for minutes: another would begin anew."""
    run = Run(MemoryOutbox(numbered(10)), monkeypatch)

    def slow(connection: FakeConnection) -> None:
        connection.puback = lambda *_: None
        answers = iter(range(1, 11))

        def turn() -> None:
            run.clock.now += module.ANSWER_S / 2
            if mid := next(answers, None):
                connection.answer(mid, 0)
            else:
                run.stop.set()

        connection.on_turn = turn

    broker = run.over(slow, lambda _: run.stop.set())
    run.go()
    assert len(broker.connections) == 1
    assert run.outbox.left() == []


def test_a_broker_is_not_left_for_what_an_outbox_held_up(monkeypatch):
    """Its answer came while what was taken before could not be noted."""
    run = Run(MemoryOutbox(numbered(2)), monkeypatch)

    def prepare(connection: FakeConnection) -> None:
        connection.puback = lambda _, payload: 0 if payload == b"1" else None
        connection.on_turn = lambda: None if run.outbox.waiting else run.stop.set()
        noted = run.outbox.taken

        def taken(keys: list[int]) -> None:
            noted(keys)
            if run.outbox.waiting:
                run.clock.now += module.ANSWER_S + 1
                connection.answer(2, 0)

        monkeypatch.setattr(run.outbox, "taken", taken)

    broker = run.over(prepare, lambda _: run.stop.set())
    run.go()
    assert len(broker.connections) == 1
    assert run.outbox.left() == []


def test_the_window_bounds_what_is_under_way(monkeypatch):
    """Neither our window nor the broker's Receive Maximum is ever exceeded, state included."""
    for window, receive_maximum, bound in ((3, 100, 3), (100, 5, 5)):
        run = Run(MemoryOutbox(numbered(50)), monkeypatch, window=window)

        def prepare(connection: FakeConnection, run=run, maximum=receive_maximum) -> None:
            connection.receive_maximum = maximum
            connection.puback = lambda *_: None
            answered = [0]

            def turn() -> None:
                if not run.outbox.waiting:
                    run.stop.set()
                for mid in range(answered[0] + 1, len(connection.published) + 1):
                    connection.answer(mid, 0)
                    answered[0] = mid

            connection.on_turn = turn

        broker = run.over(prepare)
        for number in range(10):
            run.publisher.set_state(f"state/{number}", b"x")
        run.go()
        assert broker.connections[0].most_unanswered == bound
        assert run.outbox.left() == []


def test_kept_entries_are_published_again_soon_after_a_subscriber_came(monkeypatch):
    """The first PUBACK 0 on a topic that nobody heard renews the connection for what was kept."""
    run = Run(MemoryOutbox(numbered(3)), monkeypatch)
    heard = [False]

    def first(connection: FakeConnection) -> None:
        connection.puback = lambda *_: 0 if heard[0] else 0x10
        turns = iter(range(100))

        def turn() -> None:
            if next(turns) == 3:
                heard[0] = True
                run.outbox.waiting.append(Entry(4, "t", b"4"))
            run.clock.now += 1

        connection.on_turn = turn

    def second(connection: FakeConnection) -> None:
        connection.on_turn = lambda: None if run.outbox.waiting else run.stop.set()

    broker = run.over(first, second)
    run.go()
    assert broker.connections[0].payloads() == numbered(4)
    assert broker.connections[0].closed
    assert broker.connections[1].payloads() == numbered(3)
    assert run.clock.now < 1000 + module.FIRST_RETRY_S


def test_while_nobody_subscribes_the_waits_between_attempts_double(monkeypatch):
    """Kept entries are offered again after 15 s, then 30 s, 60 s: not in a busy loop."""
    run = Run(MemoryOutbox(numbered(1)), monkeypatch)
    opened: list[float] = []

    def deaf(connection: FakeConnection) -> None:
        opened.append(run.clock.now)
        connection.puback = lambda *_: 0x10

        def turn() -> None:
            run.clock.now += 1
            if len(opened) == 4:
                run.stop.set()

        connection.on_turn = turn

    run.over(deaf, deaf, deaf, deaf)
    run.go()
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(opened)]
    assert [wait // 15 for wait in waits] == [1, 2, 4]
    assert run.outbox.left() == [b"1"]


def test_state_is_retained_and_said_again_at_each_connection(monkeypatch):
    """The last state of a topic, and only that, opens every connection."""
    run = Run(MemoryOutbox([]), monkeypatch)

    def first(connection: FakeConnection) -> None:
        turns = iter(range(10))
        connection.on_turn = lambda: connection.lose() if next(turns) == 2 else None

    def second(connection: FakeConnection) -> None:
        connection.on_turn = run.stop.set

    broker = run.over(first, second)
    run.publisher.set_state("status", b"old")
    run.publisher.set_state("status", b"new")
    run.publisher.send_once("reply", b"lost while away")
    run.go()
    assert [c.published for c in broker.connections] == [[("status", b"new", True)]] * 2


def test_a_connection_that_is_renewed_says_only_what_was_not_answered(monkeypatch, caplog):
    """What is retained was not lost with it; why it is renewed is logged."""
    caplog.set_level("INFO")
    run = Run(MemoryOutbox(numbered(1)), monkeypatch)

    def deaf(connection: FakeConnection) -> None:
        connection.puback = lambda topic, _: {"t": 0x10, "late": None}.get(topic, 0)

        def turn() -> None:
            run.clock.now += 10

        connection.on_turn = turn

    def second(connection: FakeConnection) -> None:
        connection.on_turn = run.stop.set

    broker = run.over(deaf, second)
    run.publisher.set_state("status", b"online")
    run.publisher.set_state("late", b"unanswered")
    run.go()
    assert ("status", b"online", True) in broker.connections[0].published
    again = [topic for topic, _, retain in broker.connections[1].published if retain]
    assert again == ["late"]
    (record,) = [one for one in caplog.records if one.message == "connecting anew"]
    assert "1 entries were not taken" in record.reason


@pytest.mark.parametrize("then", ["away", "another"])
def test_a_broker_that_may_lack_what_is_retained_is_told_it_again(monkeypatch, then):
    """Also where the connection was to be renewed, and the broker was away or another one came."""
    run = Run(MemoryOutbox(numbered(1)), monkeypatch)

    def deaf(connection: FakeConnection) -> None:
        connection.puback = lambda topic, _: 0x10 if topic == "t" else 0

        def turn() -> None:
            run.clock.now += 10

        connection.on_turn = turn

    def away(_: FakeConnection) -> None:
        raise BrokerAwayError("it is started anew")

    def second(connection: FakeConnection) -> None:
        connection.at = "broker" if then == "away" else "another"
        connection.on_turn = run.stop.set

    broker = run.over(*[deaf, away, second] if then == "away" else [deaf, second])
    run.publisher.set_state("status", b"online")
    run.go()
    assert ("status", b"online", True) in broker.connections[-1].published


def test_what_is_removed_is_removed_once(monkeypatch):
    """Nothing is said at that topic any more; whoever wants to know hears whether it was done."""
    run = Run(MemoryOutbox([]), monkeypatch)
    answers: dict[str, bool] = {}

    def first(connection: FakeConnection) -> None:
        connection.puback = lambda topic, _: 0x87 if topic == "another's" else 0
        turns = iter(range(10))
        connection.on_turn = lambda: connection.lose() if next(turns) == 2 else None

    def second(connection: FakeConnection) -> None:
        connection.on_turn = run.stop.set

    broker = run.over(first, second)
    for topic in ("former", "another's"):
        run.publisher.set_state(topic, b"", partial(answers.__setitem__, topic))
    run.go()
    assert [topic for topic, _, _ in broker.connections[0].published] == ["former", "another's"]
    assert broker.connections[1].published == []
    assert answers == {"former": True, "another's": False}


def test_a_store_that_comes_is_told_the_run_again(monkeypatch):
    """Not every broker gives what is retained to who subscribes with a wildcard."""
    topics = Topics()
    run = Run(MemoryOutbox([]), monkeypatch)
    said = [encode(Gone(store="raven-tester")), b""]

    def prepare(connection: FakeConnection) -> None:
        def turn() -> None:
            if said:
                connection.events.put(
                    Received(1, topics.of(GONE, store="raven-tester"), said.pop(0))
                )
            else:
                run.stop.set()

        connection.on_turn = turn

    broker = run.over(prepare)
    run.publisher.hear_stores(topics, ["home"])
    state = [(f"raven/v1/home/{leaf}", b"x", True) for leaf in ("run", "status")]
    for topic, payload, _ in state:
        run.publisher.set_state(topic, payload)
    run.go()
    assert broker.connections[0].published == [*state, state[0]]


def test_a_full_disk_does_not_lose_the_knowledge_of_what_was_taken(monkeypatch):
    """An entry that cannot be removed now is removed later and never published twice."""
    run = Run(MemoryOutbox(numbered(2)), monkeypatch)
    run.outbox.full_disk = 2

    def prepare(connection: FakeConnection) -> None:
        connection.on_turn = lambda: None if run.outbox.waiting else run.stop.set()

    broker = run.over(prepare)
    run.go()
    assert broker.connections[0].payloads() == numbered(2)
    assert run.outbox.left() == []


def test_messages_on_subscribed_topics_are_handled_and_acknowledged(monkeypatch):
    """A command reaches its handler on the main loop and is acknowledged after it."""
    run = Run(MemoryOutbox([]), monkeypatch)
    seen: list[Received] = []
    sent = [Received(7, "command", b"hello"), Received(8, "stored/sql", b"all", qos=0)]
    retained = Received(9, "command", b"factory_reset", retained=True)

    def prepare(connection: FakeConnection) -> None:
        for one in (*sent, retained):
            connection.events.put(one)
        connection.on_turn = lambda: run.stop.set() if 9 in connection.acknowledged else None

    broker = run.over(prepare)
    run.publisher.subscribe("command", seen.append)
    run.publisher.subscribe("stored/+", seen.append)
    run.go()
    assert seen == sent
    assert broker.connections[0].subscribed == ["command", "stored/+"]
    assert broker.connections[0].acknowledged == [7, 8, 9]


def test_a_broker_that_is_away_for_days_costs_no_memory(monkeypatch):
    """Whatever happens meanwhile, one event waits, one message a topic, and few replies."""
    run = Run(MemoryOutbox([]), monkeypatch)
    run.over()
    for number in range(10_000):
        run.publisher.wake()
        run.publisher.set_state("latest", str(number).encode())
        run.publisher.send_once("raw", b"x")
    assert run.publisher._events.qsize() == 1
    assert len(run.publisher._state) == 1
    assert len(run.publisher._once) == module.ONCE_MAX


def test_what_was_taken_is_settled_before_what_came_after_it_is_handled(monkeypatch):
    """A store's confirmation can be read together with the PUBACK, and would find nothing."""
    outbox = MemoryOutbox([b"1"])
    run = Run(outbox, monkeypatch)
    left: list[list[bytes]] = []

    def answer(connection: FakeConnection) -> None:
        connection.puback = lambda _topic, _payload: None
        connection.on_turn = lambda: turn(connection)

    def turn(connection: FakeConnection) -> None:
        if connection.published and connection.unanswered:
            connection.answer(1, 0)
            connection.events.put(Received(1, "stored", b""))
        if left:
            run.stop.set()

    run.over(answer)
    run.publisher.subscribe("stored", lambda _: left.append(outbox.left()))
    run.publisher.run(run.stop)
    assert left == [[]]
