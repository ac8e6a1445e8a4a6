"""Demand and energy by steps as a table; no store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from raven_export import steps
from ravenbus.demand import Sample, by_period, combined
from ravenbus.energy import Energy
from ravenbus.history import Meter, Step
from ravenbus.periods import rolled_up

PARIS = ZoneInfo("Europe/Paris")
MIDNIGHT = datetime(2026, 3, 28, 23, tzinfo=UTC)
"""Of the day that has 23 hours in Paris."""
HOUR = timedelta(hours=1)


class Rolled:
    """Two homes, which read 1 and 2 kW each half hour but for an hour at noon; energy in each."""

    def __init__(self) -> None:
        self.homes = {"a": "1", "b": "2"}
        times = [MIDNIGHT + HOUR / 2 * n for n in range(46) if n not in (24, 25)]
        samples = [
            Sample(home, "m", at, Decimal(kw)) for at in times for home, kw in self.homes.items()
        ]
        self.rows = rolled_up(by_period(samples), combined)

    def meters(self) -> list[Meter]:
        return [Meter(home, "m", MIDNIGHT, MIDNIGHT + 23 * HOUR) for home in self.homes]

    def demand(self, node, meter, period_s, spans):
        mine = [one for one in self.rows if one[0][:3] == (period_s, node, meter)]
        for number, (start, end) in enumerate(spans):
            if found := [one for period, one in mine if start <= period.start < end]:
                yield number, combined(found)

    def energy(self, node, meter, period_s, spans):
        for number, one in self.demand(node, meter, period_s, spans):
            yield number, Energy(delivered_kwh=one.sum_kw / 2)

    def last_registers(self, *_):
        return []


def rows(step: Step, nodes: list[str] | None = None) -> list[list[object]]:
    span = MIDNIGHT - 30 * HOUR, MIDNIGHT + 50 * HOUR
    return list(steps.rows(Rolled(), nodes, *span, step, PARIS))


def test_a_day_is_that_of_the_home():
    """With the hours that it has, and nothing outside the first and the last reading."""
    ((start, end, *of_a), of_b) = rows(Step.DAY)
    assert (start, end) == (MIDNIGHT, MIDNIGHT + 23 * HOUR)
    assert of_a == ["a", "m", 44, 1.0, 1.0, 1.0, 22.0, None, 0]
    assert of_b[2:] == ["b", "m", 44, 2.0, 2.0, 2.0, 44.0, None, 0]


def test_a_step_without_a_reading_is_there_and_empty():
    """In the order of time over all homes, and of one home alone."""
    found = rows(Step.HOUR)
    assert len(found) == 46
    assert found == sorted(found, key=lambda row: row[0])
    assert [row for row in found if not row[steps.READINGS]] == [
        [MIDNIGHT + 12 * HOUR, MIDNIGHT + 13 * HOUR, home, "m", 0, *[None] * 5, 0] for home in "ab"
    ]
    assert rows(Step.HOUR, ["b"]) == [row for row in found if row[steps.NODE] == "b"]


def test_five_minutes_are_those_of_the_roll_ups():
    """Each once."""
    found = rows(Step.FIVE_MINUTES, ["a"])
    assert len(found) == 23 * 12
    assert sum(row[steps.READINGS] for row in found) == 44
