"""What a kilowatt-hour costs: a tariff that a person wrote, or the prices that a device reports.

A tariff file is TOML, each of its numbers read exactly; ``docs/tariff.md`` explains it by an example.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from ravenbus.history import Step, edges
from ravenbus.messages import Reading
from ravenbus.notifications import DERIVED_DIGITS, EXACT, PriceCluster
from ravenbus.readback import Store, time_of

PRICE: Final = str(PriceCluster.__struct_config__.tag)
KNOWN_FOR: Final = timedelta(hours=24)
"""Time after which a price that was reported without an end is not known any more."""

LARGEST: Final = 1_000_000
"""The largest number of a file, price or kWh."""
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final = get_args(Day)
Clock = Annotated[
    str,
    Meta(
        pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)\Z",
        extra={"allowed": "a time in quotes, from 00:00 to 24:00"},
    ),
]


class TariffError(Exception):
    """A tariff file that cannot be used; its text says where, why, and what is allowed."""


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file, which has no keys but these."""


class Tier(Strict, frozen=True, kw_only=True):
    """What a kWh costs until so much was used in the month; the last tier has no end."""

    price: Decimal
    up_to_kwh: Decimal | None = None


class Rate(Strict, frozen=True, kw_only=True, rename={"start": "from", "end": "to"}):
    """What a kWh costs at some times of the week, or at every time if it names none."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    price: Decimal | None = None
    tiers: list[Tier] = []
    weekdays: list[Day] = []
    start: Clock = "00:00"
    end: Clock = "24:00"

    def holds(self, local: datetime) -> bool:
        """Say whether the rate is for a time; what is past midnight belongs to the day before."""
        clock = f"{local:%H:%M}"
        if self.start < self.end:
            return self.start <= clock < self.end and self._is_on(local.weekday())
        if clock >= self.start:
            return self._is_on(local.weekday())
        return clock < self.end and self._is_on(local.weekday() - 1)

    def cost(self, before_kwh: Decimal, kwh: Decimal) -> Decimal:
        """Return what energy costs after so much was used in the month."""
        if self.price is not None:
            return kwh * self.price
        total, begin, after_kwh = Decimal(0), Decimal(0), before_kwh + kwh
        for tier in self.tiers:
            end = after_kwh if tier.up_to_kwh is None else min(tier.up_to_kwh, after_kwh)
            total += max(Decimal(0), end - max(begin, before_kwh)) * tier.price
            begin = max(begin, end)
        return total

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the rate."""
        if (self.price is None) == (not self.tiers):
            yield "price and tiers: allowed is one of them"
        ends = [tier.up_to_kwh for tier in self.tiers]
        if any(end is None for end in ends[:-1]) or (ends and ends[-1] is not None):
            yield "tiers: every tier but the last needs up_to_kwh, the last must not have it"
        elif any(one >= other for one, other in pairwise([Decimal(0), *(ends[:-1])])):  # type: ignore[operator] # None is the last alone
            yield "tiers: up_to_kwh has to grow from tier to tier"
        if self.start == self.end:
            yield "from and to are the same: allowed are different times, or neither"

    def _is_on(self, weekday: int) -> bool:
        return not self.weekdays or DAYS[weekday % 7] in self.weekdays


