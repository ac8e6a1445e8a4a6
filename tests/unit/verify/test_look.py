"""Comparing stores of which none is known by name; no database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from raven_verify.look import Look, Wanted
from ravenbus.errors import PoisonError
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import Warning as Said
from tests.memory import Memory

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
