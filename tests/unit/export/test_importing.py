"""What is sent of a file, and what is said of it; a bus of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime
from queue import SimpleQueue

import msgspec
import pytest

from raven_export.importing import take_in
from ravenbus.errors import RetryableError
from ravenbus.messages import Reading, Run, decode, decode_reading
from ravenbus.mqtt import Events, Published
from ravenbus.topics import Topics
from raventools.bus import Bus
from raventools.sending import Sender
from tests.kinds import T0, new_hash, reading
from tests.memory import Memory


class Broker:
    """Hands each message to the stores, and answers it."""

    receive_maximum = 100

    def __init__(self, *stores: Memory) -> None:
        self.events: Events = SimpleQueue()
        self.stores = stores
        self.sent: list[str] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        assert not retain
        self.sent.append(topic)
        item = decode(payload, Run) if topic.endswith("/run") else decode_reading(payload)
        for store in self.stores:
            store.store([item])
        self.events.put(Published(len(self.sent), 0))
        return len(self.sent)


def import_(items, stores, broker):
    clock = iter(range(0, 10**6, 10)).__next__
    return take_in(items, stores, Sender(Bus(broker, broker.events, clock), Topics(), clock))


def named(name: str) -> Memory:
    store = Memory()
    store.name = name
    return store


def test_only_what_a_store_lacks_is_sent():
    """Once for all stores; what all of them have is not sent again, nor is the run."""
    one, two = named("one"), named("two")
    hash_ = new_hash()
    run = Run(node="home", run="r", hash=hash_, started=T0)
    every = [reading(hash_, seq) for seq in range(1, 1201)]
    one.store(every[:700])
    two.store(every[:300])
    broker = Broker(one, two)
    outcome = import_([run, *every], [one, two], broker)
    assert (outcome.stored, outcome.complete) == ({"one": 500, "two": 900}, True)
    assert len(broker.sent) == 1 + 900
    assert one.items == two.items
    outcome = import_([run, *every], [one, two], broker)
    assert (outcome.stored, outcome.readings) == ({"one": 0, "two": 0}, 1200)
    assert len(broker.sent) == 1 + 900


def test_another_reading_under_a_number_that_is_taken_is_not_sent():
    """Whether a store has it or the file has it twice."""
    store, hash_ = named("one"), new_hash()
    store.store([reading(hash_, 1)])
    other = reading(hash_, 1, demand=5)
    twice = [reading(hash_, 2), reading(hash_, 2, demand=5), reading(hash_, 2)]
    broker = Broker(store)
    outcome = import_([other, *twice], [store], broker)
    assert (outcome.differing, outcome.stored, outcome.complete) == (2, {"one": 1}, False)
    assert store.items[hash_] == {1: reading(hash_, 1), 2: reading(hash_, 2)}


def test_a_store_that_takes_nothing_is_not_waited_for_without_end():
    """It says which store, and what runs there."""
    here, deaf = named("here"), named("deaf")
    run = Run(node="home", run="r", hash=new_hash(), started=datetime(2026, 3, 1, tzinfo=UTC))
    for items in ([run], [reading(run.hash, 1)]):
        with pytest.raises(RetryableError, match=r"deaf has not stored .*is rememberer running"):
            import_(items, [here, deaf], Broker(here))


def test_a_reading_comes_to_the_stores_as_it_was():
    """By its own topic, with its own identity."""
    store = named("one")
    one = reading(new_hash(), 7)
    other = Reading(msgspec.structs.replace(one.envelope, node="else"), one.notification)
    broker = Broker(store)
    import_([other], [store], broker)
    assert broker.sent == ["raven/v1/else/reading/instantaneous_demand"]
    assert store.items[one.envelope.hash] == {7: other}
