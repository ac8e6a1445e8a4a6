"""Months in UTC, and which of them are old: pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple


class Month(NamedTuple):
    """A month in UTC, counted from year 0."""

    number: int

    @classmethod
    def of(cls, time: datetime) -> Month:
        """Return the month that a time in UTC is in."""
        return cls(time.year * 12 + time.month - 1)

    @classmethod
    def parse(cls, text: str) -> Month:
        """Return the month that a text as `2026-03` names; raise ValueError if it names none."""
        return cls.of(datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC))

    def __str__(self) -> str:
        year, month = divmod(self.number, 12)
        return f"{year}-{month + 1:02}"

    def later(self, months: int) -> Month:
        """Return the month so many months later."""
        return Month(self.number + months)

    @property
    def start(self) -> int:
        """Seconds from 1970 to its first instant."""
        year, month = divmod(self.number, 12)
        return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())

    @property
    def span(self) -> tuple[datetime, datetime]:
        """Its first instant and that of the next month, UTC without a zone."""
        first, after = (
            datetime.fromtimestamp(one.start, UTC).replace(tzinfo=None)
            for one in (self, self.later(1))
        )
        return first, after


def due(months: Iterable[Month], today: datetime, keep: int) -> list[Month]:
    """Return those of the months that are older than the ``keep`` months before today's."""
    return sorted({month for month in months if month < Month.of(today).later(-keep)})
