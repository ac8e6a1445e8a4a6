"""What is meant by a month, a day or a time: pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

ALLOWED: Final = "a month as 2026-03, a day as 2026-03-05 or a time as 2026-03-05T18:30:00+01:00"
_MONTH: Final = re.compile(r"\d{4}-\d{2}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def first(text: str, zone: tzinfo) -> datetime:
    """Return the time that is named, or the first of a month or day in the zone, in UTC.

    Raises ValueError that says what is allowed.
    """
    return _instant(_local(text), zone)


def end(text: str, zone: tzinfo) -> datetime:
    """Return the time that is named, or the first after a month or day in the zone, in UTC.

    Raises ValueError that says what is allowed.
    """
    found = _local(text)
    if _MONTH.fullmatch(text):
        found = (found + timedelta(days=31)).replace(day=1)
    elif _DAY.fullmatch(text):
        found += timedelta(days=1)
    return _instant(found, zone)


def _local(text: str) -> datetime:
    try:
        return datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: allowed is {ALLOWED}") from None


def _instant(time: datetime, zone: tzinfo) -> datetime:
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
