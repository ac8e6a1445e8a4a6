"""How long the next report of a kind may take."""

from __future__ import annotations

from datetime import timedelta

import pytest

from raven_reader.rhythm import Rhythm
from ravenbus.notifications import InstantaneousDemand, ScheduleInfo

from .examples import NOON

DEMAND = InstantaneousDemand(
    device=None, meter=None, time=None, multiplier=1, divisor=1000, demand=1, demand_kw=0.001
)


def schedule(frequency_s, event="demand"):
    return ScheduleInfo(device=None, meter=None, time=None, event=event, frequency_s=frequency_s)


def hear(rhythm, *pauses_s):
    at = NOON
    rhythm.heard(DEMAND, at)
    for pause_s in pauses_s:
        at += timedelta(seconds=pause_s)
        rhythm.heard(DEMAND, at)
    return rhythm.intervals_s()["instantaneous_demand"]


@pytest.mark.parametrize(
    ("pauses_s", "expected_s"),
    [
        ((), 15),
        ((8,) * 9, 15),
        ((15.4,) * 9, 15),
        ((20,), 30),
        ((80,) * 9, 120),
        ((15, 15, 3600, 15, 45), 15),
        ((15,) * 9 + (80,) * 3, 120),
        ((80,) * 9 + (15,) * 3, 15),
    ],
)
def test_an_interval_follows_what_is_observed(pauses_s, expected_s):
    """It is the usual one, doubled until most of the last reports came within it."""
    assert hear(Rhythm(), *pauses_s) == expected_s


def test_a_schedule_is_believed_before_anything_is_observed():
    """What the device says of its schedule holds from then on, and no other kind changes."""
    rhythm = Rhythm()
    rhythm.note(schedule(80))
    rhythm.note(schedule(7200, event="time"))
    assert rhythm.intervals_s()["instantaneous_demand"] == 120
    assert rhythm.intervals_s()["price_cluster"] == 90
    rhythm.note(schedule(None))
    assert rhythm.intervals_s()["instantaneous_demand"] == 15


def test_the_time_without_a_device_is_no_interval():
    """A stick that was away for an hour is not one that reports each hour."""
    rhythm = Rhythm()
    hear(rhythm)
    rhythm.pause()
    rhythm.heard(DEMAND, NOON + timedelta(hours=1))
    assert rhythm.intervals_s()["instantaneous_demand"] == 15