class Tariff(Strict, frozen=True, kw_only=True, rename={"rates": "rate"}):
    """What holds from a day on until the next tariff; ``feed_in`` is paid for a kWh received."""

    valid_from: date
    rates: list[Rate]
    fixed_per_day: Decimal = Decimal(0)
    fixed_per_month: Decimal = Decimal(0)
    feed_in: Decimal = Decimal(0)

    def rate_at(self, local: datetime) -> Rate:
        """Return the first rate that is for a time."""
        return next(rate for rate in self.rates if rate.holds(local))

    def fixed_on(self, day: date) -> Decimal:
        """Return the fixed charges of a day: of the month's, an equal part."""
        of_month = self.fixed_per_month / monthrange(day.year, day.month)[1]
        return (self.fixed_per_day + of_month).quantize(DERIVED_DIGITS, ROUND_HALF_UP, EXACT)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the tariff."""
        for rate in self.rates:
            yield from (f"rate {rate.name!r}: {problem}" for problem in rate.problems())
        last = self.rates[-1] if self.rates else None
        if not last or last.weekdays or (last.start, last.end) != ("00:00", "24:00"):
            yield "the last rate is for what no other is for: it has no weekdays, from and to"


class TariffFile(Strict, frozen=True, kw_only=True, rename={"tariffs": "tariff"}):
    """The tariffs of a home, the oldest first."""

    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z", extra={"allowed": "EUR and the like"})]
    tariffs: list[Tariff]

    @classmethod
    def read(cls, path: Path) -> TariffFile:
        """Return what a file says; raise TariffError."""
        try:
            text = path.read_text(encoding="utf-8")
            found = msgspec.convert(tomllib.loads(text, parse_float=Decimal), cls)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TariffError(f"{path} cannot be read: {error}") from error
        except msgspec.ValidationError as error:
            raise TariffError(f"{path}: {error}") from error
        if any(not number.is_finite() or abs(number) > LARGEST for number in _numbers(found)):
            raise TariffError(f"{path}: allowed are numbers of at most {LARGEST:,}")
        if problems := [*found.problems()]:
            raise TariffError(f"{path}: {'; '.join(problems)}")
        return found

    def on(self, day: date) -> Tariff | None:
        """Return the tariff of a day, None before the first."""
        index = bisect_right(self.tariffs, day, key=lambda tariff: tariff.valid_from)
        return self.tariffs[index - 1] if index else None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the tariffs."""
        if not self.tariffs:
            yield "there is no [[tariff]]"
        for tariff in self.tariffs:
            yield from (f"tariff of {tariff.valid_from}: {one}" for one in tariff.problems())
        if any(one.valid_from >= other.valid_from for one, other in pairwise(self.tariffs)):
            yield "valid_from has to grow from tariff to tariff"


def _numbers(table: Any) -> Iterator[Decimal]:
    """Yield every number in a table of the file."""
    if isinstance(table, Decimal):
        yield table
    elif isinstance(table, list):
        yield from (number for one in table for number in _numbers(one))
    elif isinstance(table, Strict):
        yield from _numbers([*msgspec.structs.astuple(table)])


class Charge(NamedTuple):
    """The cost of energy under one price; ``name`` is the rate's, or the tier's of the device."""

    name: str
    delivered: Decimal
    received: Decimal


