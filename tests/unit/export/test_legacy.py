"""python-raven's own CSV as readings; no bus."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from raven_export.legacy import Legacy
from ravenbus.errors import ContractError
from ravenbus.messages import Reading, Run

METER = "0013500100abcdef"
LINES = [
    '"2016-10-20 13:03:01","-1","-1","-1","Test"\n',
    '"2016-10-20 13:03:09","437","1","1000","Test"\n',
    '"2016-10-20 13:03:17","-5","0","0","Test"\n',
    '"2016-10-20 13:03:25","7","1","1000","other, ""run"""\n',
]


def items(lines, **changes):
    legacy = Legacy(**({"node": "old", "meter": METER, "zone": UTC} | changes))
    return list(legacy.items(lines)), legacy


def test_a_row_is_a_reading_of_the_host_that_inserted_it():
    """A run for each name, numbers without gaps; the device's clock is not known."""
    found, legacy = items(LINES, zone=ZoneInfo("America/Los_Angeles"))
    assert [type(one) for one in found] == [Run, Reading, Reading, Run, Reading]
    run, first, second, _, third = found
    assert legacy.placeholders == 1
    assert (run.run, run.meter, run.started) == ("Test", METER, first.envelope.received)
    assert first.envelope.received == datetime(2016, 10, 20, 20, 3, 9, tzinfo=UTC)
    assert (first.notification.time, first.notification.meter) == (None, METER)
    assert [one.envelope.seq for one in (first, second, third)] == [1, 2, 1]
    assert first.envelope.hash == second.envelope.hash == run.hash != third.envelope.hash
    kw = [one.notification.demand_kw for one in (first, second, third)]
    assert kw == [0.437, -5.0, 0.007], "a multiplier and divisor of zero count as one"


def test_the_same_rows_have_the_same_identity_and_others_have_others():
    """So a file is imported once; a longer one goes on, and another month is another run."""
    found, _ = items(LINES)
    assert items(LINES)[0] == found
    longer, _ = items([*LINES, LINES[1].replace("13:03:09", "14:00:00")])
    assert longer[:-1] == found
    assert longer[-1].envelope.seq == 3
    hashes = {
        one.hash
        for lines, changes in ((LINES, {}), (LINES[2:], {}), (LINES, {"node": "else"}))
        for one in items(lines, **changes)[0]
        if isinstance(one, Run) and one.run == "Test"
    }
    assert len(hashes) == 3
    with_hash = [line.rstrip() + ',"h"\n' for line in LINES]
    assert items(with_hash)[0][0].hash not in hashes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("noon,1,1,1,r\n", "line 2: .*noon"),
        ("2016-10-20 13:03:09,x,1,1,r\n", "line 2: .*'x'"),
        ("2016-10-20 13:03:09,1,-2,1,r\n", "line 2: .*multiplier"),
        ("2016-10-20 13:03:09,1\n", "line 2 has 2 fields"),
        ("2016-10-20 13:03:09,1,1,1,\n", "line 2: .*run"),
    ],
)
def test_a_line_that_is_no_row_is_named(line, said):
    """With its number and what is wrong."""
    with pytest.raises(ContractError, match=said):
        items([LINES[1], line])
