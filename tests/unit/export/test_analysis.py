"""The answers of docs/analysis.md are right, on an export of a home that is known."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from raven_export import main
from raven_harness.stack import ROOT
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import InstantaneousDemand
from raventools.settings import StoresSettings
from tests.memory import Memory

PAGE = (ROOT / "docs" / "analysis.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PARIS = ZoneInfo("Europe/Paris")
START = datetime(2026, 3, 26, 12, tzinfo=UTC)
LOST = range(6000, 6100)
"""Minutes from START whose readings the store lacks, on the 30th."""


def power(at: datetime) -> float:
    """Return what the home takes: little at night, more in the evening, most once."""
    local = at.astimezone(PARIS)
    if at == datetime(2026, 3, 28, 17, 7, tzinfo=UTC):
        return 9.5
    return {19: 3.0, 20: 2.0, 7: 1.5}.get(local.hour, 0.25 + local.day / 1000)


def home() -> tuple[Memory, dict[datetime, float]]:
    """Return a store with a reading a minute for a week, and what is in it of five days."""
    store, known = Memory(), {}
    for number in range(7 * 1440):
        at = START + timedelta(minutes=number)
        if number in LOST:
            continue
        envelope = Envelope(
            node="cellar",
            run="winter",
            hash="5f0c4b1e-8a4d-4c1b-9d3e-2b7a60c3f1d9",
            seq=number + 1,
            received=at,
        )
        demand = InstantaneousDemand(
            device=None,
            meter=None,
            time=at,
            multiplier=1,
            divisor=1000,
            demand=round(power(at) * 1000),
            demand_kw=power(at),
        )
        store.store([Reading(envelope, demand)])
        if date(2026, 3, 27) <= at.astimezone(PARIS).date() <= date(2026, 3, 31):
            known[at] = power(at)
    return store, known


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the page's command and its lines leave behind."""
    store, known = home()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URL", "mongodb://nowhere/raven")
    monkeypatch.setattr(StoresSettings, "stores", lambda *_: iter([store]))
    (command,) = re.findall(r"^raven-export .*", PAGE, re.MULTILINE)
    monkeypatch.setattr("sys.argv", shlex.split(command))
    assert main.main() == 0
    found: dict[str, Any] = {"known": known}
    for block in BLOCKS:
        exec(block, found)  # noqa: S102 - our own page
    return found


def by(known: dict[datetime, float], key: Any) -> dict[Any, list[float]]:
    groups: dict[Any, list[float]] = {}
    for at, kw in known.items():
        groups.setdefault(key(at), []).append(kw)
    return groups


def test_each_answer_has_ten_lines_at_most():
    """There are five of them, after what they have in common."""
    assert len(BLOCKS) == len(re.findall(r"^## .*\?$", PAGE, re.MULTILINE)) + 1 == 6
    assert all(len(block.splitlines()) <= 10 for block in BLOCKS)


def test_each_answer_is_right(answers: dict[str, Any]):
    """As plain Python says it, with the gap, the short day and the lost numbers."""
    known = answers["known"]
    quarters = by(known, lambda at: at.replace(minute=at.minute // 15 * 15))
    curve = dict(answers["curve"].select("time_utc", "demand_kw").iter_rows())
    assert {at: kw for at, kw in curve.items() if kw is not None} == {
        at: pytest.approx(fmean(kws)) for at, kws in quarters.items()
    }
    assert len([at for at, kw in curve.items() if kw is None]) == 6, "a gap is shown"
    assert len(curve) == 4 * (5 * 24 - 1)

    days = by(known, lambda at: at.astimezone(PARIS).date())
    base = {day: pytest.approx(0.25 + day.day / 1000) for day in days}
    assert dict(answers["base"].iter_rows()) == base

    hours = by(known, lambda at: at.astimezone(PARIS).hour)
    means = {hour: fmean(kws) for hour, kws in hours.items()}
    best = sorted(means, key=means.__getitem__)[:-4:-1]
    assert answers["hours"]["hour"].to_list() == best == [19, 20, 7]
    assert answers["peak"] == (datetime(2026, 3, 28, 18, 7, tzinfo=PARIS), 9.5)

    by_hour = by(known, lambda at: (at.astimezone(PARIS).date(), at.replace(minute=0)))
    found = {day: (n, kwh, kw) for day, n, kwh, kw in answers["days"].iter_rows()}
    for day in days:
        each = [fmean(kws) for (of, _), kws in by_hour.items() if of == day]
        expected = len(each), pytest.approx(sum(each)), pytest.approx(fmean(each))
        assert found[day] == expected
    assert [found[day][0] for day in days] == [24, 24, 23, 23, 24], "the 30th has an hour without"

    assert answers["missing"] == {"winter": [[LOST[0] + 1, LOST[-1] + 1]]}
    assert not answers["notes"]["complete"]
    after = START + timedelta(minutes=LOST[-1] + 1)
    assert answers["silence"].rows() == [(after, timedelta(minutes=101))]
