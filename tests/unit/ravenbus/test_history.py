"""How a span is divided, and what is asked of a store for it; no database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravenbus.demand import Demand, Sample, by_period, combined
from ravenbus.history import MeterHistory, Step, edges, step_for
from ravenbus.periods import rolled_up

HOUR = timedelta(hours=1)


class Rolled:
    """A store's roll-ups of some demands; remembers which lengths it was asked for."""

    def __init__(self, *kw: tuple[datetime, str]) -> None:
        samples = [Sample("a", "b", at, Decimal(one)) for at, one in kw]
        self._rows = rolled_up(by_period(samples), combined)
        self.asked: list[tuple[int, datetime, datetime]] = []

    def demand(self, _node: str, _meter: str, period_s: int, start: datetime, end: datetime) -> Any:
        self.asked.append((period_s, start, end))
        return [
            (period.start, one)
            for period, one in self._rows
            if period.period_s == period_s and start <= period.start < end
        ]


def at(*time: int) -> datetime:
    return datetime(*time, tzinfo=UTC)  # type: ignore[arg-type, misc]


def of(rolled: Any, zone: str = "Europe/Berlin") -> MeterHistory:
    return MeterHistory(rolled, "a", "b", ZoneInfo(zone))


@pytest.mark.parametrize(
    ("zone", "noon", "begins", "hours"),
    [
        ("Europe/Berlin", at(2026, 3, 29, 12), at(2026, 3, 28, 23), 23),
        ("Europe/Berlin", at(2026, 10, 25, 12), at(2026, 10, 24, 22), 25),
        ("America/New_York", at(2026, 7, 1, 16), at(2026, 7, 1, 4), 24),
        ("Asia/Kolkata", at(2026, 7, 1, 12), at(2026, 6, 30, 18, 30), 24),
        ("Australia/Lord_Howe", at(2026, 4, 5, 0), at(2026, 4, 4, 13), 24.5),
        # Midnight is twice on the clock, and is left out.
        ("America/Havana", at(2026, 11, 1, 16), at(2026, 11, 1, 4), 25),
        ("America/Santiago", at(2026, 9, 6, 16), at(2026, 9, 6, 4), 23),
        ("UTC", at(2026, 7, 1, 12), at(2026, 7, 1), 24),
    ],
)
def test_a_day_is_as_long_as_in_its_home(zone: str, noon: datetime, begins: datetime, hours: float):
    """From midnight to midnight, and divided into hours without a gap."""
    part, *more = of(Rolled(), zone).demand(noon, noon + HOUR, Step.DAY)
    assert (part.start, part.end - part.start) == (begins, hours * HOUR)
    assert not more
    of_hours = edges(part.start, part.end, Step.HOUR, ZoneInfo(zone))
    naive = (part.start.replace(tzinfo=None), part.end.replace(tzinfo=None))
    assert (of_hours[0], of_hours[-1]) == naive
    assert all(end - start <= 1.5 * HOUR for start, end in pairwise(of_hours))


def test_the_hour_that_comes_twice_is_two():
    """Each has its own demand, and by hour of the day both are one."""
    rolled = Rolled((at(2026, 10, 25, 0, 30), "1"), (at(2026, 10, 25, 1, 30), "3"))
    span = at(2026, 10, 25), at(2026, 10, 25, 2)
    parts = of(rolled).demand(*span, Step.HOUR)
    assert [part.value and part.value.sum_kw for part in parts] == [1, 3]
    (both,) = of(_without_energy(rolled)).by("hour", *span).items()
    assert both[0] == 2
    assert both[1].demand == Demand(2, Decimal(4), Decimal(1), Decimal(3))


def _without_energy(rolled: Rolled) -> Rolled:
    rolled.energy = lambda *_: []  # type: ignore[attr-defined]
    return rolled


