"""The consuming half against scripted connections and a store in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace as replaced
from tenacity import wait_none

from ravenbus import consumer, retrying
from ravenbus.consumer import Consumer, Stored
from ravenbus.errors import FatalError, PoisonError, RetryableError, SlotLostError
from ravenbus.health import Health
from ravenbus.messages import (
    Confirmation,
    DeadLetter,
    Envelope,
    Item,
    Reading,
    Run,
    dead_letter,
    dead_letter_id,
    decode,
    encode,
)
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import PACKET_RESERVE, Connect, Denied, Received
from ravenbus.notifications import InstantaneousDemand
from ravenbus.slots import Alone, Slot, former
from ravenbus.topics import Topics

from .fakes import Clock, FakeBroker, FakeConnection

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = "11111111-2222-4333-8444-555555555555"
TOPIC = "raven/v1/home/reading/instantaneous_demand"


def reading(seq: int) -> Reading:
    envelope = Envelope(node="home", run="r", hash=RUN, seq=seq, received=NOW)
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
        self.consumer = Consumer(
            "tester",
            Alone(self.broker),
            self.sink,
            Topics(),
            self.health,
            self.metrics,
            name="raven-tester",
            batch_size=batch_size,
            wait=wait_none(),
            clock=self.clock,
            utc=lambda: NOW,
        )

    def go(self) -> None:
        self.consumer.run(self.stop)

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
    bench.consumer._slots = slot
    return bench, slot


def started(monkeypatch, *messages: Received, batch_size: int = 100) -> Bench:
    holder: list[Bench] = []
    holder.append(Bench(monkeypatch, bringing(holder, *messages), batch_size=batch_size))
    return holder[0]


def test_batches_are_stored_then_acknowledged_in_arrival_order(monkeypatch):
    """Batches go by size, the rest by age; every message is acknowledged once, in order."""
    bench = started(monkeypatch, *map(message, range(1, 26)), batch_size=10)
    bench.go()
    assert bench.sink.numbers == list(range(1, 26))
    assert bench.sink.batches == [10, 10, 5]
    assert bench.broker.connections[0].acknowledged == list(range(1, 26))
    assert bench.broker.connections[0].subscribed == Topics().stored()


def test_a_batch_to_which_nothing_more_can_come_does_not_wait(monkeypatch):
    """A broker that has ten messages under way sends no more before they are acknowledged."""
    bench = started(monkeypatch)
    waits = 0

    def sending(connection: FakeConnection) -> None:
        def turn() -> None:
            nonlocal waits
            acknowledged, rest = len(connection.acknowledged), connection.events.empty()
            if acknowledged == 100:
                bench.stop.set()
            elif rest and acknowledged % 10 == 0 and len(bench.sink.numbers) == acknowledged:
                if bench.counts()["received"] == acknowledged:
                    for seq in range(acknowledged + 1, acknowledged + 11):
                        connection.events.put(message(seq))
                else:
                    waits += 1
                    bench.clock.now += 1

        connection.on_turn = turn

    bench.broker._prepare = [sending]
    bench.go()
    assert bench.sink.batches == [10] * 10
    assert waits == 2, "until it is known, and once more after eight batches"


def test_a_batch_of_a_stream_is_not_cut_short(monkeypatch):
    """Messages that come one by one are no window, however regularly they come."""
    bench = started(monkeypatch)
    seqs = iter(range(1, 101))

    def streaming(connection: FakeConnection) -> None:
        def turn() -> None:
            if connection.events.empty():
                bench.clock.now += 0.05
                seq = next(seqs, None)
                if seq:
                    connection.events.put(message(seq))
                elif len(connection.acknowledged) == 100:
                    bench.stop.set()

        connection.on_turn = turn

    bench.broker._prepare = [streaming]
    bench.go()
    assert min(bench.sink.batches[:-1]) >= 10


def test_a_stream_that_begins_after_a_pause_is_taken_for_a_window_for_a_while_alone(monkeypatch):
    """A lone message, a pause, then one every 20 ms: after eight commits for one each it is known."""
    monkeypatch.setattr(consumer, "TICK_S", 0)  # whoever waits moves the clock
    bench = started(monkeypatch)
    seqs, began = iter(range(1, 201)), bench.clock.now

    def streaming(connection: FakeConnection) -> None:
        def turn() -> None:
            if connection.events.empty():
                bench.clock.now += 0.02
                if bench.counts()["received"] == 1 and bench.clock.now < began + 0.6:
                    return
                seq = next(seqs, None)
                if seq:
                    connection.events.put(message(seq))
                elif len(connection.acknowledged) == 200:
                    bench.stop.set()

        connection.on_turn = turn

    bench.broker._prepare = [streaming]
    bench.go()
    assert bench.sink.batches[:10] == [1] * 9 + [max(bench.sink.batches)]
    assert max(bench.sink.batches) >= 20


def test_nothing_is_acknowledged_before_the_store_has_committed(monkeypatch):
    """However often the store is away, the acknowledgement waits for the commit."""
    bench = started(monkeypatch, message(1), message(2))
    bench.sink.away = 50
    seen: list[list[int]] = []
    bench.sink.on_store = lambda: seen.append(list(bench.broker.connections[0].acknowledged))
    bench.go()
    assert len(seen) == 51
    assert not any(seen)
    assert bench.sink.numbers == [1, 2]
    assert not bench.health.problems()


def test_a_poison_message_is_found_and_buried_and_the_others_are_stored(monkeypatch):
    """Halving finds the culprits; they are dead letters with bytes, topic and reason."""
    bench = started(monkeypatch, *map(message, range(1, 65)))
    bench.sink.poison = {17, 18, 60}
    bench.go()
    assert sorted(bench.sink.numbers) == [n for n in range(1, 65) if n not in (17, 18, 60)]
    assert [letter.payload for letter in bench.sink.letters] == [
        encode(reading(number)) for number in (17, 18, 60)
    ]
    assert {(one.topic, one.reason, one.service) for one in bench.sink.letters} == {
        (TOPIC, "not-storable", "tester")
    }
    connection = bench.broker.connections[0]
    assert connection.acknowledged == list(range(1, 65))
    assert [topic for topic, _, retain in connection.published if not retain] == [
        "raven/v1/dead/tester"
    ] * 3


def test_a_dead_letter_that_the_store_refuses_costs_nothing_else(monkeypatch):
    """It is on the bus; the other letters and messages are kept, and nothing ends."""
    bench = started(monkeypatch, *map(message, range(1, 9)))
    bench.sink.poison = {2, 5, 7}
    bench.sink.refuses_letters = {dead_letter_id(TOPIC, encode(reading(5)))}
    bench.go()
    kept = {letter.payload for letter in bench.sink.letters}
    assert kept == {encode(reading(number)) for number in (2, 7)}
    assert sorted(bench.sink.numbers) == [1, 3, 4, 6, 8]
    connection = bench.broker.connections[0]
    assert connection.acknowledged == list(range(1, 9))
    assert [topic for topic, _, retain in connection.published if not retain] == [
        "raven/v1/dead/tester"
    ] * 3


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (TOPIC, b"", "not-json"),
        (TOPIC, b"\xff\xfe", "not-json"),
        (TOPIC, b'{"a":' * 100_000, "not-json"),
        (TOPIC, b'{"v":1,"node":' + b'{"a":' * 100_000, "not-contract"),
        (TOPIC, b"x" * 10_000_000, "not-json"),
        (TOPIC, b'{"v":1}', "not-contract"),
        (TOPIC, encode(reading(1)).replace(b'"v":1', b'"v":2'), "contract-version"),
        (TOPIC, encode(reading(1)).replace(b"0.001", b"NaN"), "not-json"),
        (TOPIC, encode(reading(1)).replace(b'"time":"2026', b'"time":"99999'), "not-contract"),
        (TOPIC, encode(reading(1)).replace(b"home", b"away"), "not-contract"),
        (TOPIC.replace("demand", "power"), encode(reading(1)), "not-contract"),
        ("raven/v1/home/run", b'{"v":1,"node":"home"}', "not-contract"),
        ("raven/v1/dead/reader", b"{}", "not-contract"),
        ("raven/v1/dead/reader", encode(LETTER), "not-contract"),
        ("raven/v1/dead/reader", encode(replaced(OF_READER, topic=TOPIC)), "not-contract"),
        ("raven/v1/home/dead", encode(LETTER), "not-contract"),
        ("raven/v1/home/dead", encode(replaced(OF_READER, topic=TOPIC)), "not-contract"),
        ("raven/v1/home/dead", encode(replaced(OF_READER, node="away")), "not-contract"),
        ("raven/v1/home/dead", encode(replaced(OF_READER, node=None)), "not-contract"),
    ],
)
def test_what_is_not_the_contract_is_buried_and_the_next_message_is_stored(
    monkeypatch, topic, payload, reason
):
    """Whatever comes over the bus, it costs nobody else and its bytes are kept."""
    bench = started(monkeypatch, Received(1, topic, payload), message(2))
    bench.go()
    assert bench.sink.numbers == [2]
    (letter,) = bench.sink.letters
    assert (letter.reason, letter.topic, letter.size) == (reason, topic, len(payload))
    assert payload.startswith(letter.payload)


def test_a_letter_that_any_reader_may_have_sent_says_so(monkeypatch):
    """Readers before 1.1 share a topic, which a store notes; of others the topic vouches for the node."""
    topics = {"raven/v1/dead/reader": "raven/v1/dead/reader", "raven/v1/home/dead": None}
    for topic, noted in topics.items():
        bench = started(monkeypatch, Received(1, topic, encode(OF_READER)))
        bench.go()
        assert bench.sink.letters == [replaced(OF_READER, topic=noted)]


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


def test_large_messages_make_small_batches(monkeypatch):
    """What a store needs several times over in memory is counted in bytes too."""
    large = b"x" * (consumer.BATCH_BYTES // 2)
    bench = started(monkeypatch, *(Received(mid, TOPIC, large) for mid in range(1, 6)))
    bench.go()
    assert bench.sink.batches == [2, 2, 1]


@pytest.mark.parametrize("size", [1000, 1001, 1002, 100_000])
def test_a_dead_letter_is_cut_to_what_the_broker_takes(monkeypatch, size):
    """A larger packet would end the connection, and so again after each redelivery."""
    bench = started(monkeypatch, Received(1, TOPIC, b"x" * size))
    prepare = bench.broker._prepare[0]
    bench.broker._prepare[0] = lambda c: (setattr(c, "packet_max", 1500), prepare(c))
    bench.go()
    (kept,) = bench.sink.letters
    (sent,) = bench.broker.connections[0].payloads()
    letter = decode(sent, DeadLetter)
    assert kept.payload == b"x" * size
    assert 1100 < len(sent) <= 1500 - PACKET_RESERVE
    assert letter.payload == kept.payload[: len(letter.payload)]
    assert (letter.id, letter.size) == (kept.id, size)


def test_a_redelivered_message_is_buried_under_the_same_id(monkeypatch):
    """A dead letter's id follows from its topic and bytes."""
    bench = started(monkeypatch, Received(1, TOPIC, b"{"), Received(2, TOPIC, b"{"))
    bench.go()
    first, second = bench.sink.letters
    assert first.id == second.id


