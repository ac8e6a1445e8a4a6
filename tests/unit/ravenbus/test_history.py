"""How a span is divided, and what is asked of a store for it; no database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravenbus import energy
from ravenbus.demand import Demand, Sample, by_period, combined
from ravenbus.energy import Register
from ravenbus.history import SUMMATION, MeterHistory, Step, edges, step_for
from ravenbus.intervals import of_side
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import CurrentSummationDelivered, Notification, ProfileData
from ravenbus.periods import rolled_up

HOUR = timedelta(hours=1)


class Rolled:
    """A store's roll-ups of some demands; remembers which lengths it was asked for."""

    def __init__(self, *kw: tuple[datetime, str]) -> None:
        samples = [Sample("a", "b", at, Decimal(one)) for at, one in kw]
        self._rows = rolled_up(by_period(samples), combined)
        self.asked: list[tuple[int, datetime, datetime]] = []

    def demand(self, _node: str, _meter: str, period_s: int, spans: Any) -> Any:
        self.asked += [(period_s, *span) for span in spans]
        return [(number, combined(found)) for number, found in self._found(period_s, spans)]

    def lowest_kw(self, _node: str, _meter: str, period_s: int, spans: Any) -> Any:
        return [
            (number, min(one.mean_kw for one in found))
            for number, found in self._found(period_s, spans)
        ]

    def _found(self, period_s: int, spans: Any) -> Iterator[tuple[int, list[Demand]]]:
        for number, (start, end) in enumerate(spans):
            mine = [
                one
                for period, one in self._rows
                if period.period_s == period_s and start <= period.start < end
            ]
            if mine:
                yield number, mine


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
    rolled.energy = rolled.last_registers = lambda *_: []  # type: ignore[attr-defined]
    return rolled


def test_a_part_without_readings_is_there_and_has_no_value():
    """A gap is shown as one, and is not zero."""
    rolled = Rolled((at(2026, 7, 1, 0), "0"), (at(2026, 7, 1, 2), "1"))
    parts = of(rolled).demand(at(2026, 7, 1), at(2026, 7, 1, 3), Step.HOUR)
    assert [part.value and part.value.max_kw for part in parts] == [0, None, 1]


def test_a_month_is_made_of_days_and_of_hours_where_it_ends():
    """And of nothing that is not in it."""
    rolled = Rolled()
    of(rolled).demand(at(2026, 7, 10), at(2026, 7, 20), Step.MONTH)
    naive = [datetime(2026, 6, 30, 22), datetime(2026, 7, 1), datetime(2026, 7, 31)]  # noqa: DTZ001
    assert sorted(rolled.asked) == [
        (3600, naive[0], naive[1]),
        (3600, naive[2], naive[2] + 22 * HOUR),
        (86400, naive[1], naive[2]),
    ]


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


