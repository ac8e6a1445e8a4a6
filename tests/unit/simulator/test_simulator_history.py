"""The simulated past: what raven-import takes, and what a meter could have said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from raven_export.columns import reading_of
from raven_simulator import history
from ravenbus.notifications import CurrentSummationDelivered, InstantaneousDemand

END = "2026-07-01T00:07:00Z"


def past(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    """Return what is written, turned round: the newest comes first."""
    assert history.main([*options, "--end", END]) == 0
    return [json.loads(line) for line in reversed(capsys.readouterr().out.splitlines())]


def test_every_line_is_a_reading_and_a_run_has_no_gap(capsys):
    """Of homes, meters and runs of their own; the same for the same words."""
    lines = past(capsys, "--days", "3", "--homes", "3", "--node", "home")
    readings = [reading_of(line) for line in lines]
    assert lines == past(capsys, "--days", "3", "--homes", "3", "--node", "home")
    assert len(readings) == 3 * 2 * (3 * 96 + 1)
    assert {one.node for one in readings} == {"home", "home-2", "home-3"}
    assert len({one.notification.meter for one in readings}) == 3
    for node in ("home", "home-2", "home-3"):
        mine = [one for one in readings if one.node == node]
        assert len({one.envelope.hash for one in mine}) == 1
        assert [one.envelope.seq for one in mine] == list(range(1, len(mine) + 1))
        times = [one.notification.time for one in mine]
        assert times == sorted(times)
        assert times[-1] == datetime(2026, 7, 1, tzinfo=UTC)
    assert past(capsys, "--days", "3", "--seed", "2")[0]["hash"] != lines[0]["hash"]


def test_registers_grow_by_what_the_demand_comes_to(capsys):
    """At each minute the meter counts what was taken, and the home with solar cells what was given."""
    lines = past(capsys, "--days", "2", "--every", "60", "--homes", "2", "--register", "9000000")
    for node, gives in (("past", False), ("past-2", True)):
        said = [reading_of(line).notification for line in lines if line["node"] == node]
        demands = [one.demand or 0 for one in said if isinstance(one, InstantaneousDemand)]
        registers = [one for one in said if isinstance(one, CurrentSummationDelivered)]
        assert min(demands) < 0 if gives else min(demands) > 0
        taken = sum(max(watts, 0) for watts in demands[:-1]) / 60
        given = -sum(min(watts, 0) for watts in demands[:-1]) / 60
        delivered = [one.summation_delivered or 0 for one in registers]
        received = [one.summation_received or 0 for one in registers]
        assert delivered[-1] - delivered[0] == pytest.approx(taken, abs=1)
        assert received[-1] - received[0] == pytest.approx(given, abs=1)
        assert all(one <= other for kwh in (delivered, received) for one, other in pairwise(kwh))
    assert registers[-1].summation_delivered == 9_000_000 + 1_234_567


def test_winter_needs_more_and_a_holiday_least(capsys):
    """What a page has to show that is worth a look."""
    lines = past(capsys, "--days", "365", "--every", "86400")
    kwh = [one["delivered_kwh"] for one in lines if "delivered_kwh" in one]
    days = [after - before for before, after in pairwise(kwh)]
    assert sum(days[170:210]) > 1.2 * sum(days[-30:]) * 40 / 30
    assert max(days[151:156]) < 0.5 * min(days[140:149])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--homes", "0"), "'0': allowed is 1 to 1000"),
        (("--days", "ten"), "'ten': allowed is 1 to 4000"),
        (("--every", "90"), "'90': allowed is 60 to 86400, a multiple of 60"),
        (("--end", "yesterday"), "allowed is a time as 2026-03-29T12:00:00Z"),
    ],
)
def test_what_cannot_be_is_refused(capsys, option: tuple[str, str], said: str):
    """With what is allowed."""
    with pytest.raises(SystemExit):
        history.main(option)
    assert said in capsys.readouterr().err
