"""Comparing stores of which none is known by name; no database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raven_verify import spool
from raven_verify.inventory import Accepted
from raven_verify.look import SETTLE_S, Look, Wanted
from ravenbus.errors import PoisonError
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import Warning as Said
from tests.kinds import new_hash
from tests.kinds import reading as reading_of
from tests.memory import Memory
from tests.unit.ravenbus.fakes import Clock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Narrow(Memory):
    """A store that holds no reading with a long text."""

    def as_stored(self, reading: Reading) -> Reading:
        if len(reading.notification.text) > 3:
            raise PoisonError("too-large", "no room")
        return reading


def test_a_reading_is_compared_in_what_those_keep_that_have_it():
    """A store that cannot hold it says nothing of the copies of the others."""
    one, two, narrow = Memory(), Memory(), Narrow()
    one.name, two.name, narrow.name = "one", "two", "narrow"
    hash_ = str(uuid.uuid4())
    for seq, text in enumerate(("ab", "abcd"), 1):
        envelope = Envelope(node="home", run="r", hash=hash_, seq=seq, received=NOON)
        reading = Reading(envelope, Said(device=None, meter=None, time=None, text=text))
        for store in (one, two, *([narrow] if seq == 1 else [])):
            store.store([reading])
    look = Look(
        [one, two, narrow], None, clock=iter(range(0, 999, 9)).__next__, sleep=lambda _: None
    )
    (run,) = look.look(Wanted()).runs
    assert run.differing == []
    assert run.stores["narrow"].lacking == [(2, 2)]


@pytest.mark.parametrize("comes", [True, False])
def test_what_is_under_way_is_waited_for_and_said(monkeypatch: pytest.MonkeyPatch, *, comes: bool):
    """A store that keeps up has it a moment later; of one that does not nothing is called complete."""
    hash_, store, clock = new_hash(), Memory(), Clock()
    store.store([reading_of(hash_, 1)])
    accepted = {hash_: Accepted("r", 2, [(2, 2)])}
    monkeypatch.setattr(spool, "accepted", lambda _folder: accepted)

    def sleep(for_s: float) -> None:
        clock.now += for_s
        if comes:
            store.store([reading_of(hash_, 2)])

    found = Look([store], Path(), clock=clock, sleep=sleep).look(Wanted())
    assert (found.complete, found.is_wrong) == (comes, False)
    assert clock.now - 1000 == (0.5 if comes else SETTLE_S)
    assert found.runs[0].stores[store.name].under_way == ([] if comes else [(2, 2)])
