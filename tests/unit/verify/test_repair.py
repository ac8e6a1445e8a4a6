"""What is sent again to a store, and what becomes of it; no broker and no database."""

from __future__ import annotations

import pytest

from raven_verify.inventory import report
from raven_verify.repair import Repair
from ravenbus.errors import BrokerAwayError, RetryableError
from ravenbus.messages import Reading, Run, dead_letter_id, decode_reading, encode
from ravenbus.ranges import merged
from ravenbus.readback import AT_ONCE, Holding, Known
from ravenbus.storing import read
from ravenbus.topics import READING, Topics
from raventools.bus import Buried, Publication
from raventools.sending import STORED_S, Sender
from tests.kinds import T0, new_hash, reading
from tests.memory import Memory
from tests.unit.ravenbus.fakes import Clock

HASH = new_hash()
RUN = Run(node="home", run="r", hash=HASH, started=T0)


class Store(Memory):
    """A store with a name of its own; what it has of some numbers cannot be read."""

    def __init__(self, name, *seqs, unreadable=()):
        super().__init__()
        self.name, self.service = name, f"{name}-writer"
        self.unreadable = unreadable
        self.store([reading(HASH, seq) for seq in seqs])

    def readings(self, hash_, seqs):
        for seq, found in super().readings(hash_, seqs):
            yield seq, None if seq in self.unreadable else found

    @property
    def held(self):
        return sorted(self.items.get(HASH, ()))


class Bus:
    """A broker that hands stores a message each time that one listens; the first may not store it."""

    def __init__(self, stores, clock):
        self.buried = {}
        self.sent = []
        self.slowness_s = 0.3
        self.buries = self.drops = frozenset()
        self._stores = stores
        self._clock = clock
        self._waiting = []

    def send(self, messages):
        messages = list(messages)
        self.sent += messages
        self._waiting += messages

    def listen(self, for_s):
        self._clock.now += max(for_s, self.slowness_s)
        if not self._waiting:
            return
        message = self._waiting.pop(0)
        found = read(Topics(), message.topic, message.payload)
        first, *others = self._stores
        for store in others:
            store.store([found])
        seq = found.envelope.seq if isinstance(found, Reading) else 0
        if seq in self.buries:
            self.bury(message, first.service)
        elif seq not in self.drops:
            first.store([found])

    def bury(self, message, service):
        self.buried[Buried(service, dead_letter_id(message.topic, message.payload))] = None

    @property
    def seqs(self):
        """The numbers of the readings that were sent, in order."""
        found = [one for one in self.sent if "/reading/" in one.topic]
        return [decode_reading(message.payload).envelope.seq for message in found]


class Home:
    """Stores, of which the first lacks something, and what is between them."""

    def __init__(self, *stores, dead=()):
        self.stores = stores
        self.clock = Clock()
        self.bus = Bus(stores, self.clock)
        self.dead = {stores[0].name: merged((seq, seq) for seq in dead)}

    def repair(self, *, of=None):
        """Repair what a look at the stores, or at some of them, finds."""
        holdings = {store.name: store.holding(HASH) for store in of or self.stores}
        found = report(HASH, Known("r", "home"), None, holdings, self.dead)
        return list(Repair(self.stores, Sender(self.bus, Topics(), self.clock)).repair(found))


def outcome(repaired):
    return repaired.store, repaired.stored, repaired.buried, repaired.nowhere


def test_a_store_gets_what_it_lacks_and_no_more():
    """In the order of the numbers, each as the store that has it has it."""
    home = Home(Store("a", 2, 5), Store("b", 1, 2, 3, 4, 5))
    (repaired,) = home.repair()
    assert outcome(repaired) == ("a", [(1, 1), (3, 4)], [], [])
    assert home.bus.seqs == [1, 3, 4]
    assert home.stores[0].items == home.stores[1].items
    message = home.bus.sent[0]
    assert message.topic == "raven/v1/home/reading/instantaneous_demand"
    assert not message.retain


def test_nothing_is_sent_where_nothing_lacks():
    """Nor for what is buried already, or what no store has."""
    home = Home(Store("a", 1, 2), Store("b", 1, 2))
    assert home.repair() == []
    home = Home(Store("a", 1, 3), Store("b", 1, 2, 3), dead=[2])
    assert home.repair() == []
    home = Home(Store("a", 1, 3), Store("b", 1, 3))
    assert [outcome(one) for one in home.repair()] == [
        ("a", [], [], [(2, 2)]),
        ("b", [], [], [(2, 2)]),
    ]
    assert home.bus.sent == []


def test_a_number_without_end_costs_no_time():
    """Only what another store has is asked for; the rest is said as the gap that it is."""
    home = Home(Store("a", 1), Store("b", 2**62))
    a, b = (outcome(one) for one in home.repair())
    assert a == ("a", [(2**62, 2**62)], [], [(2, 2**62 - 1)])
    assert b == ("b", [(1, 1)], [], [(2, 2**62 - 1)])


