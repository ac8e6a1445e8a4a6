"""What a relay remembers of rows that stores have yet to confirm; no database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from raven_sql_relay.source import Ref
from raven_sql_relay.waiting import Waiting
from ravenbus.messages import Confirmation
from ravenbus.publisher import Entry
from ravenbus.resending import Sent

HASH = "11111111-2222-4333-8444-555555555555"
T0 = datetime(2026, 3, 1, tzinfo=UTC)
ONE, TWO = 1, 2
ENTRY = Entry(1, "t", b"x")


def said(*ranges):
    return Confirmation(node="home", store="s", runs={HASH: list(ranges)})


def ref(number):
    return Ref("instantaneous_demand", number, T0)


@pytest.fixture
def waiting():
    found = Waiting(None, {ONE: "one", TWO: "two"})
    found.required = ONE
    return found


def fill(waiting, *numbers, turn=0):
    for row, number in enumerate(numbers, 1):
        waiting.add(ref(row), (HASH, number), ENTRY, turn)


def confirm(waiting, *ranges, bit=ONE):
    return waiting.complete(waiting.confirm(said(*ranges), bit))


def test_ranges_that_overlap_confirm_a_row_once(waiting):
    """The contract does not forbid them, and any store may say them."""
    fill(waiting, 1, 2, 3)
    assert confirm(waiting, (1, 2), (2, 2), (10, 10**12)) == [ref(1), ref(2)]
    assert len(waiting) == 1


def test_two_rows_of_one_identity_are_both_confirmed(waiting):
    """The tables allow them at different times, and other programs insert too."""
    fill(waiting, 1, 1)
    assert confirm(waiting, (1, 1)) == [ref(1), ref(2)]
    assert confirm(waiting, (1, 1)) == []


def test_a_row_waits_for_every_store_that_has_to_confirm(waiting):
    """A store that must no longer confirm holds nothing up."""
    waiting.required = ONE | TWO
    fill(waiting, 1, 2)
    assert confirm(waiting, (1, 2)) == []
    assert confirm(waiting, (2, 2), bit=TWO) == [ref(2)]
    waiting.required = ONE
    assert waiting.complete() == [ref(1)]


def test_what_lacks_only_stores_that_are_away_is_to_be_parked(waiting):
    """What went before a turn; what a store lacks that is there stays in memory."""
    waiting.required = ONE | TWO
    fill(waiting, 1, 2, 3)
    waiting.add(ref(4), (HASH, 4), ENTRY, 7)
    confirm(waiting, (1, 1), (3, 4))
    assert waiting.to_park(absent=TWO, before=7) == [ref(1), ref(3)]
    waiting.required = 0
    assert waiting.to_park(absent=TWO, before=7) == [], "what lacks nobody waits for nobody"


def test_what_is_sent_another_time_shows_no_more_than_its_first_sending(waiting):
    """It counts as under way until it is confirmed, nobody took it, or it is parked."""
    waiting.required = ONE | TWO
    fill(waiting, 1, 2, turn=3)
    confirm(waiting, (1, 1), bit=TWO)
    assert waiting.send_again([ref(1)]) == [(ref(1), (HASH, 1), ENTRY)]
    assert waiting.under_way([ref(1), ref(2)]) == [Sent(ref(1), None, TWO), Sent(ref(2), 3, 0)]
    waiting.add(ref(1), (HASH, 1), ENTRY, 9)
    assert waiting.under_way([ref(1)]) == [Sent(ref(1), 9, TWO)]
    assert waiting.oldest(ONE) == 3
    assert waiting.first_sent([ref(1)]) == 3
    assert waiting.last() == Sent(ref(1), 9, TWO)
    assert confirm(waiting, (1, 1)) == [ref(1)], "whoever had it before has it still"
    assert waiting.under_way([ref(1)]) == []
    waiting.send_again([ref(2)])
    waiting.leave([ref(2)])
    assert waiting.under_way([ref(2)]) == []


def test_the_oldest_of_what_a_store_owes_comes_first(waiting):
    """No more than asked for, and only of what it lacks."""
    for number in range(1, 6):
        waiting.add(ref(number), (HASH, number), ENTRY, number)
    waiting.confirm(said((2, 2)), TWO)
    assert waiting.owed(TWO, since=0, until=4, most=2) == [ref(1), ref(3)]
    assert waiting.owed(TWO, since=1, until=4, most=9) == [ref(3), ref(4)]