def test_a_part_without_readings_is_there_and_has_no_value():
    """A gap is shown as one, and is not zero."""
    rolled = Rolled((at(2026, 7, 1, 0), "0"), (at(2026, 7, 1, 2), "1"))
    parts = of(rolled).demand(at(2026, 7, 1), at(2026, 7, 1, 3), Step.HOUR)
    assert [part.value and part.value.max_kw for part in parts] == [0, None, 1]


def test_a_month_is_made_of_days_and_of_hours_where_it_ends():
    """Ten years by month ask for the days once."""
    rolled = Rolled()
    of(rolled).demand(at(2026, 7, 10), at(2026, 7, 20), Step.MONTH)
    naive = [datetime(2026, 6, 30, 22), datetime(2026, 7, 1), datetime(2026, 7, 31)]  # noqa: DTZ001
    assert rolled.asked == [
        (3600, naive[0], naive[1]),
        (3600, naive[2], naive[2] + 22 * HOUR),
        (86400, naive[1], naive[2]),
    ]
    rolled = Rolled()
    of(rolled).demand(at(2016, 7, 10), at(2026, 7, 10), Step.MONTH)
    assert [period_s for period_s, *_ in rolled.asked].count(86400) == 1


def test_a_peak_is_found_to_the_5_minutes():
    """The first of the highest, wherever in the span it is."""
    high = at(2026, 7, 3, 17, 42)
    rolled = Rolled(
        (at(2026, 7, 1, 1), "1"), (high, "9"), (high + 30 * HOUR, "9"), (at(2026, 6, 1), "10")
    )
    span = at(2026, 7, 1, 0, 5), at(2026, 8, 1)
    assert of(rolled).peak(*span) == (Decimal(9), at(2026, 7, 3, 17, 40))
    assert of(rolled).peak(at(2026, 5, 1), at(2026, 5, 2)) is None


def test_base_load_is_what_is_always_there():
    """The median of the days' lowest hours: neither a day away nor a day of visitors moves it."""
    kw = [("0.2", "5"), ("0.3", "1"), ("0.01", "0.02"), ("4", "6"), ("0.3", "7")]
    days = [
        (at(2026, 7, 1 + day, hour), one)
        for day, of_day in enumerate(kw)
        for hour, one in enumerate(of_day)
    ]
    assert of(Rolled(*days), "UTC").base_load_kw(at(2026, 7, 1), at(2026, 7, 6)) == Decimal("0.3")
    assert of(Rolled()).base_load_kw(at(2026, 7, 1), at(2026, 7, 6)) is None


@pytest.mark.parametrize(
    ("span", "step"),
    [
        (HOUR, Step.RAW),
        (24 * HOUR, Step.FIVE_MINUTES),
        (7 * 24 * HOUR, Step.HOUR),
        (366 * 24 * HOUR, Step.DAY),
        (3650 * 24 * HOUR, Step.MONTH),
    ],
)
def test_a_step_suits_its_span(span: timedelta, step: Step):
    """A picture has as many points as a person can see."""
    assert step_for(at(2026, 7, 1), at(2026, 7, 1) + span) is step


@given(
    st.sampled_from(["Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]),
    st.sampled_from([Step.FIVE_MINUTES, Step.HOUR, Step.DAY, Step.MONTH]),
    st.lists(st.integers(0, 2 * 86400), max_size=20),
    st.integers(0, 364),
)
def test_every_reading_is_in_one_part(zone: str, step: Step, seconds: list[int], day: int):
    """Whatever the periods are that the parts are made of, and where clocks change."""
    start = at(2026, 1, 1) + timedelta(days=day)
    rolled = Rolled(*((start + timedelta(seconds=one), "1") for one in seconds))
    parts = of(rolled, zone).demand(start, start + timedelta(days=2, seconds=1), step)
    assert all(one.end == other.start for one, other in pairwise(parts))
    for part in parts:
        inside = [one for one in seconds if part.start <= start + timedelta(seconds=one) < part.end]
        assert (part.value.readings if part.value else 0) == len(inside)
