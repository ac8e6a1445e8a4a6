"""How homes are, from what a broker retains; no broker and no database."""

from __future__ import annotations

import itertools
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from raven_verify import status
from ravenbus.messages import Envelope, Reading, Run
from ravenbus.notifications import Warning as Said

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


def test_a_broker_without_homes_is_not_well():
    """A script is told the same by the object as by the exit status."""
    assert json.loads(status.as_json([], NOON)) == {"well": False, "homes": []}
