"""A reader and its recorders, killed and cut off in any order: each reading is stored in the end."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from .simulation import Home
from .trouble import SEEDS, SETTINGS, Troubled


class Halves(Troubled):
    """However it goes, what was accepted is stored, confirmed, and sent no more."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.accepted = 0
        self.home = self.a_home()

    def a_home(self) -> Home:
        home = Home(self.world, self.folder / "spool.sqlite")
        home.spool._db.execute("PRAGMA synchronous = OFF")
        return home

    @initialize(seed=SEEDS, count=st.integers(0, 2))
    def begin(self, seed: int, count: int):
        for _ in range(count):
            self.start_one()
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
    def delete_the_brokers_data(self):
        self.world.broker.lose_its_disk()

    @rule(data=st.data())
    def expire_a_session(self, data: Any):
        sessions = self.world.broker.sessions
        if gone := [name for name, one in sessions.items() if not one.connection]:
            del sessions[data.draw(st.sampled_from(sorted(gone)))]

    @invariant()
    def nothing_is_invented(self):
        assert self.world.stored <= set(range(1, self.accepted + 1))
        assert all(one.main.error is None for one in (*self.processes, self.home))

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
        world, choose = self.world, random.Random(0)
        self.home.paused = False
        self.calm(choose)
        world.run_for(600, choose)
        assert world.stored == set(range(1, self.accepted + 1))
        assert (self.home.outbox.depth()[0], self.home.outbox.unconfirmed()) == (0, 0)
        assert self.home.balances()
        assert all(one.balances() for one in self.live())


TestHalves = Halves.TestCase
TestHalves.settings = SETTINGS