def test_a_reading_comes_from_the_first_store_that_can_say_it():
    """Once, whoever else has it and whatever that says; one that nobody can say is nowhere."""
    one = Store("b", 1, 2, 4, unreadable={2, 4})
    other = Store("c", 1, 2, 3, 4, unreadable={4})
    other.items[HASH][1] = reading(HASH, 1, 7)
    home = Home(Store("a"), one, other)
    a, b = (outcome(one) for one in home.repair())
    assert a == ("a", [(1, 3)], [], [(4, 4)])
    assert b == ("b", [(3, 3)], [], [])
    assert sorted(home.bus.seqs) == [1, 2, 3, 3], "what both lack is sent for each"
    assert home.stores[0].items[HASH][1] == reading(HASH, 1)


def test_a_run_that_a_store_does_not_know_goes_before_its_readings():
    """From whichever store knows it; a store that knows it is not told again."""
    home = Home(Store("a"), Store("b", 1), Store("c", 1))
    home.stores[2].store([RUN])
    home.repair()
    assert home.bus.sent[0].topic == "raven/v1/home/run"
    assert home.stores[0].run(HASH) == RUN
    home = Home(Store("a"), Store("b", 1))
    for store in home.stores:
        store.store([RUN])
    home.repair()
    assert [message.topic.rpartition("/")[2] for message in home.bus.sent] == [
        "instantaneous_demand"
    ]


def test_a_store_outside_the_report_is_not_asked():
    """It passes the run over, whatever it has of it."""
    home = Home(Store("a", 1), Store("b", 1, 3), Store("c", 2))
    (a, b) = (outcome(one) for one in home.repair(of=home.stores[:2]))
    assert a == ("a", [(3, 3)], [], [(2, 2)])
    assert b == ("b", [], [], [(2, 2)])


def test_what_is_buried_again_is_told_from_what_is_stored():
    """By the store that lacked it alone; what another one buries is none of its."""
    home = Home(Store("a"), Store("b", 1, 2, 3))
    home.bus.buries = {2}
    third = reading(HASH, 3)
    home.bus.bury(
        Publication(Topics().of(READING, node="home", kind=third.kind), encode(third)), "b-writer"
    )
    (repaired,) = home.repair()
    assert outcome(repaired) == ("a", [(1, 1), (3, 3)], [(2, 2)], [])


def test_what_was_buried_and_is_stored_after_all_is_stored():
    """A letter that was heard before says nothing when the store has the reading."""
    home = Home(Store("a"), Store("b", 1, 2))
    store, bus = home.stores[0], home.bus
    listen = bus.listen

    def listen_late(for_s):
        listen(for_s)
        bus.bury(bus.sent[0], store.service)

    bus.listen = listen_late
    (repaired,) = home.repair()
    assert outcome(repaired) == ("a", [(1, 2)], [], [])


def test_many_are_sent_a_part_at_a_time():
    """The next part goes when the store has this one, so the broker's queue stays short."""
    home = Home(Store("a"), Store("b", *range(1, 2 * AT_ONCE + 2)))
    store, bus = home.stores[0], home.bus
    send, had = bus.send, []

    def counted(messages):
        had.append(len(store.held))
        send(messages)

    bus.send = counted
    (repaired,) = home.repair()
    assert repaired.stored == [(1, 2 * AT_ONCE + 1)]
    assert had == [0, AT_ONCE, 2 * AT_ONCE]


def test_a_store_is_waited_for_as_long_as_it_goes_on():
    """Each reading that comes gives it time for the next, however many there are."""
    home = Home(Store("a"), Store("b", *range(1, 6)))
    home.bus.slowness_s = STORED_S - 1
    (repaired,) = home.repair()
    assert repaired.stored == [(1, 5)]


def test_a_store_that_stores_nothing_is_named_with_what_is_missing():
    """After so long without one more; what it has by then stays."""
    home = Home(Store("a"), Store("b", *range(1, 6)))
    home.bus.drops = {2, 4}
    with pytest.raises(RetryableError, match=r"a has not stored 2 readings .* is a-writer running"):
        home.repair()
    assert home.stores[0].held == [1, 3, 5]


def test_a_broker_that_refuses_ends_the_repair():
    """Nothing is taken for sent."""
    home = Home(Store("a"), Store("b", 1))

    def refuse(_messages):
        raise BrokerAwayError("nobody subscribes")

    home.bus.send = refuse
    with pytest.raises(BrokerAwayError, match="nobody subscribes"):
        home.repair()


def test_what_an_archive_alone_has_is_nowhere():
    """It is in files, of which nothing is sent: the operator restores it first."""
    home = Home(Store("a", 1, 3), Store("b", 1, 3))
    home.stores[1].holding = lambda _: Holding([(1, 1), (3, 3)], [(2, 2)], [])
    home.stores[1].readings = None  # nothing is to be asked for
    (repaired,) = home.repair()
    assert outcome(repaired) == ("a", [], [], [(2, 2)])