def test_messages_of_a_lost_connection_are_stored_but_never_acknowledged(monkeypatch):
    """A broker that crashed may not have them any more; one that has them delivers them again."""
    holder: list[Bench] = []

    def first(connection: FakeConnection) -> None:
        connection.events.put(message(1))
        connection.events.put(message(2))
        connection.lose()

    holder.append(Bench(monkeypatch, first, bringing(holder, message(2), message(3))))
    bench = holder[0]
    bench.go()
    assert bench.broker.connections[0].acknowledged == []
    assert bench.broker.connections[1].acknowledged == [2, 3]
    assert bench.sink.numbers == [1, 2, 3]


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


def test_a_stop_while_the_store_is_away_gives_the_messages_back(monkeypatch):
    """Nothing is acknowledged that was not stored, and the stop is not held up."""
    bench = started(monkeypatch, message(1))
    bench.sink.away = 1_000_000
    bench.sink.on_store = lambda: bench.stop.set() if bench.sink.away < 999_990 else None
    bench.go()
    assert bench.broker.connections[0].acknowledged == []
    assert bench.counts()["given_back"] == 1


def test_the_counters_balance(monkeypatch):
    """Received = stored + duplicate + dead + given back + in flight."""
    holder: list[Bench] = []

    def first(connection: FakeConnection) -> None:
        connection.events.put(message(1))
        connection.lose()

    again = [message(1), message(2), message(2), Received(9, TOPIC, b"{"), message(3)]
    holder.append(Bench(monkeypatch, first, bringing(holder, *again)))
    holder[0].sink.poison = {3}
    holder[0].go()
    assert holder[0].counts() == {
        "received": 6,
        "stored": 2,
        "duplicate": 2,
        "dead": 2,
        "given_back": 0,
        "in_flight": 0,
    }


