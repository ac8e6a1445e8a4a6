"""A replica's slots over a ledger in memory and a clock that stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from raven_mongo_recorder.group import Group, Slot, State
from raven_mongo_recorder.slots import LeasedSlot, LeasedSlots
from ravenbus.errors import BrokerAwayError, RetryableError, SlotLostError
from ravenbus.health import Health
from ravenbus.mqtt import Broker
from ravenbus.settings import MqttUrl
from tests.unit.ravenbus.fakes import Clock

LEASE_S = 10.0


class MemoryLedger:
    def __init__(self) -> None:
        self.group: Group = {}
        self.away = False

    def change(self, rule: Callable[[Group], Group]) -> Group:
        if self.away:
            raise RetryableError("away")
        self.group = rule(self.group)
        return self.group

    def close(self) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger()
        self.taken: list[LeasedSlot] = []

    def replica(self) -> LeasedSlots:
        # Nothing listens there, so that a connection is refused at once.
        broker = Broker(MqttUrl("mqtt://127.0.0.1:1"), "recorder", session_expiry_s=60)
        return LeasedSlots(self.ledger, broker, LEASE_S, Health(), self.clock)

    def member(self, replica: LeasedSlots) -> LeasedSlot:
        slot = replica.take(threading.Event())
        assert slot
        self.taken.append(slot)
        slot.confirm()
        slot.joined()
        return slot

    def pass_time(self, seconds: int, *renewing: LeasedSlots) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            for replica in renewing:
                replica.renew()


@pytest.fixture
def bench() -> Iterator[Bench]:
    built = Bench()
    yield built
    for slot in built.taken:
        slot.release()


def test_slot_1_has_the_session_that_a_lone_recorder_always_had(bench: Bench):
    """Its client id is the configured one, and it shares nothing."""
    slot = bench.member(bench.replica())
    assert (slot.number, slot.client_id, slot.shared()) == (1, "recorder", False)


def test_a_second_replica_has_a_session_of_its_own_and_both_share(bench: Bench):
    """The first learns of the second when it renews its lease."""
    one, two = bench.replica(), bench.replica()
    first = bench.member(one)
    second = two.take(Stop(lambda: bench.pass_time(1, one)))
    assert second
    bench.taken.append(second)
    assert (second.number, second.client_id, second.shared()) == (2, "recorder-2", True)
    one.renew()
    assert first.shared()


class Stop(threading.Event):
    """A stop that never comes; something happens while it is waited for."""

    def __init__(self, meanwhile: Callable[[], Any]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def wait(self, timeout: float | None = None) -> bool:
        if timeout:
            self._meanwhile()
        return False


def test_a_lease_that_could_not_be_renewed_is_lost_before_it_is_over(bench: Bench):
    """The holder stops while nobody else can have the slot yet."""
    replica = bench.replica()
    slot = bench.member(replica)
    bench.ledger.away = True
    bench.clock.now += 8
    slot.require()
    bench.clock.now += 0.1
    with pytest.raises(SlotLostError, match="not renewed"):
        slot.require()


def test_a_replica_whose_slot_nobody_took_goes_on_with_it(bench: Bench):
    """After a database that was away, everybody has what he had."""
    replica = bench.replica()
    slot = bench.member(replica)
    bench.clock.now += 3600
    again = bench.member(replica)
    assert again.number == slot.number
    again.require()


def test_a_holder_notices_that_its_slot_was_taken(bench: Bench):
    """What was a replica's for an hour is not any more once another one has it."""
    slot = bench.member(bench.replica())
    bench.ledger.group = {1: Slot(State.JOINING, "another", 9)}
    with pytest.raises(SlotLostError, match="somebody else"):
        slot.confirm()
    assert not slot.leave()


def test_ended_sessions_are_visited_once_for_each_connection(bench: Bench):
    """A broker that lost its memory may have one back, which then takes its share."""
    bench.ledger.group = {2: Slot(State.CLOSED)}
    slot = bench.member(bench.replica())
    assert slot.adopt() is None
    with pytest.raises(BrokerAwayError):
        slot.connect(SimpleQueue())
    visited = slot.adopt()
    assert visited
    assert (visited.number, visited.client_id) == (2, "recorder-2")
    assert not slot.shared()
    visited.closed()
    visited.release()
    assert slot.adopt() is None


def test_without_a_ledger_no_slot_can_be_had_and_health_says_so(bench: Bench):
    """It is tried until it works."""
    replica = bench.replica()
    said: list[dict[str, str]] = []

    def meanwhile() -> None:
        said.append(replica._health.problems())
        bench.ledger.away = len(said) < 3

    bench.ledger.away = True
    slot = replica.take(Stop(meanwhile))
    assert slot
    bench.taken.append(slot)
    assert said == [{"slot": "away"}] * 3
    assert not replica._health.problems()
