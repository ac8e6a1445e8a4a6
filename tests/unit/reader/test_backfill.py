"""Gaps are filled from the meter's own memory: asked for once, a little at a time, and no other way."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from raven_reader.backfill import ANSWER_S, PAUSE_S
from raven_reader.commands import write
from raven_simulator.commands import Commands
from raven_simulator.device import Device
from raven_simulator.load import Household
from raven_simulator.models import RAVEN, Setup
from raven_simulator.station import Moment
from ravenbus.notifications import ProfileData

from .examples import EPOCH, NOON

HOUR = 3600
QUARTER = timedelta(minutes=15)
CHANNELS = ("delivered", "received")


class Stick:
    """A simulated stick at a home; both have one clock, which ``wait`` moves."""

    def __init__(self, home, **setup):
        self.home = home
        self.now_s = 0
        rng = random.Random(1)
        made = replace(Setup(device=1, meter=2, delivered_wh=9e6, received_wh=1e6), **setup)
        self.device = Device(RAVEN, made, Household(rng, solar=True), rng)
        self.device.start(self.moment)
        self.asked = []
        self.mute = False

    @property
    def moment(self):
        return Moment(self.now_s, int((self.home.clock() - EPOCH).total_seconds()))

    def wait(self, seconds, *, every=PAUSE_S):
        """Let time pass; the stick says its registers every few minutes, and answers questions."""
        until = self.now_s + seconds
        while self.now_s < until:
            self.forward(every)
            if self.now_s % 300 < every:
                self.say("get_current_summation_delivered", Refresh="Y")
            self.let_ask()

    def forward(self, seconds):
        """Let time pass without a word."""
        self.now_s += seconds
        self.home.seconds += seconds
        self.home.clock.forward(seconds)
        while self.device.due_s() <= self.now_s:
            self.device.due(self.moment)

    def say(self, name, **parameters):
        self.answer(write(name, parameters, allow_setters=False))

    def let_ask(self):
        """Have the reader ask what it wants to ask now."""
        command = self.home.reader.next_command()
        if command:
            self.asked.append((self.now_s, command))
            self.home.reader.command_sent(command)
            if not self.mute:
                self.answer(command)

    def answer(self, command):
        (parsed,) = Commands().feed(command)
        self.home.hear(*self.device.answer(parsed, self.moment))

    @property
    def profiles(self):
        found = [one.notification for one in self.home.readings]
        return [one for one in found if isinstance(one, ProfileData)]

    def intervals(self, channel):
        """Return what is known of a channel's intervals, by their ends."""
        found = {}
        for one in self.profiles:
            if one.interval_channel == channel:
                for back, count in enumerate(one.intervals):
                    found[one.end_time - QUARTER * back] = count
        return found


def ends(first, last):
    """Return the ends of the quarters of an hour after one time, up to another."""
    found = [NOON + QUARTER * number for number in range(-1000, 1000)]
    return [one for one in found if first < one <= last]


def test_at_the_first_start_all_is_asked_that_the_meter_has(make):
    """Both channels, from the newest to the oldest, with pauses; then nothing more."""
    stick = Stick(make(), past_s=7 * HOUR)
    stick.wait(600)
    for channel in CHANNELS:
        found = stick.intervals(channel)
        assert sorted(found) == ends(NOON - timedelta(hours=7), NOON + timedelta(minutes=5))
        assert None not in found.values()
    times = [at for at, _ in stick.asked]
    assert len(times) == 2 * 4, "three answers of 12, and one that there are no more"
    assert all(after - before >= PAUSE_S for before, after in pairwise(times))
    stick.wait(2 * HOUR)
    assert len(stick.asked) == len(times)


