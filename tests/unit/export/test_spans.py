"""What a month, a day and a time mean; no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from raven_export import spans
from raven_export.settings import TimeZone

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("text", "first", "end"),
    [
        ("2026-03", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        ("2026-12", "2026-11-30T23:00Z", "2026-12-31T23:00Z"),
        ("2026-03-05", "2026-03-04T23:00Z", "2026-03-05T23:00Z"),
        ("2026-03-05T12:00", "2026-03-05T11:00Z", "2026-03-05T11:00Z"),
        ("2026-03-05T12:00:00.5-08:00", "2026-03-05T20:00:00.5Z", "2026-03-05T20:00:00.5Z"),
        ("2026-03-05T12:00Z", "2026-03-05T12:00Z", "2026-03-05T12:00Z"),
    ],
)
def test_the_end_of_a_month_or_day_is_included_and_that_of_a_time_is_not(text, first, end):
    """In the home's zone, where the text says no other."""
    assert spans.first(text, PARIS) == datetime.fromisoformat(first)
    assert spans.end(text, PARIS) == datetime.fromisoformat(end)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_the_clocks_change_has_its_own_length(day, hours):
    """From midnight to midnight where the home is."""
    length = spans.end(day, PARIS) - spans.first(day, PARIS)
    assert length == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-02-30", "yesterday", ""])
def test_what_is_no_time_is_refused(text):
    """With what is allowed."""
    for meaning in (spans.first, spans.end):
        with pytest.raises(ValueError, match=r"allowed is a month as 2026-03"):
            meaning(text, UTC)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "/etc/passwd", "../UTC"])
def test_what_is_no_time_zone_is_refused(name):
    """With what is allowed, and without a look at other files."""
    with pytest.raises(ValueError, match="the name of a time zone"):
        TimeZone(name)
