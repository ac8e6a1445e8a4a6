"""Which of two clocks a reading goes by, and how it is seen that one is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.clocks import SANE_HOST_CLOCK, ClockJudge
from raven_reader.host import is_synchronised
from ravenbus import notifications as n

from .examples import NOON
from .strategies import steady

LIMIT_S = 86400
IDS = {"device": "d8d5b90000001234", "meter": "0013500100abcdef"}


def demand(time):
    return n.InstantaneousDemand(
        **IDS, time=time, multiplier=1, divisor=1000, demand=491, demand_kw=0.491
    )


def message(time):
    return n.MessageCluster(**IDS, time=time, text="x")


def times(notification):
    return notification.time, notification.claimed_time


def judge(*, synchronised=True, limit_s=LIMIT_S):
    return ClockJudge(limit_s, lambda: synchronised)


@pytest.mark.parametrize("ahead_s", [-5_000_000, -86401, -86400, 0, 86400, 86401, 5_000_000])
def test_a_clock_that_is_off_costs_no_reading(ahead_s):
    """Beyond the limit a time is only what the device claimed; 0 turns the limit off."""
    said = NOON + timedelta(seconds=ahead_s)
    off = abs(ahead_s) > LIMIT_S
    clocks = judge()
    assert times(clocks.judge(demand(said), NOON)) == ((None, said) if off else (said, None))
    assert clocks.clocks == ("off" if off else "right", ahead_s)
    assert bool(clocks.clocks.problem) == off
    assert times(judge(limit_s=0).judge(demand(said), NOON)) == (said, None)


def test_a_host_that_nobody_set_believes_a_device_that_is_ahead():
    """A machine before its time server goes on from when it was switched off: it is behind."""
    clocks = judge(synchronised=False)
    ahead, behind = NOON + timedelta(days=9), NOON - timedelta(days=9)
    assert times(clocks.judge(demand(ahead), NOON)) == (ahead, None)
    assert clocks.clocks.state == "host-behind"
    assert "this machine's clock is 9.0 days behind" in clocks.clocks.problem
    assert times(clocks.judge(demand(behind), NOON)) == (None, behind)
    assert clocks.clocks.state == "off"


def test_a_host_without_a_clock_judges_nobody():
    """A host that starts in the past, as one without a battery does, keeps what the device says."""
    for received in (datetime(1970, 1, 1, tzinfo=UTC), SANE_HOST_CLOCK - timedelta(days=1)):
        clocks = judge()
        assert times(clocks.judge(demand(NOON), received)) == (NOON, None)
        assert clocks.clocks.state == "host-behind"


@pytest.mark.parametrize("claimed", [None, datetime(2000, 1, 1, 0, 4, tzinfo=UTC)])
def test_a_clock_that_is_not_set_is_told_apart(claimed):
    """Nothing said, or seconds since power-up: the clock is not set, and the value stays."""
    clocks = judge()
    unset = msgspec.structs.replace(demand(None), claimed_time=claimed)
    assert clocks.judge(unset, NOON) == unset
    assert clocks.clocks.state == "unset"
    clocks.judge(demand(NOON), NOON)
    assert clocks.clocks == ("right", 0.0)
    assert clocks.clocks.problem is None


def test_a_text_may_be_old_and_not_from_the_future():
    """What was set long ago may be reported now, unless the clock that dated it is off."""
    old, future = NOON - timedelta(days=400), NOON + timedelta(days=2)
    clocks = judge()
    assert times(clocks.judge(message(old), NOON)) == (old, None)
    assert times(clocks.judge(message(future), NOON)) == (None, future)
    assert clocks.clocks is None
    clocks.judge(demand(old), NOON)
    assert times(clocks.judge(message(old), NOON)) == (None, old)
    assert times(clocks.judge(message(NOON), NOON)) == (None, NOON)
    clocks.judge(demand(NOON), NOON)
    assert times(clocks.judge(message(old), NOON)) == (old, None)


def times_in(first, last):
    """Return seconds of the years from one to another."""
    ends = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (first, last))
    return st.integers(*ends).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@steady
@given(
    st.lists(
        st.tuples(
            st.sampled_from([demand, message]),
            st.one_of(st.none(), times_in(2009, 2136)),
        )
    ),
    times_in(1970, 2099),
    st.booleans(),
)
def test_any_clock_costs_nothing_and_invents_nothing(reports, host, synchronised):
    """Whatever both clocks say, only the place of the time changes; none is made up."""
    clocks = judge(synchronised=synchronised)
    for kind, said in reports:
        before = kind(said)
        after = clocks.judge(before, host)
        assert times(after) in ((said, None), (None, said))
        assert msgspec.structs.replace(after, time=said, claimed_time=None) == before


def test_the_kernel_says_whether_its_clock_is_kept():
    """The kernel answers without any right."""
    assert is_synchronised() in (True, False)