def test_after_a_gap_its_intervals_are_asked_for(make):
    """What the reader slept through, and no more; what they come to is what the registers grew by."""
    home = make()
    stick = Stick(home, past_s=HOUR)
    stick.wait(600)
    asked, last = len(stick.asked), home.clock()
    stick.forward(3 * HOUR)
    home.restart()
    stick.wait(600)
    assert len(stick.asked) > asked
    found = stick.intervals("delivered")
    assert set(ends(last, last + timedelta(hours=3))) <= set(found)
    assert all(at > last - timedelta(hours=3) for at in found)
    home.restart()
    stick.wait(600)
    known = [one for one in stick.profiles if one.interval_channel]
    assert len({(one.interval_channel, one.end_time) for one in known}) == len(known)


@pytest.mark.parametrize("intervals", ["short", "invalid"])
def test_a_poor_answer_is_taken_as_it_is(make, intervals: str):
    """Three intervals at a time lead as far back; an invalid one is none."""
    stick = Stick(make(), past_s=4 * HOUR, intervals=intervals)
    stick.wait(900)
    found = stick.intervals("delivered")
    assert sorted(found) == ends(NOON - timedelta(hours=4), NOON + timedelta(minutes=5))
    assert (None in found.values()) == (intervals == "invalid")


def test_a_meter_that_knows_no_end_time_is_not_asked_for_ever(make):
    """It says its newest intervals each time: when nothing older comes the gap is over."""
    stick = Stick(make(), past_s=6 * HOUR)
    answer = stick.answer
    stick.answer = lambda command: answer(re.sub(rb"<EndTime>\w+<", b"<EndTime>0x0<", command))
    stick.wait(HOUR)
    assert len(stick.asked) == 2 * 2
    assert sorted(stick.intervals("received")) == ends(
        NOON - timedelta(hours=3), NOON + timedelta(minutes=5)
    )


def test_a_meter_that_refuses_is_asked_once_a_day(make):
    """Each channel, over restarts too."""
    home = make()
    stick = Stick(home, intervals="refused")
    for _ in range(3):
        for _ in range(2):
            stick.wait(12 * HOUR, every=150)
            home.restart()
    assert len(stick.asked) == 2 * 3
    assert all(one.status == 2 for one in stick.profiles)


def test_no_answer_is_no_reason_to_hurry(make):
    """After 10 minutes, after two hours, then after a day; an answer ends that."""
    stick = Stick(make(), past_s=HOUR)
    stick.mute = True
    stick.wait(27 * HOUR, every=60)
    times = [at for at, command in stick.asked if b"Delivered" in command]
    waits = [round((b - a) / HOUR, 1) for a, b in pairwise(times)]
    assert waits == [0.2, 2.0, 24.0]
    stick.mute = False
    stick.wait(25 * HOUR, every=60)
    assert set(ends(NOON - timedelta(hours=1), NOON)) <= set(stick.intervals("delivered"))


def test_an_answer_that_may_be_anothers_is_of_no_channel(make):
    """A person asks too, or an answer comes late: it is kept, and says no channel."""
    home = make()
    stick = Stick(home, past_s=4 * HOUR)
    stick.say("get_current_summation_delivered")
    stick.mute = True
    stick.let_ask()
    late = stick.asked[-1][1]
    person = write("get_profile_data", {"IntervalChannel": "Received"}, allow_setters=False)
    home.reader.command_sent(person)
    for command in (late, person):
        stick.answer(command)
    assert [one.interval_channel for one in stick.profiles] == [None] * 2
    stick.forward(ANSWER_S + 1)
    stick.answer(late.replace(b"0x0c", b"0x03"))
    assert [one.interval_channel for one in stick.profiles] == [None] * 3
    stick.mute = False
    stick.wait(HOUR)
    assert None not in stick.intervals("delivered").values()


def test_a_person_who_asks_hears_of_which_channel(make):
    """What the command named is in the reading."""
    home = make()
    stick = Stick(home, past_s=HOUR)
    command = write(
        "get_profile_data",
        {"NumberOfPeriods": "0x02", "EndTime": "0x00000000", "IntervalChannel": "Received"},
        allow_setters=False,
    )
    home.reader.command_sent(command)
    stick.answer(command)
    (found,) = stick.profiles
    assert (found.interval_channel, len(found.intervals), found.time) == ("received", 2, NOON)
