"""Which months need a partition; no database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ravenbus.months import Month, due
from ravensql.partitions import AHEAD, LONGEST, missing, name

TODAY = datetime(2026, 11, 23, tzinfo=UTC)


def names(months: list[Month]) -> list[str]:
    return [name(month) for month in months]


def test_a_month_is_one_of_utc():
    """Its partition ends where the next month begins."""
    december = Month.of(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert name(december) == "p_2026_12"
    assert name(december.later(1)) == "p_2027_01"
    assert december.later(1).start == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_a_month_has_a_name():
    """People say 2026-03, and nothing else is one."""
    assert str(Month.parse("2026-03")) == "2026-03"
    assert name(Month.parse("2026-03")) == "p_2026_03"
    for text in ("2026-13", "2026", "march", "2026-03-01", ""):
        with pytest.raises(ValueError, match=r"does not match|unconverted"):
            Month.parse(text)


def test_whole_months_before_this_one_stay():
    """What is older is due, the oldest first, each month once."""
    months = [Month.of(TODAY).later(-n) for n in (0, 4, 1, 3, 2, 3)]
    assert names(due(months, TODAY, 2)) == ["p_2026_07", "p_2026_08"]
    assert due(months, TODAY, 4) == []


def test_a_new_table_begins_with_this_month():
    """This one and three ahead."""
    assert names(missing([], None, TODAY)) == ["p_2026_11", "p_2026_12", "p_2027_01", "p_2027_02"]


def test_an_old_table_begins_with_its_oldest_row():
    """Every month since then, and a time that cannot be believed makes no thousand partitions."""
    found = names(missing([], datetime(2016, 10, 20, tzinfo=UTC), TODAY))
    assert (found[0], len(found)) == ("p_2016_10", 122 + AHEAD)
    assert len(missing([], datetime(1970, 1, 1, tzinfo=UTC), TODAY)) == LONGEST + 1
    assert len(missing([], datetime(2030, 1, 1, tzinfo=UTC), TODAY)) == AHEAD + 1


def test_what_is_there_is_not_made_again():
    """Only the months after the last bound, none while enough are ahead."""
    ends_with_january = Month.of(datetime(2027, 2, 1, tzinfo=UTC)).start
    assert names(missing([1, ends_with_january], None, TODAY)) == ["p_2027_02"]
    assert missing([Month.of(datetime(2027, 3, 1, tzinfo=UTC)).start], None, TODAY) == []
    assert missing([Month.of(datetime(2028, 3, 1, tzinfo=UTC)).start], None, TODAY) == []
