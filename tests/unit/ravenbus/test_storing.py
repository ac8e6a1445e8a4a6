"""What connections bring, on its way to a store in memory."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace as replaced

from ravenbus import consumer, storing
from ravenbus.messages import (
    Confirmation,
    DeadLetter,
    Run,
    dead_letter_id,
    decode,
    encode,
)
from ravenbus.mqtt import PACKET_MIN, PACKET_RESERVE, Received
from ravenbus.topics import REJECTED, RUN, Topics

from .bench import HASH, LETTER, NOW, OF_READER, TOPIC, Bench, bringing, message, reading, started
from .fakes import FakeConnection


def test_batches_are_stored_then_acknowledged_in_arrival_order(monkeypatch):
    """Batches go by size, the rest by age; every message is acknowledged once, in order."""
    bench = started(monkeypatch, *map(message, range(1, 26)), batch_size=10)
    bench.go()
    assert bench.sink.numbers == list(range(1, 26))
    assert bench.sink.batches == [10, 10, 5]
    assert bench.broker.connections[0].acknowledged == list(range(1, 26))
    assert bench.broker.connections[0].subscribed == Topics().stored()


def stream(bench, count, every_s, *, store_s, at_once=1):
    """Have messages come at intervals, and a store take its time; return when it began and ended.

    ``at_once`` messages come together, once the last are acknowledged.
    """
    seqs, began, times = iter(range(1, count + 1)), bench.clock.now, []

    def streaming(connection: FakeConnection) -> None:
        def turn() -> None:
            bench.clock.now += every_s
            if len(connection.acknowledged) == count:
                bench.stop.set()
            elif at_once == 1 or len(connection.acknowledged) == bench.counts()["received"]:
                for seq in itertools.islice(seqs, at_once):
                    connection.events.put(message(seq))

        connection.on_turn = turn

    def store() -> None:
        times.append((bench.clock.now - began, bench.clock.now - began + store_s))
        bench.clock.now += store_s

    bench.broker._prepare = [streaming]
    bench.sink.on_store = store
    bench.go()
    return times


@pytest.fixture
def turning(monkeypatch):
    """A bench where whoever waits moves the clock."""
    monkeypatch.setattr(consumer, "TICK_S", 0)
    return started(monkeypatch)


def test_a_message_that_comes_alone_is_stored_at_once(turning):
    """However long a batch may wait for others."""
    times = stream(turning, 10, 1.0, store_s=0.01)
    assert turning.sink.batches == [1] * 10
    assert [began for began, _ in times] == pytest.approx([n * 1.01 for n in range(1, 11)], abs=0.1)


def test_small_batches_keep_a_store_busy_for_a_fifth_of_the_time(turning):
    """A stream that would fill each commit with one message fills it with many."""
    times = stream(turning, 1000, 0.001, store_s=0.01)
    elapsed_s = times[-1][1] - times[0][1]
    assert sum(ended - began for began, ended in times[1:]) <= elapsed_s / 5
    assert min(turning.sink.batches[1:-1]) >= 30


def test_a_slow_store_rests_no_longer_than_a_message_may_wait(turning):
    """The store takes 2 s; half a second later it stores what came meanwhile."""
    times = stream(turning, 1000, 0.01, store_s=2.0)
    pauses = [began - ended for (_, ended), (began, _) in itertools.pairwise(times)]
    assert max(pauses[:-1]) == pytest.approx(0.5, abs=0.02)


def test_a_broker_with_a_small_window_is_not_throttled_by_waiting_for_more(turning):
    """It sends no more before ten messages are acknowledged: each ten are one batch."""
    times = stream(turning, 100, 0.0001, store_s=0.002, at_once=10)
    assert turning.sink.batches == [10] * 10
    assert times[-1][1] < 0.05


def test_a_session_behind_a_small_window_is_drained_without_pauses(monkeypatch):
    """Each ten messages are stored as soon as no more come, not after the time of silence."""
    bench = started(monkeypatch)
    seqs, waits, quiet_s = iter(range(1, 101)), [], 5.0

    def sending(connection: FakeConnection) -> None:
        def turn() -> None:
            bench.clock.now += 0.001
            if len(connection.acknowledged) == bench.counts()["received"]:
                for seq in itertools.islice(seqs, 10):
                    connection.events.put(message(seq))

        connection.on_turn = turn

    def store() -> None:
        bench.clock.now += 0.005

    take = bench.storing.take

    def taken(intake, wait_s):
        waits.append(wait_s)
        return take(intake, min(wait_s, 0.001))

    monkeypatch.setattr(bench.storing, "take", taken)
    bench.broker._prepare = [sending]
    bench.sink.on_store = store
    slot = bench.consumer.slots.take(bench.stop)
    bench.consumer._drain(bench.storing.open(slot), quiet_s, lambda: False)
    assert sorted(bench.sink.numbers) == list(range(1, 101))
    assert bench.broker.connections[0].session_ended
    assert waits.count(quiet_s) <= 12
    assert sum(one for one in waits if one < quiet_s) < 1


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


def test_large_messages_make_small_batches(monkeypatch):
    """What a store needs several times over in memory is counted in bytes too."""
    large = b"x" * (storing.BATCH_BYTES // 2)
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


def test_a_dead_letter_fits_the_smallest_packets(monkeypatch):
    """What it says of the fault is cut as well as the payload."""
    topic = f"raven/v1/{'x' * 300}/a/b/c"
    bench = started(monkeypatch, Received(1, topic, b"x" * 900))
    prepare = bench.broker._prepare[0]
    bench.broker._prepare[0] = lambda c: (setattr(c, "packet_max", PACKET_MIN), prepare(c))
    bench.go()
    (kept,) = bench.sink.letters
    (sent,) = bench.broker.connections[0].payloads()
    letter = decode(sent, DeadLetter)
    assert len(sent) <= PACKET_MIN - PACKET_RESERVE
    assert letter == replaced(kept, payload=b"", detail=letter.detail)
    assert kept.detail.startswith(letter.detail)
    assert 50 < len(letter.detail) < len(kept.detail)


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
    run = Run(node="other", run="r", hash=HASH, started=NOW)
    messages = [
        *map(message, (1, 2, 2, 3, 7)),
        Received(8, Topics().of(REJECTED, node="home"), encode(OF_READER)),
        Received(9, Topics().of(RUN, node="other"), encode(run)),
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
            node="home", store="raven-tester", runs={HASH: [(1, 3), (7, 7)]}, letters=[OF_READER.id]
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
    assert [decode(text, Confirmation).runs for _, text in second.told] == [{HASH: [(1, 2)]}]
