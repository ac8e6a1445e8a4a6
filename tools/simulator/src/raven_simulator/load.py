"""Sources of demand: a household's day, or a table of someone's own."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

DAY_S: Final = 86_400

# What a raw demand may be on the line: 8 hex digits in two's complement.
_DEMAND_LIMIT: Final = 1 << 31
_SCALE_LIMIT: Final = 1 << 32

_FRIDGE_PERIOD_S: Final = 2700
_FRIDGE_ON_S: Final = 900
_SUNRISE_H: Final = 6
_SUNSET_H: Final = 18


class BadTableError(ValueError):
    """A table of demand cannot be used; the text names the line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A demand as the meter gives it: raw * multiplier / divisor kW.

    exact: the value is somebody's own and is not to be nudged.
    """

    raw: int
    multiplier: int = 1
    divisor: int = 1000
    exact: bool = False

    @property
    def watts(self) -> float:
        """Demand in W; a zero multiplier or divisor counts as one (RAVEn XML API r127 p.22)."""
        return self.raw * 1000 * (self.multiplier or 1) / (self.divisor or 1)


class Source(Protocol):
    """A source of demand."""

    def sample(self, at_s: float) -> Sample:
        """Demand at at_s seconds since a midnight; calls go forward in time."""


class Household:
    """A base load, a refrigerator, a morning and an evening peak, appliances; with solar, export at midday."""

    def __init__(self, rng: random.Random, *, solar: bool = False) -> None:
        self._rng = rng
        self._solar = solar
        self._appliance_w = 0.0
        self._on_s = -math.inf
        self._off_s = -math.inf

    def sample(self, at_s: float) -> Sample:
        """Demand at at_s seconds since a midnight; raw is in W."""
        hour = at_s / 3600 % 24
        used = (
            230
            + (90 if at_s % _FRIDGE_PERIOD_S < _FRIDGE_ON_S else 0)
            + 420 * _peak(hour, 7.4, 1.1)
            + 160 * _peak(hour, 12.7, 1.3)
            + 1100 * _peak(hour, 19.2, 1.9)
            + self._appliances(at_s)
            + self._rng.gauss(0, 12)
        )
        made = sun_w(hour) * self._rng.uniform(0.9, 1) if self._solar else 0.0
        return Sample(round(max(used, 60.0) - made))

    def _appliances(self, at_s: float) -> float:
        if at_s - self._off_s > DAY_S:
            self._off_s = at_s
        while at_s >= self._off_s:
            self._on_s = self._off_s + self._rng.expovariate(1 / 2400)
            self._off_s = self._on_s + self._rng.uniform(90, 1500)
            self._appliance_w = self._rng.choice((300, 650, 900, 1400, 2100))
        return self._appliance_w if at_s >= self._on_s else 0.0


def sun_w(hour: float) -> float:
    """Power in W of a roof under a clear sky, by the hour of the day."""
    if not _SUNRISE_H < hour < _SUNSET_H:
        return 0.0
    height = math.sin(math.pi * (hour - _SUNRISE_H) / (_SUNSET_H - _SUNRISE_H))
    return 4200 * math.pow(height, 1.5)


def _peak(hour: float, at: float, width: float) -> float:
    away = min(abs(hour - at), 24 - abs(hour - at))
    return math.exp(-((away / width) ** 2) / 2)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of demand, and how many rows of -1 were left out."""

    samples: Sequence[Sample]
    skipped: int


@dataclass(slots=True)
class Playback:
    """One row for each sample asked for, and from the top again after the last."""

    table: Table
    _next: int = field(default=0, init=False)

    def sample(self, at_s: float) -> Sample:  # noqa: ARG002 - the rows' order is their time
        """Next row of the table; the time is not looked at."""
        found = self.table.samples[self._next]
        self._next = (self._next + 1) % len(self.table.samples)
        return found


def read_table(lines: Iterable[str]) -> Table:
    """Read rows of time, demand and optionally multiplier and divisor; further columns are ignored.

    Without multiplier and divisor demand is in W. A first row whose demand is not a number is a header.
    Rows of -1, -1, -1 (what python-raven of 2016 wrote for a failed read) are left out and counted.
    Raises BadTableError.
    """
    samples: list[Sample] = []
    skipped = 0
    rows = csv.reader(lines, skipinitialspace=True)
    try:
        for first, row in enumerate(rows):
            if not row:
                continue
            try:
                sample = _sample(row)
            except ValueError as error:
                if first == 0 and len(row) > 1:
                    continue
                raise BadTableError(f"line {rows.line_num}: {error}") from error
            if sample is None:
                skipped += 1
            else:
                samples.append(sample)
    except csv.Error as error:
        raise BadTableError(f"line {rows.line_num}: {error}") from error
    if not samples:
        raise BadTableError(f"no row with a demand ({skipped} rows of -1)")
    return Table(tuple(samples), skipped)


def _sample(row: Sequence[str]) -> Sample | None:
    numbers = [cell.strip() for cell in row[1:4]]
    if not numbers:
        raise ValueError("a row is time, demand[, multiplier, divisor]; it has one column")
    if numbers == ["-1", "-1", "-1"]:
        return None
    if len(numbers) < len(("demand", "multiplier", "divisor")):
        return Sample(_number("demand", numbers[0], _DEMAND_LIMIT), exact=True)
    return Sample(
        _number("demand", numbers[0], _DEMAND_LIMIT),
        _number("multiplier", numbers[1], _SCALE_LIMIT, least=0),
        _number("divisor", numbers[2], _SCALE_LIMIT, least=0),
        exact=True,
    )


def _number(name: str, text: str, limit: int, *, least: int | None = None) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, a whole number is needed") from None
    if not (-limit if least is None else least) <= number < limit:
        raise ValueError(f"{name} {number} does not fit the line")
    return number
