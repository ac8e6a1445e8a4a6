"""What befalls recorders in every model: rules that test modules add their own to."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from .simulation import LEASE_S, Recorder, World, patch

SEEDS = st.integers(0, 2**32)
SETTINGS = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class Troubled(RuleBasedStateMachine):
    """Recorders start, stop, hang and die; broker and database go away and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.monkeypatch = pytest.MonkeyPatch()
        self.world = World()
        patch(self.monkeypatch, self.world)
        self.processes: list[Recorder] = []

    def live(self) -> list[Recorder]:
        return [one for one in self.processes if not one.killed and not one.main.done]

    def start_one(self) -> None:
        self.processes.append(Recorder(self.world))

    @rule(count=st.integers(1, 3))
    def start(self, count: int):
        for _ in range(min(count, 4 - len(self.live()))):
            self.start_one()

    @rule(data=st.data(), count=st.integers(1, 3))
    def stop(self, data: Any, count: int):
        for _ in range(min(count, len(self.live()))):
            data.draw(st.sampled_from(self.live())).stop.set()

    @rule(data=st.data(), count=st.integers(1, 3))
    def kill(self, data: Any, count: int):
        for _ in range(min(count, len(self.live()))):
            data.draw(st.sampled_from(self.live())).kill()

    @rule(data=st.data(), hang=st.booleans())
    def hang_or_go_on(self, data: Any, hang: bool):
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

    @rule(seed=SEEDS, steps=st.integers(1, 300))
    def go_on(self, seed: int, steps: int):
        self.world.run(steps, random.Random(seed))

    @rule(seed=SEEDS, leases=st.sampled_from([0.1, 0.5, 1.1, 6]))
    def let_time_pass(self, seed: int, leases: float):
        self.world.run_for(leases * LEASE_S, random.Random(seed))

    def calm(self, choose: random.Random) -> None:
        """Have everything come back, and at least one recorder."""
        world = self.world
        world.database_away = world.forgets = world.broker.away = world.broker.stalled = False
        for one in self.live():
            one.paused = False
        world.run_for(LEASE_S, choose)
        if not self.live():
            self.start_one()