class Prices(Protocol):
    """Prices over time."""

    @property
    def currency(self) -> str | None:
        """The ISO 4217 code, or number, of every price."""

    def since(self, start: datetime, end: datetime) -> datetime:
        """Return from when on energy has to be charged for the charges of a span to be right."""

    def changes(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield times between two at which the price may change."""

    def charge(
        self, at: datetime, used_kwh: Decimal, delivered_kwh: Decimal, received_kwh: Decimal
    ) -> Charge | None:
        """Return what energy costs at a time, None if no price is known.

        ``used_kwh`` were delivered before in the same month.
        """

    def fixed(self, start: datetime, end: datetime) -> Decimal:
        """Return the fixed charges of the days that begin in a span."""


@dataclass(frozen=True)
class TariffPrices:
    """The prices of a tariff file, in the time zone of the home."""

    file: TariffFile
    zone: ZoneInfo

    @property
    def currency(self) -> str | None:
        """The file's currency."""
        return self.file.currency

    def since(self, start: datetime, end: datetime) -> datetime:
        """Return the start of the month where tiers depend on what was used since, else ``start``."""
        day, last = (one.astimezone(self.zone).date() for one in (start, end))
        later = (tariff for tariff in self.file.tariffs if day < tariff.valid_from <= last)
        tariffs = [tariff for tariff in (self.file.on(day), *later) if tariff]
        tiered = any(rate.tiers for tariff in tariffs for rate in tariff.rates)
        return datetime.combine(day.replace(day=1), time(), self.zone) if tiered else start

    def changes(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield where months, tariffs and rates begin, and each hour of a day of 23 or 25."""
        before: Tariff | None = None
        for begin, after in self._days(start, end):
            day = begin.astimezone(self.zone).date()
            tariff = self.file.on(day)
            rates = tariff.rates if tariff else []
            if day.day == 1 or tariff is not before or any(rate.weekdays for rate in rates):
                yield begin
            before = tariff
            clocks = {clock for rate in rates for clock in (rate.start, rate.end)} - {"24:00"}
            if clocks == {"00:00"}:
                continue
            for clock in clocks:
                yield datetime.combine(day, time.fromisoformat(clock), self.zone)
            if after - begin != timedelta(days=1):
                hours = edges(begin, after, Step.HOUR, self.zone)
                yield from (hour.replace(tzinfo=UTC) for hour in hours)

    def charge(
        self, at: datetime, used_kwh: Decimal, delivered_kwh: Decimal, received_kwh: Decimal
    ) -> Charge | None:
        """Return what energy costs in the tiers that the month has come to."""
        local = at.astimezone(self.zone)
        tariff = self.file.on(local.date())
        if tariff is None:
            return None
        rate = tariff.rate_at(local)
        paid = rate.cost(used_kwh, delivered_kwh)
        return Charge(rate.name, paid, received_kwh * tariff.feed_in)

    def fixed(self, start: datetime, end: datetime) -> Decimal:
        """Return the fixed charges of the days that begin in a span."""
        days = (
            begin.astimezone(self.zone).date()
            for begin, _ in self._days(start, end)
            if begin >= start
        )
        charges = (tariff.fixed_on(day) for day in days if (tariff := self.file.on(day)))
        return sum(charges, Decimal(0))

    def _days(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the days that a span touches: where each begins and ends, UTC."""
        midnights = (one.replace(tzinfo=UTC) for one in edges(start, end, Step.DAY, self.zone))
        yield from pairwise(midnights)


class Reported(NamedTuple):
    """A price that a device reported: from when, and until when it is known to hold."""

    start: datetime
    end: datetime
    per_kwh: Decimal
    currency: int | None
    name: str


@dataclass(frozen=True)
class DevicePrices:
    """The prices that a home's device reported; it reports none for energy that is received."""

    reported: Sequence[Reported]

    @classmethod
    def of(
        cls, store: Store, node: str, meter: str, start: datetime, end: datetime
    ) -> DevicePrices:
        """Return the prices of a span; raise RetryableError if the store cannot be reached."""
        said = (
            _reported(reading)
            for reading in store.between(PRICE, meter or None, start - KNOWN_FOR, end)
            if reading.node == node
        )
        found: list[Reported] = []
        for one in sorted(filter(None, said), key=lambda reported: reported.start):
            last = found[-1] if found else None
            if last and last[2:] == one[2:] and last.end >= one.start:
                found[-1] = last._replace(end=max(one.end, last.end))
                continue
            if last:
                found[-1] = last._replace(end=min(last.end, one.start))
            found.append(one)
        return cls(found)

    @property
    def currency(self) -> str | None:
        """The currency of the last price: its ISO 4217 number."""
        last = self.reported[-1].currency if self.reported else None
        return None if last is None else str(last)

    def since(self, start: datetime, _end: datetime) -> datetime:
        """Return ``start``: no price depends on use."""
        return start

    def changes(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield where a price begins or ends."""
        times = (one for reported in self.reported for one in reported[:2])
        yield from (one for one in times if start < one < end)

    def charge(
        self, at: datetime, _used_kwh: Decimal, delivered_kwh: Decimal, _received_kwh: Decimal
    ) -> Charge | None:
        """Return what energy costs; None where no price was reported, or one in another currency."""
        index = bisect_right(self.reported, at, key=lambda one: one.start)
        found = self.reported[index - 1] if index else None
        if not found or at >= found.end or found.currency != self.reported[-1].currency:
            return None
        return Charge(found.name, delivered_kwh * found.per_kwh, Decimal(0))

    def fixed(self, _start: datetime, _end: datetime) -> Decimal:
        """Return 0: a device reports no fixed charges."""
        return Decimal(0)


def _reported(reading: Reading) -> Reported | None:
    """Return the price that a reading says, which may begin later than it was said."""
    said = reading.notification
    if not isinstance(said, PriceCluster) or said.price_per_kwh is None:
        return None
    start = max(time_of(reading), said.start_time or time_of(reading))
    end = start + KNOWN_FOR
    if said.duration:
        end = (said.start_time or start) + timedelta(minutes=said.duration)
    tier = "price" if said.tier is None else f"tier {said.tier}"
    name = said.rate_label or said.tier_label or tier
    return Reported(start, max(end, start), Decimal(str(said.price_per_kwh)), said.currency, name)
