"""A reader and its recorders, killed and cut off in any order: each reading is stored in the end."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from .simulation import LEASE_S, Home, Recorder, World, patch

SEEDS = st.integers(0, 2**32)


class Halves(RuleBasedStateMachine):
    """However it goes, what was accepted is stored, confirmed, and sent no more."""

    def __init__(self) -> None:
        super().__init__()
        self.monkeypatch = pytest.MonkeyPatch()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World()
        patch(self.monkeypatch, self.world)
        self.recorders: list[Recorder] = []
        self.accepted = 0
        self.home = self.a_home()

    def a_home(self) -> Home:
        home = Home(self.world, self.folder / "spool.sqlite")
        home.spool._db.execute("PRAGMA synchronous = OFF")
        return home

    def live(self) -> list[Recorder]:
        return [one for one in self.recorders if not one.killed and not one.main.done]

    @initialize(seed=SEEDS, count=st.integers(0, 2))
    def begin(self, seed: int, count: int):
        self.recorders += [Recorder(self.world) for _ in range(count)]
        self.world.run_for(1, random.Random(seed))

    @rule(count=st.integers(1, 12), seed=SEEDS, steps=st.integers(0, 100))
    def accept(self, count: int, seed: int, steps: int):
        self.accepted = self.home.accept(count)
        self.world.run(steps, random.Random(seed))

    @rule()
    def kill_the_reader(self):
        self.home.close()
        self.home = self.a_home()

    @rule(hang=st.booleans())
    def hang_the_reader_or_go_on(self, hang: bool):
        self.home.paused = hang

    @rule()
    def start_a_recorder(self):
        if len(self.live()) < 3:
            self.recorders.append(Recorder(self.world))

    @rule(data=st.data(), kill=st.booleans())
    def end_a_recorder(self, data: Any, kill: bool):
        if live := self.live():
            one = data.draw(st.sampled_from(live))
            one.kill() if kill else one.stop.set()

    @rule(data=st.data(), hang=st.booleans())
    def hang_recorders_or_go_on(self, data: Any, hang: bool):
        for one in self.live():
            one.paused = hang and data.draw(st.booleans())

    @rule(away=st.booleans(), forgets=st.booleans())
    def database(self, away: bool, forgets: bool):
        self.world.database_away = away
        self.world.forgets = forgets

    @rule(stop=st.booleans(), stall=st.booleans())
    def broker(self, stop: bool, stall: bool):
        if stop:
            self.world.broker.stop()
        self.world.broker.away = stop
        self.world.broker.stalled = stall

    @rule()
    def delete_the_brokers_data(self):
        self.world.broker.lose_its_disk()

    @rule(data=st.data())
    def expire_a_session(self, data: Any):
        sessions = self.world.broker.sessions
        if gone := [name for name, one in sessions.items() if not one.connection]:
            del sessions[data.draw(st.sampled_from(sorted(gone)))]

    @rule(seed=SEEDS, steps=st.integers(1, 400))
    def go_on(self, seed: int, steps: int):
        self.world.run(steps, random.Random(seed))

    @rule(seed=SEEDS, seconds=st.sampled_from([1, 7, 30, 70]))
    def let_time_pass(self, seed: int, seconds: float):
        self.world.run_for(seconds, random.Random(seed))

    @invariant()
    def nothing_is_invented(self):
        assert self.world.stored <= set(range(1, self.accepted + 1))
        assert all(one.main.error is None for one in (*self.recorders, self.home))

    def teardown(self):
        try:
            self.settle()
        finally:
            for one in self.live():
                one.kill()
            self.home.close()
            self.monkeypatch.undo()
            shutil.rmtree(self.folder)

    def settle(self) -> None:
        world = self.world
        world.database_away = world.forgets = world.broker.away = world.broker.stalled = False
        for one in (*self.live(), self.home):
            one.paused = False
        choose = random.Random(0)
        world.run_for(LEASE_S, choose)
        if not self.live():
            self.recorders.append(Recorder(world))
        world.run_for(600, choose)
        assert world.stored == set(range(1, self.accepted + 1))
        assert (self.home.outbox.depth()[0], self.home.outbox.unconfirmed()) == (0, 0)
        count = lambda one: one._value.get()  # noqa: E731
        m = self.home.metrics
        kept = sum(s.value for s in m.kept.collect()[0].samples if s.name.endswith("_total"))
        assert count(m.published) == count(m.taken) + kept + count(m.unanswered)
        for recorder in self.live():
            assert recorder.balances()


TestHalves = Halves.TestCase
TestHalves.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