def test_what_is_in_the_store_is_confirmed(monkeypatch):
    """New, known and buried readings are; the dead letters of nodes too; what is away is not."""
    run = Run(node="other", run="r", hash=RUN, started=NOW)
    messages = [
        *map(message, (1, 2, 2, 3, 7)),
        Received(8, Topics().of_node("home", "dead"), encode(OF_READER)),
        Received(9, Topics().of_node("other", "run"), encode(run)),
        Received(10, TOPIC, b"{"),
    ]
    bench = started(monkeypatch, *messages)
    bench.sink.poison = {3}
    bench.sink.away = 3
    told: list[int] = []
    bench.sink.on_store = lambda: told.append(len(bench.broker.connections[0].told))
    bench.go()
    assert set(told) == {0}
    said = {topic: decode(text, Confirmation) for topic, text in bench.broker.connections[0].told}
    assert said == {
        "raven/v1/home/stored/raven-tester": Confirmation(
            node="home", store="raven-tester", runs={RUN: [(1, 3), (7, 7)]}, letters=[OF_READER.id]
        ),
        "raven/v1/other/stored/raven-tester": Confirmation(node="other", store="raven-tester"),
    }


def test_a_confirmation_that_was_not_said_is_said_over_the_next_connection(monkeypatch):
    """What a lost connection brought is stored and confirmed, though never acknowledged."""
    holder: list[Bench] = []

    def first(connection: FakeConnection) -> None:
        connection.events.put(message(1))
        connection.lose()

    holder.append(Bench(monkeypatch, first, bringing(holder, message(2))))
    holder[0].go()
    lost, second = holder[0].broker.connections
    assert lost.told == []
    assert [decode(text, Confirmation).runs for _, text in second.told] == [
        {RUN: [(1, 1)]},
        {RUN: [(2, 2)]},
    ]


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
    monkeypatch.setattr(consumer, "QUIET_S", 0)
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
    monkeypatch.setattr(bench.consumer, "_flush_after_s", 0)
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
