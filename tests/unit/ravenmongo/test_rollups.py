"""Which periods are counted in one step; no database."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from ravenmongo.rollups import steps

DAY = datetime(2026, 3, 1)  # noqa: DTZ001 - UTC without a zone, as periods are
MIDNIGHT = 24 * 60


def at(minutes: int) -> datetime:
    return DAY + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("noted", "counted"),
    [
        ([], []),
        ([10], [[10]]),
        ([15, 10], [[10, 15]]),
        # What is up to an hour apart is one span, what is farther is not.
        ([0, 30], [[0, 5, 10, 15, 20, 25, 30]]),
        ([0, 60, 125], [[*range(0, 65, 5), 125]]),
        # A day is a step, between which it can be stopped.
        ([MIDNIGHT - 5, MIDNIGHT, 3 * MIDNIGHT], [[MIDNIGHT - 5], [MIDNIGHT], [3 * MIDNIGHT]]),
    ],
)
def test_close_periods_of_a_day_are_counted_together(noted: list[int], counted: list[list[int]]):
    """And none is left out."""
    found = list(steps(at(one) for one in noted))
    assert found == [{at(one) for one in of_step} for of_step in counted]
