"""What a relay remembers of rows that stores have yet to confirm."""

from __future__ import annotations

from raven_sql_relay.outbox import _Waiting
from ravenbus.messages import Confirmation

HASH = "11111111-2222-4333-8444-555555555555"


def said(*ranges):
    return Confirmation(node="home", store="s", runs={HASH: list(ranges)})


def waiting(*numbers):
    found = _Waiting()
    for key, number in enumerate(numbers, 1):
        found.add(key, (HASH, number), since=0.0)
    return found


def test_ranges_that_overlap_confirm_a_row_once():
    """The contract does not forbid them, and any store may say them."""
    assert waiting(1, 2, 3).confirm(said((1, 2), (2, 2)), {"s"}) == [1, 2]


def test_two_rows_of_one_identity_are_both_confirmed_and_both_late():
    """The tables allow them at different times, and other programs insert too."""
    assert waiting(1, 1).confirm(said((1, 1)), {"s"}) == [1, 2]
    rows = waiting(1, 1)
    assert rows.late(1.0) == [1, 2]
    assert rows.confirm(said((1, 1)), {"s"}) == []