class Home:
    """A store of a meter's registers and intervals; without roll-ups it counts when it is asked."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def hear(self, when: datetime, wh: int, received_wh: int = 0) -> None:
        kind = CurrentSummationDelivered(
            device=None, meter="b", time=when, multiplier=1, divisor=1000,
            summation_delivered=wh, summation_received=received_wh,
            delivered_kwh=None, received_kwh=None,
        )  # fmt: skip
        self.put(kind, when)

    def say(self, end: datetime, *counts: int | None, channel: Any = "delivered") -> None:
        """Have intervals of 15 minutes, the oldest first."""
        newest_first = list(reversed(counts))
        kind = ProfileData(
            device=None, meter="b", time=end, end_time=end, interval_s=900, status=0,
            intervals=newest_first, interval_channel=channel,
        )  # fmt: skip
        self.put(kind, end)

    def put(self, kind: Notification, when: datetime) -> None:
        number = len(self.readings) + 1
        envelope = Envelope(node="a", run="r", hash="h", seq=number, received=when)
        self.readings.append(Reading(envelope, kind))

    def between(self, kind: str, _meter: str | None, start: datetime, end: datetime) -> Any:
        found = [one for one in self.readings if one.kind == kind]
        return (one for one in found if start <= one.envelope.received < end)

    def energy(self, _node: str, _meter: str, period_s: int, spans: Any) -> Any:
        every = energy.totals([], self._registers(), period_s)
        for number, (start, end) in enumerate(spans):
            if mine := [one for at, one in every.items() if start <= at < end]:
                yield number, energy.combined(mine)

    def demand(self, *_: Any) -> Any:
        return []

    def last_registers(self, _node: str, _meter: str, before: datetime) -> list[Register]:
        earlier = [one for one in self._registers() if one.time < before]
        return earlier[-1:]

    def _registers(self) -> list[Register]:
        found = [one for one in self.readings if one.kind == SUMMATION]
        return [energy.of_reading(one) for one in found]


@pytest.fixture
def gap() -> Home:
    """The registers of a day of which nine hours are missing, from 8:55 to 18:05: 11 kWh."""
    home = Home()
    for number in range(12 * 24 + 1):
        when = at(2026, 7, 1) + number * timedelta(minutes=5)
        if not at(2026, 7, 1, 9) <= when <= at(2026, 7, 1, 18):
            home.hear(when, 1000 * (number // 12))
    return home


def kwh(home: Any, *span: datetime, step: Step = Step.HOUR, side: str = "delivered") -> Any:
    parts = of(home, "UTC").energy(*span, step)
    values = [part.value and getattr(part.value, f"{side}_kwh") for part in parts]
    return [one if one is None else float(one) for one in values], [one.intervals for one in parts]


DAY = at(2026, 7, 1), at(2026, 7, 2)


def test_intervals_divide_what_the_registers_grew_by(gap: Home):
    """The hours of a gap get what they used; the hour after it loses as much, and the day nothing."""
    before, _ = kwh(gap, *DAY)
    assert before[9:19] == [None] * 9 + [10]
    for hour in range(10, 19):
        gap.say(at(2026, 7, 1, hour), 100, 200, 300, 400)
    after, filled = kwh(gap, *DAY)
    assert after[9:19] == [1] * 9 + [1]
    assert filled == [0] * 9 + [4] * 9 + [0] * 6
    assert after[:9] + after[19:] == before[:9] + before[19:]
    assert kwh(gap, *DAY, step=Step.DAY) == ([23], [0])


def test_what_is_finer_than_an_interval_is_not_made_up(gap: Home):
    """Five minutes of a quarter of an hour are a gap still."""
    gap.say(at(2026, 7, 1, 12), 100, 200, 300, 400)
    found, filled = kwh(gap, *DAY, step=Step.FIVE_MINUTES)
    assert set(filled) == {0}
    assert found[12 * 9 : 12 * 18] == [None] * 108


def test_a_span_that_ends_in_a_gap_has_its_part_of_it(gap: Home):
    """As the whole day says it: up to noon, from noon, and in the middle, where nothing was heard."""
    for hour in range(10, 19):
        gap.say(at(2026, 7, 1, hour), 100, 200, 300, 400)
    whole, _ = kwh(gap, *DAY)
    noon, three = at(2026, 7, 1, 12), at(2026, 7, 1, 15)
    assert kwh(gap, DAY[0], noon)[0] == whole[:12]
    assert kwh(gap, noon, DAY[1])[0] == whole[12:]
    assert kwh(gap, noon, three) == (whole[12:15], [4, 4, 4])
    total = of(gap, "UTC").total(noon, three).energy
    assert total is not None
    assert total.delivered_kwh == 3


@pytest.mark.parametrize(
    ("what", "hour"),
    [
        ("too much", [None]),
        ("invalid", [0.9]),
        ("said twice", [1.0]),
        ("said in two ways", [0.9]),
        ("of the other register", [None]),
        ("of no channel", [None]),
    ],
)
def test_an_interval_that_cannot_be_used_fills_nothing(gap: Home, what: str, hour: list[Any]):
    """What is left out stays with the reading after the gap."""
    end = at(2026, 7, 1, 12)
    match what:
        case "too much":
            gap.say(end, 100, 200, 300, 9_500)
        case "invalid":
            gap.say(end, None, 200, 300, 400)
        case "said twice":
            gap.say(end, 100, 200, 300, 400)
            gap.say(end, 300, 400)
        case "said in two ways":
            gap.say(end, 100, 200, 300, 400)
            gap.say(end - 3 * timedelta(minutes=15), 101)
        case "of the other register":
            gap.say(end, 100, 200, 300, 400, channel="received")
        case "of no channel":
            gap.say(end, 100, 200, 300, 400, channel=None)
    found, _ = kwh(gap, *DAY)
    assert found[11:12] == hour
    assert sum(filter(None, found)) == 23


def test_the_latest_is_found_however_old_it_is(gap: Home):
    """The last of its kind before a time, of this node."""
    of_house = of(gap, "UTC")
    for when, expected in ((23, 22), (15, 8), (24 * 365 * 3, 24)):
        found = of_house.latest(SUMMATION, at(2026, 7, 1) + timedelta(hours=when))
        assert found is not None
        said = found.notification
        assert isinstance(said, CurrentSummationDelivered)
        assert said.summation_delivered == 1000 * expected
    assert of_house.latest("price_cluster", at(2026, 7, 2)) is None
    assert of_house.latest(SUMMATION, at(2026, 7, 1)) is None


def test_intervals_are_asked_for_only_across_a_gap(gap: Home):
    """An hour's first and last reading have no gap between them, however far apart they are."""
    asked = []
    between = gap.between

    def looked(kind: str, *of: Any) -> Any:
        asked.append(kind)
        return between(kind, *of)

    gap.between = looked  # type: ignore[method-assign]
    kwh(gap, at(2026, 7, 1), at(2026, 7, 1, 9))
    assert asked == []
    kwh(gap, *DAY)
    assert asked == ["profile_data"] * 2


def test_years_of_intervals_are_put_in_order_at_once():
    """A meter that was away for long has many; those of an hour give way to its quarters."""
    home = Home()
    for number in range(4000):
        home.say(at(2020, 1, 1) + number * HOUR, 1, 2, 3, 4)
    hourly = ProfileData(
        device=None, meter="b", time=at(2020, 1, 2), end_time=at(2020, 1, 2), interval_s=3600,
        intervals=[10], interval_channel="delivered",
    )  # fmt: skip
    home.put(hourly, at(2020, 1, 2))
    found = of_side(home.readings, 0)
    assert len(found) == 16_000
    assert all(before.end == after.start for before, after in pairwise(found))
