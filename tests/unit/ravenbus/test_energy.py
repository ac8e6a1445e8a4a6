"""What a meter's registers grew by; no database."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ravenbus.energy import Register, combined, growth, shortest, totals
from ravenbus.periods import PERIODS_S, rolled_up

NOON = datetime(2026, 11, 27, 12)  # noqa: DTZ001 - as MySQL has it
WH = Decimal("0.001")
steady = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def register(delivered, *, after_s=0.0, received=None, unit=WH):
    kwh = tuple(None if kwh is None else Decimal(str(kwh)) for kwh in (delivered, received))
    return Register(NOON + timedelta(seconds=after_s), kwh, unit)


@pytest.mark.parametrize(
    ("before", "after", "after_s", "grew"),
    [
        ("17078.000", "17078.002", 240, "0.002"),
        ("17078.000", "17078.000", 240, "0"),
        # A meter was replaced or reset: it counts from zero again.
        ("17078.000", "0.003", 7200, "0.003"),
        # It was replaced by one that had been used before, or a digit was damaged.
        ("17078.000", "5000.000", 7200, "0"),
        ("5.003", "5.002", 240, "0"),
        ("0.000", "601.001", 240, "0"),
        ("601.000", "17078.000", 240, "0"),
        # Nobody listened for a month.
        ("601.000", "1801.000", 30 * 86400, "1200.000"),
        # The register has 48 bits, or 32.
        ("281474976710.600", "0.010", 240, "0.066"),
        ("4294967.200", "0.010", 240, "0.106"),
    ],
)
def test_a_register_grows_or_its_growth_is_not_known(before, after, after_s, grew):
    """What a meter cannot have counted meanwhile is no energy; a wrap is what was counted."""
    found = growth(register(before), register(after, after_s=after_s), 0)
    assert found == Decimal(grew)


def summed(by_start):
    """Return all periods as they are stored."""
    parts = shortest("home", "m", by_start)
    return [(*period, *energy) for period, energy in rolled_up(parts, combined)]


def by_period(rows):
    """Return first, last and energy of what was delivered, by period and start."""
    return {(row[0], row[3]): (row[5], row[6], row[7]) for row in rows}


def test_a_replaced_meter_used_what_both_counted():
    """A day with a reset has the register of its first and its last reading, and 0.9 kWh."""
    kwh = ("17078.000", "0.003", "0.004", "0.005", "0.900")
    times = (0, 7200, 7440, 7680, 10800)
    day = [register(one, after_s=time) for one, time in zip(kwh, times, strict=True)]
    found = by_period(summed(totals([], day)))
    midnight = NOON.replace(hour=0)
    assert found[86400, midnight] == (Decimal(17078), Decimal("0.9"), Decimal("0.9"))
    assert found[3600, NOON] == (Decimal(17078), Decimal(17078), Decimal(0))
    assert found[3600, NOON + timedelta(hours=2)] == (
        *(Decimal("0.003"), Decimal("0.005"), Decimal("0.005")),
    )


def test_growth_over_a_border_is_the_later_periods():
    """Periods add up to the whole, and what has no value counts nothing."""
    readings = [
        register("1.0", after_s=290, received="5.0"),
        register(None, after_s=295, received=None),
        register("1.2", after_s=310, received="5.1"),
    ]
    found = summed(totals([], readings))
    energies = {row[3]: (row[7], row[12]) for row in found if row[0] == 300}
    assert energies == {
        NOON: (Decimal(0), Decimal(0)),
        NOON + timedelta(seconds=300): (Decimal("0.2"), Decimal("0.1")),
    }


values = st.one_of(st.none(), st.integers(0, 3), st.integers(2**32 - 3, 2**32 - 1))
readings = st.lists(st.tuples(st.integers(0, 2 * 86400), values, values), min_size=1, max_size=25)


def added(rows):
    """Return the readings and energies of rows that were added one after another."""
    found = {}
    for row in rows:
        key = row[0], row[3]
        count, *energies = found.get(key, (0, Decimal(0), Decimal(0)))
        grew = [one + (new or 0) for one, new in zip(energies, (row[7], row[12]), strict=True)]
        found[key] = (count + row[4], *grew)
    return found


@steady
@given(readings, st.randoms(use_true_random=False), st.integers(1, 6))
def test_any_order_and_any_batches_come_to_the_same(history, random, size):
    """Late readings move the growth that they divide; the sums are those of all at once."""
    every = [
        register(
            None if one is None else one * WH,
            after_s=time,
            received=None if other is None else other * WH,
        )
        for time, one, other in history
    ]
    random.shuffle(every)
    rows = []
    for start in range(0, len(every), size):
        part = every[start : start + size]
        rows += summed(totals(every[:start], part))
    assert added(rows) == added(summed(totals([], every)))
    assert {row[0] for row in rows} == set(PERIODS_S)
