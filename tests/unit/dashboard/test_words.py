"""What a home says becomes sentences that anybody understands."""

from __future__ import annotations

from datetime import timedelta

import pytest

from raven_dashboard import words
from raven_dashboard.feed import LATEST_MAX, Home
from ravenbus.messages import Confirmation, Run, Status
from tests.kinds import METER, T0, new_hash, reading

HASH = new_hash()
LATER = T0 + timedelta(minutes=4)


def home(*messages: object) -> Home:
    """Return a home after it has said something."""
    found = Home("home")
    for message in messages:
        found.take(message, T0)
    return found


def status(**changes: object) -> Status:
    usual = {"node": "home", "service": "online", "device": "connected", "since": T0}
    return Status(**(usual | changes))


def confirmed(*ranges: tuple[int, int]) -> Confirmation:
    return Confirmation(node="home", store="raven-sql-writer", runs={HASH: list(ranges)})


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], ["Nothing was heard of the stick yet.", "Nothing was heard of the reader yet."]),
        ([status()], []),
        ([status(device="silent")], ["The stick has been silent for 4 minutes."]),
        (
            [status(device="disconnected", detail="unplugged")],
            ["The stick has been away for 4 minutes: unplugged."],
        ),
        ([status(service="offline")], ["The reader has been away for 4 minutes."]),
        (
            [status(clock="off", clock_ahead_s=-7200.0)],
            ["The stick's clock is off by 2 hours: readings go by the reader's clock."],
        ),
        (
            [status(), reading(HASH, 9), confirmed((1, 4), (6, 8))],
            ["raven-sql-writer has been 2 readings behind for 4 minutes."],
        ),
        ([status(), reading(HASH, 9), confirmed((1, 8)), confirmed((9, 9))], []),
    ],
)
def test_what_is_wrong_is_said(messages: list[object], said: list[str]):
    """With how long it has been so; nothing where nothing is wrong."""
    assert [state.text for state in words.states(home(*messages), LATER)] == said


def test_the_worst_comes_first():
    """An alarm before a warning."""
    found = words.states(home(status(device="silent", clock="unset")), LATER)
    assert [state.level for state in found] == ["alarm", "warning"]


def test_a_stick_that_is_connected_and_says_nothing_is_named():
    """Its readings stop before its state changes."""
    quiet = home(status(), reading(HASH, 1, received=T0))
    (state,) = words.states(quiet, T0 + timedelta(minutes=6))
    assert (state.level, state.text) == ("warning", "The last reading came 6 minutes ago.")


def test_a_store_that_lacks_what_is_on_its_way_has_not_every_reading():
    """It stores in batches, so that is no trouble yet; but what is said is true."""
    found = home(status(), reading(HASH, 9), confirmed((1, 6)))
    *_, store = words.chain(found, T0 + timedelta(seconds=1))
    assert (store.state, store.text) == ("ok", "raven-sql-writer has all but 3, on the way.")
    found.take(confirmed((7, 9)), T0)
    *_, store = words.chain(found, T0 + timedelta(seconds=1))
    assert (store.state, store.text) == ("ok", "raven-sql-writer has every reading.")


def test_a_store_is_asked_for_a_run_from_where_it_began():
    """A new run counts anew; what a store confirms of another is passed over."""
    found = home(reading(HASH, 9), confirmed((5, 9)))
    assert found.behind("raven-sql-writer") == 0
    found.take(Run(node="home", run="r", hash=new_hash(), started=T0), T0)
    found.take(confirmed((1, 9)), T0)
    assert found.behind("raven-sql-writer") == 0
    assert found.last_seq == 0


def test_a_home_that_claims_meters_without_end_fills_no_memory():
    """The newest are kept."""
    found = home(*(reading(HASH, n, meter=f"{n:016x}") for n in range(1, 2 * LATEST_MAX)))
    assert len(found.latest) == LATEST_MAX
    found.take(reading(HASH, 2 * LATEST_MAX, demand=7, meter=METER), T0)
    last = found.last("instantaneous_demand", METER)
    assert last
    assert last.envelope.seq == 2 * LATEST_MAX


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 seconds"), (1, "1 second"), (119, "1 minute"), (7200, "2 hours"), (200_000, "2 days")],
)
def test_a_duration_is_said_in_its_largest_unit(seconds: int, text: str):
    """Singular and plural."""
    assert words.duration(timedelta(seconds=seconds)) == text
