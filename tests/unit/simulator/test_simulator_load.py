"""Where demand comes from."""

import random

import pytest

from raven_simulator.load import BadTableError, Household, Playback, Sample, read_table
from raven_simulator.replay import Replay, split
from raven_simulator.station import Moment


def mean_w(household: Household, hour: int):
    samples = [household.sample(hour * 3600 + second).watts for second in range(0, 3600, 15)]
    return sum(samples) / len(samples)


def test_rows_of_minus_one_are_skipped_and_counted():
    """Fake -1 rows of an old table are left out; what a real meter said stays, -1 W of export too."""
    table = read_table(
        [
            '"2016-10-20 13:06:27","-1","-1","-1","Test2"\n',
            '"2016-10-20 13:06:51","1116","1","1000","Test2"\n',
            '"2016-10-20 13:07:05","-1","3","1000","Test2"\n',
        ]
    )
    assert table.samples == (Sample(1116, 1, 1000, exact=True), Sample(-1, 3, 1000, exact=True))
    assert table.skipped == 1


def test_a_header_is_no_row():
    """A first line of names is passed over, and two columns are enough."""
    assert read_table(["time,demand\n", "2026-01-01,500\n"]).samples == (Sample(500, exact=True),)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["t,1,1,1000\n", "t,much,1,1000\n"], "line 2: demand is 'much', a whole number is needed"),
        (["t,1,1,1000\n", "t\n"], "line 2: a row is time, demand"),
        (["t,1\n", "t,1,-5,1000\n"], "line 2: multiplier -5 does not fit"),
        (["t,1\n", "t,99999999999\n"], "line 2: demand 99999999999 does not fit"),
        (["t,-1,-1,-1\n"], r"no row with a demand \(1 rows of -1\)"),
    ],
)
def test_a_bad_table_names_the_line(lines: list[str], complaint: str):
    """A table that cannot be used says in which line and why."""
    with pytest.raises(BadTableError, match=complaint):
        read_table(lines)


def test_a_table_is_played_row_by_row_and_again():
    """Each report takes the next row, and after the last comes the first."""
    playback = Playback(read_table(["t,1\n", "t,2\n"]))
    assert [playback.sample(0).raw for _ in range(5)] == [1, 2, 1, 2, 1]


def test_a_household_has_an_evening_and_solar_a_midday():
    """Evenings draw more than nights, and only with solar does midday export."""
    plain = Household(random.Random(1))
    night, noon, evening = (mean_w(plain, hour) for hour in (3, 12, 19))
    assert evening > night + 500
    assert noon > 0
    assert mean_w(Household(random.Random(1), solar=True), 12) < -1000


def test_a_capture_is_played_as_it_is():
    """The pieces of a capture are its bytes, one each interval, and none is left out by a silence."""
    capture = (
        b"234</DeviceMacId>\r\n<TimeCluster>\0<Pri<PriceCluster></PriceCluster>\r\n\r\n<Warning>"
    )
    pieces = split(capture)
    assert len(pieces) == 4
    assert b"".join(pieces) == capture
    assert split(b"") == []


def test_a_replay_goes_on_after_a_silence():
    """Skipping delays a capture and loses nothing."""
    replay = Replay([b"1", b"2", b"3"], 1.0)
    replay.start(Moment(0, 0))
    assert replay.due(Moment(1, 0)) == [b"1"]
    replay.skip(Moment(60, 0))
    assert replay.due(Moment(60, 0)) == [b"2"]
    assert replay.due(Moment(60.5, 0)) == []
    assert replay.due(Moment(61, 0)) == [b"3"]
    assert replay.due_s() == float("inf")
