"""Recorders start, stop, hang, die and lose the broker and the database, in any order."""

from __future__ import annotations

import itertools
import random

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from raven_mongo_recorder.group import State

from .simulation import GROUP, LEASE_S, Recorder, Session, World, patch
from .trouble import SEEDS, SETTINGS, Troubled


class Recorders(Troubled):
    """However it goes, somebody is subscribed, and in the end all is stored and tidy."""

    def __init__(self) -> None:
        super().__init__()
        self.published = 0

    @initialize(seed=SEEDS, says_takeover=st.booleans())
    def start_the_first(self, seed: int, says_takeover: bool):
        self.world.broker.says_takeover = says_takeover
        self.start_one()
        self.world.run_for(1, random.Random(seed))

    @rule(seed=SEEDS, count=st.integers(1, 20), steps=st.integers(0, 30))
    def publish(self, seed: int, count: int, steps: int):
        choose = random.Random(seed)
        for _ in range(0 if self.world.broker.away else count):
            self.published += 1
            assert self.world.broker.publish(self.published), "nobody is subscribed"
            self.world.run(choose.randint(0, steps), choose)

    @invariant()
    def the_counters_balance(self):
        for one in self.processes:
            assert one.killed or one.balances()
            assert one.main.error is None

    def teardown(self):
        try:
            self.tidy_up()
        finally:
            for one in self.live():
                one.kill()
            self.monkeypatch.undo()

    def tidy_up(self) -> None:
        world, choose = self.world, random.Random(0)
        self.calm(choose)
        world.run_for(40 * LEASE_S, choose)
        assert set(range(1, self.published + 1)) == world.stored
        in_use = [n for n, slot in world.group.items() if slot.state is not State.CLOSED]
        assert sorted(in_use) == list(range(1, len(self.live()) + 1))
        assert len(world.broker.sessions) == len(self.live())


TestRecorders = Recorders.TestCase
TestRecorders.settings = SETTINGS


def test_a_session_that_the_broker_has_back_is_drained(monkeypatch):
    """A broker that crashed may know a session again that was ended: it loses nothing."""
    world = World()
    patch(monkeypatch, world)
    choose = random.Random(1)
    one, two = Recorder(world), Recorder(world)
    world.run_for(3 * LEASE_S, choose)
    forgotten = set(world.broker.sessions[f"{GROUP}-2"].subscriptions)
    (second,) = [one for one in (one, two) if 2 in one.slots.held]
    second.stop.set()
    world.run_for(LEASE_S, choose)
    assert list(world.broker.sessions) == [GROUP]
    world.broker.stop()
    world.broker.sessions[f"{GROUP}-2"] = Session(forgotten)
    world.broker.away = False
    for number in range(1, 21):
        assert world.broker.publish(number)
    world.run_for(3 * LEASE_S, choose)
    assert world.stored == set(range(1, 21))
    assert list(world.broker.sessions) == [GROUP]
    for process in (one, two):
        process.kill()


def test_where_the_broker_shares_nothing_one_works_and_the_others_stand_by(monkeypatch):
    """The next one goes on with its session when it dies, however many wait."""
    world = World()
    world.broker.can_share = False
    patch(monkeypatch, world)
    choose = random.Random(1)
    recorders = [Recorder(world) for _ in range(3)]
    numbers = itertools.count(1)
    for _ in range(3):
        world.run_for(20 * LEASE_S, choose)
        assert len(world.broker.connections) == 1
        assert len(world.broker.sessions) == 1
        (working,) = [one for one in recorders if one.slots.held]
        for _ in range(20):
            assert world.broker.publish(next(numbers))
        working.kill()
        recorders.remove(working)
        for _ in range(20):
            assert world.broker.publish(next(numbers))
    last = Recorder(world)
    world.run_for(20 * LEASE_S, choose)
    assert world.stored == set(range(1, 121))
    last.kill()
