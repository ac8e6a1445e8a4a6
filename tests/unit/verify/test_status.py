"""How homes are, from what a broker retains; no broker and no database."""

from __future__ import annotations

import itertools
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from raven_verify import status
from ravenbus.errors import PoisonError
from ravenbus.messages import Envelope, Reading, Run, dead_letter, encode
from ravenbus.mqtt import Events, Received
from ravenbus.notifications import Warning as Said
from ravenbus.topics import LATEST, READING, Topics
from tests.memory import Memory
from tests.unit.ravenbus.fakes import FakeConnection

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = str(uuid.uuid4()), str(uuid.uuid4())


def reading(hash_: str, seq: int, received: datetime) -> Reading:
    envelope = Envelope(node="home", run="r", hash=hash_, seq=seq, received=received)
    return Reading(envelope, Said(device=None, meter=None, time=None, text=""))


RUN = Run(node="home", run="r", hash=NEW, started=NOON)
EARLIER, NEWEST = reading(OLD, 90, NOON - timedelta(days=1)), reading(NEW, 5, NOON)


@pytest.mark.parametrize(
    "retained",
    [
        *itertools.permutations([RUN, EARLIER, NEWEST]),
        *itertools.permutations([EARLIER, NEWEST]),
    ],
)
def test_stores_are_asked_for_the_run_under_way(retained):
    """Of some kinds an earlier run's reading is retained, and it comes in any order."""
    home = status.Home("home")
    for message in retained:
        home.take(message)
    assert home.said() == (NEW, 5)
    assert home.heard == NOON


def test_a_store_is_not_behind_what_it_has_buried(monkeypatch):
    """Nothing more of it is to come; how many there are is said beside it."""
    monkeypatch.setattr(status, "QUIET_S", 0.01)
    monkeypatch.setattr(status, "UNDER_WAY_S", 0.01)
    topics, store = Topics("raven"), Memory()
    topic = topics.of(READING, node="home", kind=NEWEST.kind)
    refused = encode(reading(NEW, 3, NOON))
    letter = dead_letter(store.service, topic, refused, datetime.now(UTC), PoisonError("no", ""))
    store.store([*(reading(NEW, seq, NOON) for seq in (1, 2, 5)), letter])

    def connect(events: Events) -> FakeConnection:
        latest = topics.of(LATEST, node="home", kind=NEWEST.kind)
        events.put(Received(1, latest, encode(NEWEST), retained=True))
        return FakeConnection(events)

    (home,) = status.look(connect, topics, [store])
    assert home.behind == {"memory": 1}
    assert home.buried == 1


def test_a_broker_without_homes_is_not_well():
    """A script is told the same by the object as by the exit status."""
    assert json.loads(status.as_json([], NOON)) == {"well": False, "homes": []}
