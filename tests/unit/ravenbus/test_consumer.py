"""Whose session a consumer uses, and how it comes and goes, over scripted connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from ravenbus import consumer
from ravenbus.errors import BrokerAwayError, FatalError, SlotLostError
from ravenbus.hearing import SILENT_S
from ravenbus.mqtt import Connect, Denied
from ravenbus.slots import Slot, former
from ravenbus.topics import GONE, Topics

from .bench import Bench, bringing, message, started
from .fakes import FakeBroker, FakeConnection


class GroupSlot:
    """A slot among others; ``calls`` has what was said of it."""

    group = "g"

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.calls: list[str] = []
        self.others = True
        self.leaves = False
        self.lost = False
        self.on_confirm: Callable[[], None] = lambda: None
        self.before: Connect | None = None

    def stand_by(self, stop: threading.Event) -> None:
        self.calls.append("stand by")
        stop.set()

    def take(self, stop: threading.Event) -> Slot | None:
        self.lost = False
        return None if stop.is_set() else self

    def former(self) -> Slot | None:
        return former(self, self.before)

    def shared(self) -> bool:
        return self.others

    def require(self) -> None:
        if self.lost:
            raise SlotLostError("lost")

    def confirm(self) -> None:
        self.on_confirm()
        self.require()
        self.calls.append("confirm")

    def joined(self) -> None:
        self.calls.append("joined")

    def leave(self) -> bool:
        return self.leaves

    def closed(self) -> None:
        self.calls.append("closed")

    def adopt(self) -> Slot | None:
        return None

    def release(self) -> None:
        self.calls.append("release")


def grouped(monkeypatch, *prepare: Callable[[FakeConnection], None]) -> tuple[Bench, GroupSlot]:
    bench = Bench(monkeypatch, *prepare)
    slot = GroupSlot(bench.broker)
    bench.consumer = replace(bench.consumer, slots=slot)
    return bench, slot


def test_the_session_of_an_older_version_is_drained_and_ended(monkeypatch):
    """What waits in it is stored before anything else is waited for; its slot goes on."""
    holder: list[Bench] = []
    bench, slot = grouped(monkeypatch, bringing(holder, message(2)))
    holder.append(bench)

    monkeypatch.setattr(consumer, "QUIET_S", 0.01)

    def waiting(connection: FakeConnection) -> None:
        connection.session_present = True
        monkeypatch.setattr(connection, "subscribed", [*Topics().stored()])
        connection.events.put(message(1))

    slot.before = old = FakeBroker(waiting, wakes=False)
    bench.go()
    assert bench.sink.numbers == [1, 2]
    (connection,) = old.connections
    assert (connection.acknowledged, connection.session_ended) == ([1], True)
    assert connection.subscribed == []
    assert slot.calls == ["confirm", "joined", "release"]


@pytest.mark.parametrize("present", [True, False])
def test_a_session_gives_up_only_what_it_has_and_once(monkeypatch, present: bool):
    """Who gives up what it does not have takes it from everybody else on ejabberd."""
    holder: list[Bench] = []
    bench, slot = grouped(monkeypatch, bringing(holder, message(1)))
    holder.append(bench)
    monkeypatch.setattr(consumer, "QUIET_S", 0.01)
    given_up: list[str] = []

    def prepare(connection: FakeConnection) -> None:
        connection.session_present = present
        monkeypatch.setattr(connection, "unsubscribe", given_up.extend)

    slot.before = old = FakeBroker(prepare, wakes=False)
    bench.go()
    subscribed = sorted({*Topics().stored(), *Topics().shared("g")})
    assert sorted(given_up) == sorted(
        [Topics().of(GONE, store="raven-tester"), *subscribed * present]
    )
    assert old.connections[0].session_ended


def test_who_sits_in_the_session_of_an_older_version_stops_nobody(monkeypatch):
    """Another client under the id that is no secret keeps that session, and the store works."""
    holder: list[Bench] = []
    bench, slot = grouped(monkeypatch, bringing(holder, message(2)))
    holder.append(bench)

    def thrown_out(connection: FakeConnection) -> None:
        connection.events.put(message(1))
        connection.lose(taken_over=True)

    slot.before = FakeBroker(thrown_out, wakes=False)
    bench.go()
    assert 2 in bench.sink.numbers
    assert slot.calls == ["confirm", "joined", "release"]


def test_a_refused_subscription_is_a_problem_and_tried_again(monkeypatch):
    """A recorder that may not subscribe says so instead of waiting for nothing."""
    holder: list[Bench] = []
    denied = Denied("the broker refuses a subscription: Not authorized")
    again = bringing(holder, message(1))
    holder.append(Bench(monkeypatch, lambda c: c.events.put(denied), again))
    said: list[str] = []
    monkeypatch.setattr(holder[0].health, "failing", lambda _check, reason: said.append(reason))
    holder[0].go()
    assert "Not authorized" in said[0]
    assert holder[0].sink.numbers == [1]


def test_a_broker_that_brings_nothing_is_asked_and_left_if_it_cannot(monkeypatch):
    """A node without its cluster keeps the connection and grants nothing new."""
    holder: list[Bench] = []
    asked: list[tuple[float, str]] = []

    def silent(connection: FakeConnection) -> None:
        def turn() -> None:
            holder[0].clock.now += 1

        def subscribe(topics: list[str]) -> None:
            asked.append((holder[0].clock.now, topics[0]))

        def settle() -> None:
            if len(asked) == 3:
                raise BrokerAwayError("the broker does not confirm a subscription")

        connection.on_turn = turn
        monkeypatch.setattr(connection, "subscribe", subscribe)
        monkeypatch.setattr(connection, "settle", settle)

    holder.append(Bench(monkeypatch, silent, bringing(holder, message(1))))
    monkeypatch.setattr(consumer, "TICK_S", 0)
    holder[0].go()
    (began, _), *later = asked
    assert [at - began for at, _ in later] == [SILENT_S + 2, 2 * SILENT_S + 3]
    assert {topic for _, topic in later} == {"raven/v1/health/run"}
    assert holder[0].sink.numbers == [1]


def test_a_session_takeover_ends_the_consumer(monkeypatch):
    """Two consumers with one client id must not fight: this one ends with the reason."""
    bench = Bench(monkeypatch, lambda connection: connection.lose(taken_over=True))
    with pytest.raises(FatalError, match="RAVEN_CLIENT_ID"):
        bench.go()


def test_a_takeover_is_noticed_while_the_store_is_away(monkeypatch):
    """A consumer that lost its session stops trying to store for it."""
    bench = started(monkeypatch, message(1))
    bench.sink.away = 10
    bench.sink.on_store = lambda: bench.broker.connections[0].lose(taken_over=True)
    with pytest.raises(FatalError):
        bench.go()
    assert bench.sink.numbers == []


def test_a_stop_drains_what_has_arrived(monkeypatch):
    """SIGTERM stores and acknowledges what is in the queue, without waiting for its age."""
    holder: list[Bench] = []

    def prepare(connection: FakeConnection) -> None:
        for number in (1, 2, 3):
            connection.events.put(message(number))
        connection.on_turn = holder[0].stop.set

    holder.append(Bench(monkeypatch, prepare))
    bench = holder[0]
    bench.go()
    assert bench.sink.numbers == [1, 2, 3]
    assert bench.broker.connections[0].acknowledged == [1, 2, 3]
    assert bench.broker.connections[0].closed


def test_a_member_shares_readings_and_has_every_run(monkeypatch):
    """Runs are retained, which a shared subscription would not bring."""
    holder: list[Bench] = []
    bench, slot = grouped(monkeypatch, bringing(holder, message(1)))
    holder.append(bench)
    seen: list[str] = []
    bench.sink.on_store = lambda: seen.extend(bench.broker.connections[0].subscribed)
    bench.go()
    assert seen == [
        "$share/g/raven/v1/+/reading/+",
        "$share/g/raven/v1/+/dead",
        "$share/g/raven/v1/dead/reader",
        "raven/v1/+/run",
    ]
    assert slot.calls == ["confirm", "joined", "release"]


def test_one_member_takes_everything_where_the_broker_shares_nothing(monkeypatch):
    """Some brokers grant a shared subscription and send nothing."""
    holder: list[Bench] = []

    def prepare(connection: FakeConnection) -> None:
        connection.can_share = False
        bringing(holder, message(1))(connection)

    bench, slot = grouped(monkeypatch, prepare)
    holder.append(bench)
    seen: list[str] = []
    bench.sink.on_store = lambda: seen.extend(bench.broker.connections[0].subscribed)
    bench.go()
    assert seen == Topics().stored()
    assert slot.calls == ["confirm", "joined", "release"]


def test_a_second_member_stands_by_where_the_broker_shares_nothing(monkeypatch, caplog):
    """What came to it meanwhile is stored; its session is ended, for nobody would look into it."""
    holder: list[Bench] = []

    def prepare(connection: FakeConnection) -> None:
        connection.can_share = False
        bringing(holder, message(1), message(2))(connection)
        connection.on_turn = lambda: None

    bench, slot = grouped(monkeypatch, prepare)
    holder.append(bench)
    monkeypatch.setattr(consumer, "QUIET_S", 0.01)
    slot.leaves = True
    bench.go()
    assert bench.sink.numbers == [1, 2]
    (connection,) = bench.broker.connections
    assert (connection.subscribed, connection.session_ended) == ([], True)
    assert "standing by" in caplog.text
    assert slot.calls == ["confirm", "joined", "closed", "release", "stand by"]


def test_a_session_changes_its_way_without_a_moment_of_silence(monkeypatch):
    """The new subscription is granted before the old one is given up."""
    said: list[tuple[str, str]] = []
    holder: list[Bench] = []

    def prepare(connection: FakeConnection) -> None:
        bringing(holder, message(1))(connection)
        first = connection.on_turn

        def turn() -> None:
            slot.others = not slot.others
            first()

        connection.on_turn = turn
        monkeypatch.setattr(connection, "settle", lambda: said.append(("settle", "")))
        for name in ("subscribe", "unsubscribe"):
            monkeypatch.setattr(connection, name, lambda t, n=name: said.append((n, t[0])))

    bench, slot = grouped(monkeypatch, prepare)
    holder.append(bench)
    bench.go()
    shared, alone = "$share/g/raven/v1/+/reading/+", "raven/v1/+/reading/+"
    assert said[:8] == [
        ("subscribe", shared),
        ("settle", ""),
        ("unsubscribe", alone),
        ("settle", ""),
        ("subscribe", alone),
        ("settle", ""),
        ("unsubscribe", shared),
        ("settle", ""),
    ]


def test_a_session_is_ended_only_when_the_broker_has_nothing_left_for_it(monkeypatch):
    """However slow the broker is, what it sends before it answers is stored first."""
    late = [message(2), message(3)]

    def prepare(connection: FakeConnection) -> None:
        connection.events.put(message(1))
        connection.on_turn = bench.stop.set

        def settle() -> None:
            if bench.stop.is_set() and connection.acknowledged and late:
                connection.events.put(late.pop(0))

        monkeypatch.setattr(connection, "settle", settle)

    bench, slot = grouped(monkeypatch, prepare)
    monkeypatch.setattr(consumer, "QUIET_S", 0.01)
    slot.leaves = True
    bench.go()
    connection = bench.broker.connections[0]
    assert connection.acknowledged == [1, 2, 3]
    assert connection.subscribed == []
    assert connection.session_ended
    assert slot.calls[-2:] == ["closed", "release"]


def test_the_last_of_a_group_keeps_its_session(monkeypatch):
    """It takes every topic alone until the next start, even if the broker is restarted."""
    bench, slot = grouped(monkeypatch, lambda _: bench.stop.set())
    bench.go()
    (connection,) = bench.broker.connections
    assert sorted(connection.subscribed) == sorted(Topics().stored())
    assert connection.closed
    assert not connection.session_ended
    assert slot.calls[-1] == "release"


def test_a_lost_slot_is_left_at_once_without_an_acknowledgement(monkeypatch):
    """Who has the session now gets the messages; this one takes a slot anew."""
    holder: list[Bench] = []

    def lose(connection: FakeConnection) -> None:
        connection.events.put(message(1))
        bench.sink.on_store = lambda: setattr(slot, "lost", True)

    def again(connection: FakeConnection) -> None:
        bench.sink.on_store = lambda: None
        bringing(holder, message(1))(connection)

    bench, slot = grouped(monkeypatch, lose, again)
    holder.append(bench)
    bench.clock.now = 0
    monkeypatch.setattr(bench.storing, "_flush_after_s", 0)
    bench.go()
    first, second = bench.broker.connections
    assert first.acknowledged == []
    assert first.closed
    assert second.acknowledged == [1]
    assert bench.sink.numbers == [1]
    counts = bench.counts()
    assert counts["received"] == 2
    assert (counts["stored"], counts["duplicate"]) == (1, 1)


def test_a_takeover_by_the_slots_new_holder_is_no_fault(monkeypatch):
    """The session was taken over rightly: this one takes a slot anew instead of ending."""
    holder: list[Bench] = []

    def lose(connection: FakeConnection) -> None:
        connection.lose(taken_over=True)
        slot.on_confirm = lambda: setattr(slot, "lost", len(slot.calls) == 2)

    bench, slot = grouped(monkeypatch, lose, bringing(holder, message(1)))
    holder.append(bench)
    bench.go()
    assert bench.sink.numbers == [1]
