"""History of a meter's demand and energy, whichever store has it.

A store sums up its roll-ups between times (``History``); which times answer a question, and what
the sums come to, is computed here, for every store alike.
Whoever asks gives times with a zone and gets UTC; hours, days and months are those of the home's
time zone, so a day has 23 hours, or 25, where the clocks change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from functools import partial
from itertools import islice, pairwise, zip_longest
from operator import attrgetter
from statistics import median
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

from ravenbus import demand, energy, intervals
from ravenbus.demand import Demand, Sample
from ravenbus.energy import NAMES, Energy, Register
from ravenbus.intervals import Interval
from ravenbus.messages import Reading, Run, now
from ravenbus.notifications import (
    DERIVED_DIGITS,
    EXACT,
    CurrentSummationDelivered,
    InstantaneousDemand,
)
from ravenbus.periods import LATEST, PERIODS_S, start_of
from ravenbus.readback import Store

T = TypeVar("T", Demand, Energy)
V = TypeVar("V")
Span = tuple[datetime, datetime]
"""From a time to before another, UTC without a zone."""

DEMAND: Final = str(InstantaneousDemand.__struct_config__.tag)
SUMMATION: Final = str(CurrentSummationDelivered.__struct_config__.tag)
"""The kinds that have roll-ups."""
LONGEST_ANSWER: Final = timedelta(days=1)
"""An answer with an interval in a gap may end so long after it."""
LOOK_BACK: Final = tuple(timedelta(hours=one) for one in (1, 24, 32 * 24, 3660 * 24))
"""A kind that is frequent is found in a short time, and of a rare one a long time has few."""
LOOK_AHEAD: Final = timedelta(days=32)
"""So far after a span its gap's other end is looked for."""
RAW_S: Final = 1
"""What the readings of a second come to is the finest that there is."""
HOUR_S: Final = PERIODS_S[1]
CLOSER: Final = 100
"""A peak is sought in so many parts of a time, and in the highest of them again."""
SECOND: Final = timedelta(seconds=1)
AT_ONCE: Final = 1000
"""A store is asked for so many sums at once."""


class Meter(NamedTuple):
    """A meter as a node has it, and the start and end of the 5 minutes of its first and last reading.

    ``meter`` is empty where readings name none.
    """

    node: str
    meter: str
    first: datetime
    last: datetime

    def joined(self, other: Meter) -> Meter:
        """Return the same meter from the earlier first to the later last."""
        return self._replace(first=min(self.first, other.first), last=max(self.last, other.last))


class RunSpan(NamedTuple):
    """A node's run from its start to that of the next one, None for the last.

    ``first`` and ``last`` are the start and end of the 5 minutes of its first and last reading of
    what has roll-ups, None where there is no reading.  Those in which two runs meet are the later's.
    """

    run: str
    start: datetime
    end: datetime | None
    first: datetime | None
    last: datetime | None


class History(Store, Protocol):
    """A store with roll-ups; a meter that readings do not name is an empty text.

    Spans are in order and apart.  Every call raises RetryableError when the store cannot be reached.
    """

    def meters(self) -> list[Meter]:
        """Return what there are roll-ups of, by node and meter."""

    def announced(self) -> Iterable[Run]:
        """Return the runs that readers announced, with their start."""

    def heard(self, node: str, meter: str, span: Span) -> Span | None:
        """Return the starts of the first and last 5 minutes with a reading that start in a span."""

    def demand(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterable[tuple[int, Demand]]:
        """Return what the periods of a length that start in each span come to, if there are any.

        Each is with the number of its span, from 0.
        """

    def energy(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterable[tuple[int, Energy]]:
        """Return the same of energy; its times are UTC without a zone."""

    def lowest_kw(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterable[tuple[int, Decimal]]:
        """Return the lowest mean demand of a period of a length that starts in each span.

        It has ``DERIVED_DIGITS`` once it is rounded.
        """

    def last_registers(self, node: str, meter: str, before: datetime) -> list[Register]:
        """Return the last value of each register before a time, as ``energy.halves`` has them."""


class Step(Enum):
    """How a span is divided; ``RAW`` is by the second in which there is a reading."""

    RAW = "raw"
    FIVE_MINUTES = "5min"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Part(NamedTuple, Generic[T]):
    """A part of a span; ``value`` is None where there is no reading.

    ``intervals`` is how many of the meter's own are in it, where its registers were not heard.
    """

    start: datetime
    end: datetime
    value: T | None
    intervals: int = 0


class Total(NamedTuple):
    """What a span comes to; None where there is no reading."""

    demand: Demand | None
    energy: Energy | None


class Peak(NamedTuple):
    """The highest demand, and the start of the 5 minutes in which it came first."""

    kw: Decimal
    at: datetime


@dataclass(frozen=True)
class _Source(Generic[T]):
    """Where a meter's demand or energy comes from, and how it is summed up.

    ``rolled_up`` is as in ``History``; ``by_second`` has what the readings of each second in a span
    come to, in order.
    """

    rolled_up: Callable[[int, Sequence[Span]], Iterable[tuple[int, T]]]
    by_second: Callable[[datetime, datetime], list[tuple[datetime, T]]]
    combined: Callable[[list[T]], T]

    def sums(self, period_s: int, spans: Sequence[Span]) -> Iterator[tuple[int, T]]:
        """Yield what spans that whole periods fill come to, each with its number."""
        if period_s == RAW_S:
            starts = [start for start, _ in spans]
            for span in joined(spans):
                for at, one in self.by_second(*span):
                    yield bisect_right(starts, at) - 1, one
        else:
            yield from _some_at_once(partial(self.rolled_up, period_s), spans)


class _Piece(NamedTuple):
    """A span that whole periods of a length fill, and the number of the part that it is in."""

    part: int
    start: datetime
    end: datetime

    @property
    def span(self) -> Span:
        """From its start to its end."""
        return self.start, self.end


class _Stretch(NamedTuple):
    """A span that whole periods of a length fill, and the highest demand in it once it is known."""

    period_s: int
    start: datetime
    end: datetime
    kw: Decimal = Decimal(0)


class _Heard(NamedTuple):
    """A register as it was heard, and the number of its part: -1 before all, their count after."""

    part: int
    register: Register


KEYS: Final[dict[str, tuple[Step, Callable[[datetime], int]]]] = {
    "hour": (Step.HOUR, lambda local: local.hour),
    "weekday": (Step.DAY, lambda local: local.weekday()),
    "month": (Step.MONTH, lambda local: local.month),
}
"""What a history is grouped by: an hour of the day, a weekday (0 is Monday), a month (from 1)."""


@dataclass(frozen=True)
class MeterHistory:
    """Answers about one meter, in the time zone of its home.

    Spans are from ``start`` to before ``end``, to the second.
    """

    history: History
    node: str
    meter: str
    zone: ZoneInfo

    def demand(self, start: datetime, end: datetime, step: Step) -> list[Part[Demand]]:
        """Return the demand by steps, of which the first and the last are whole."""
        return self._series(self._demand, start, end, step)

    def energy(self, start: datetime, end: datetime, step: Step) -> list[Part[Energy]]:
        """Return the energy by steps, of which the first and the last are whole."""
        parts = self._series(self._energy, start, end, step)
        return parts if step is Step.RAW else self._filled(parts)

    def energy_between(self, times: Sequence[datetime]) -> list[Part[Energy]]:
        """Return the energy between each time and the next, exactly."""
        found = _divided(self._energy, [_utc(one) for one in times])
        return self._filled(found)

    def total(self, start: datetime, end: datetime) -> Total:
        """Return what exactly the span comes to."""
        span = [_utc(start), _utc(end)]
        (of_demand,) = _divided(self._demand, span)
        (of_energy,) = self.energy_between([start, end])
        return Total(of_demand.value, of_energy.value)

    def peak(self, start: datetime, end: datetime) -> Peak | None:
        """Return the highest demand of exactly the span, None if there is no reading."""
        cover = _pieces([_utc(start), _utc(end)])
        best = self._highest(
            _Stretch(period_s, *piece.span) for period_s, of in cover.items() for piece in of
        )
        while best and start_of(best.start) != start_of(best.end - SECOND):
            best = self._highest(_closer(best))
        return best and Peak(best.kw, start_of(best.start).replace(tzinfo=UTC))

    def base_load_kw(self, start: datetime, end: datetime) -> Decimal | None:
        """Return the demand that is always there, None if there is no reading.

        It is the median over the days of the lowest mean of an hour that begins in each, so one day
        away or one hour without the refrigerator do not matter.
        """
        first = start_of(_utc(start), HOUR_S)
        days = [first, *edges(start, end, Step.DAY, self.zone)[1:-1], _utc(end)]
        of_store = partial(self.history.lowest_kw, self.node, self.meter, HOUR_S)
        lowest = [
            kw.quantize(DERIVED_DIGITS, ROUND_HALF_UP, EXACT)
            for _, kw in _some_at_once(of_store, list(pairwise(days)))
        ]
        if not lowest:
            return None
        return Decimal(median(lowest)).quantize(DERIVED_DIGITS, ROUND_HALF_UP, EXACT)

    def by(self, key: str, start: datetime, end: datetime) -> dict[int, Total]:
        """Return what the span, in whole steps, comes to by one of ``KEYS``."""
        step, key_of = KEYS[key]
        demands: dict[int, list[Demand]] = defaultdict(list)
        energies: dict[int, list[Energy]] = defaultdict(list)
        for span in spans(start, end, Step.MONTH, self.zone):
            for one in self.demand(*span, step):
                if one.value:
                    demands[key_of(one.start.astimezone(self.zone))].append(one.value)
            for other in self.energy(*span, step):
                if other.value:
                    energies[key_of(other.start.astimezone(self.zone))].append(other.value)
            for of_demand in demands.values():
                of_demand[:] = [demand.combined(of_demand)]
            for of_energy in energies.values():
                of_energy[:] = [energy.combined(of_energy)]
        return {
            number: Total(
                demands[number][0] if number in demands else None,
                energies[number][0] if number in energies else None,
            )
            for number in sorted({*demands, *energies})
        }

    def latest(self, kind: str, before: datetime) -> Reading | None:
        """Return the last reading of a kind before a time, None if there is none in ten years."""
        for length in LOOK_BACK:
            found = self.history.between(kind, self.meter or None, before - length, before)
            mine = (one for one in found if one.envelope.node == self.node)
            if last := deque(mine, maxlen=1):
                return last[0]
        return None

    def _series(
        self, source: _Source[T], start: datetime, end: datetime, step: Step
    ) -> list[Part[T]]:
        if step is not Step.RAW:
            return _divided(source, edges(start, end, step, self.zone))
        found = source.by_second(_utc(start), _utc(end))
        seconds = ((at.replace(tzinfo=UTC), source.combined([one])) for at, one in found)
        return [Part(at, at, one) for at, one in seconds]

    def _filled(self, parts: list[Part[Energy]]) -> list[Part[Energy]]:
        """Return the parts with the meter's own intervals where its registers were not heard."""
        filled = list(parts)
        over = bool(parts) and parts[-1].end <= now()
        if not over and all(part.value is None for part in parts):
            return filled
        edges_ = [part.start for part in parts] + [parts[-1].end]
        known = self.history.last_registers(self.node, self.meter, _utc(edges_[0]))
        for side, name in enumerate(NAMES):
            for before, after in pairwise(self._heard(known, parts, side, over=over)):
                gap = after.register.time - before.register.time
                if after.part == before.part or gap < intervals.SHORTEST_GAP:
                    continue
                moved = Decimal(0)
                for one, kwh in self._between(before.register, after.register, side):
                    index = bisect_right(edges_, one.start.replace(tzinfo=UTC)) - 1
                    inside = 0 <= index < len(parts) and _utc(parts[index].end) >= one.end
                    if index < 0 or (inside and index != after.part):
                        moved += kwh
                    if inside and index != after.part:
                        filled[index] = _more(filled[index], name, kwh, 1)
                if moved and after.part < len(parts):
                    filled[after.part] = _more(filled[after.part], name, -moved, 0)
        return filled

    def _heard(
        self, known: list[Register], parts: list[Part[Energy]], side: int, *, over: bool
    ) -> Iterator[_Heard]:
        """Yield the first and the last reading of a register in each part, and those around all.

        There is one after them only if they are ``over``.
        """
        yield from (_Heard(-1, one) for one in known if one.kwh[side] is not None)
        last, end = _utc(parts[0].start), _utc(parts[-1].end)
        for index, part in enumerate(parts):
            for one in _ends(part.value, side):
                last = one.time
                yield _Heard(index, one)
        if over and end - last >= intervals.SHORTEST_GAP:
            later = (
                value
                for period_s, piece in _after(end)
                for _, value in self._energy.sums(period_s, [piece.span])
            )
            found = (one for value in later for one in _ends(_aware(value), side)[:1])
            yield from (_Heard(len(parts), one) for one in islice(found, 1))

    def _between(
        self, before: Register, after: Register, side: int
    ) -> list[tuple[Interval, Decimal]]:
        """Return the intervals between two readings, none where the scale is not known."""
        span = (before.time.replace(tzinfo=UTC), after.time.replace(tzinfo=UTC) + LONGEST_ANSWER)
        readings = self.history.between(intervals.INTERVALS, self.meter or None, *span)
        mine = [one for one in readings if one.envelope.node == self.node]
        if not (found := intervals.of_side(mine, side)):
            return []
        of = self.history, self.node, self.meter
        units = [
            one.unit
            for time in (before.time, after.time)
            for one in registers(*of, time, time + SECOND)
            if one.kwh[side] is not None
        ]
        if not units:
            return []
        return intervals.between(before, after._replace(unit=units[0]), side, found)

    def _highest(self, stretches: Iterable[_Stretch]) -> _Stretch | None:
        """Return the first of those with the highest demand, None if there is no reading."""
        by_length: dict[int, list[_Stretch]] = defaultdict(list)
        for one in stretches:
            by_length[one.period_s].append(one)
        found = [
            of[number]._replace(kw=value.max_kw)
            for period_s, of in by_length.items()
            for number, value in self._demand.sums(period_s, [(one.start, one.end) for one in of])
        ]
        return min(found, key=lambda one: (-one.kw, one.start), default=None)

    @property
    def _demand(self) -> _Source[Demand]:
        rolled_up = partial(self.history.demand, self.node, self.meter)
        return _Source(rolled_up, self._demand_by_second, demand.combined)

    @property
    def _energy(self) -> _Source[Energy]:
        rolled_up = partial(self.history.energy, self.node, self.meter)
        return _Source(rolled_up, self._energy_by_second, _combined)

    def _demand_by_second(self, start: datetime, end: datetime) -> list[tuple[datetime, Demand]]:
        found = samples(self.history, self.node, self.meter, start, end)
        return [(period.start, one) for period, one in sorted(demand.by_period(found, RAW_S))]

    def _energy_by_second(self, start: datetime, end: datetime) -> list[tuple[datetime, Energy]]:
        new = registers(self.history, self.node, self.meter, start, end)
        known = self.history.last_registers(self.node, self.meter, start) if new else []
        return sorted(energy.totals(known, new, RAW_S).items())


def _ends(value: Energy | None, side: int) -> list[Register]:
    """Return a register as it was at the first and the last reading of a period."""
    if value is None:
        return []
    columns: tuple[Any, ...] = tuple(value)
    low, high, _, first, last = columns[1 + 5 * side : 6 + 5 * side]
    times = [(first, low), (last, high)]
    return [
        Register(_utc(time), (None, kwh) if side else (kwh, None), Decimal(0))
        for time, kwh in times
        if time
    ]


def _after(end: datetime) -> list[tuple[int, _Piece]]:
    """Return the pieces of the time after a span, in order, each with the length of its periods."""
    cover = _pieces([end, end + LOOK_AHEAD])
    every = [(period_s, piece) for period_s, pieces in cover.items() for piece in pieces]
    return sorted(every, key=lambda one: one[1].start)


def _more(part: Part[Energy], name: str, kwh: Decimal, number: int) -> Part[Energy]:
    """Return a part with more energy of a register, from so many intervals."""
    value = part.value or Energy()
    grown = (getattr(value, f"{name}_kwh") or Decimal(0)) + kwh
    by: dict[str, Any] = {f"{name}_kwh": grown}
    return part._replace(value=value._replace(**by), intervals=part.intervals + number)


def runs_of(history: History, node: str) -> list[RunSpan]:
    """Return the runs of a node, in the order of their start."""
    announced = [run for run in history.announced() if run.node == node]
    ordered = sorted(announced, key=lambda run: (run.started, run.hash))
    meters = [one.meter for one in history.meters() if one.node == node]
    found = []
    for one, other in zip_longest(ordered, ordered[1:]):
        end = other.started if other else None
        span = start_of(_utc(one.started)), start_of(_utc(end)) if end else LATEST
        heard = [times for meter in meters if (times := history.heard(node, meter, span))]
        first = min((times[0] for times in heard), default=None)
        last = max((times[1] for times in heard), default=None)
        found.append(
            RunSpan(
                *(one.run, one.started, end),
                first and first.replace(tzinfo=UTC),
                last and last.replace(tzinfo=UTC) + timedelta(seconds=PERIODS_S[0]),
            )
        )
    return found


def step_for(start: datetime, end: datetime) -> Step:
    """Return the step by which a span makes some hundred points."""
    span = end - start
    limits = (
        (timedelta(hours=1), Step.RAW),
        (timedelta(days=2), Step.FIVE_MINUTES),
        (timedelta(days=32), Step.HOUR),
        (timedelta(days=800), Step.DAY),
    )
    return next((step for longest, step in limits if span <= longest), Step.MONTH)


def spans(
    start: datetime, end: datetime, step: Step, zone: ZoneInfo
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the parts of a span by steps, for whoever has only one of them in memory at a time."""
    inner = (one.replace(tzinfo=UTC) for one in edges(start, end, step, zone)[1:-1])
    return pairwise([start, *inner, end])


def edges(start: datetime, end: datetime, step: Step, zone: ZoneInfo) -> list[datetime]:
    """Return where the steps of a span begin, and where the last one ends, UTC without a zone.

    The first begins at or before ``start`` and the last ends at or after ``end``.
    """
    first, last = _utc(start), _utc(end)
    found: list[datetime] = []
    if step is Step.FIVE_MINUTES:
        found.append(start_of(first))
        while found[-1] < last:
            found.append(found[-1] + timedelta(seconds=PERIODS_S[0]))
        return found
    # A step more at either side: an hour that is twice on the clock is one hour apart from itself.
    local = _floor(start.astimezone(zone).replace(tzinfo=None) - timedelta(hours=1), step)
    while not found or found[-1] < last:
        found += [one for one in _instants(local, step, zone) if not found or one > found[-1]]
        local = _next(local, step)
    return found[bisect_right(found, first) - 1 :]


def samples(
    store: Store, node: str, meter: str, start: datetime, end: datetime
) -> Iterator[Sample]:
    """Yield the demands of a meter with a value, of a span in UTC without a zone."""
    span = (one.replace(tzinfo=UTC) for one in (start, end))
    readings = store.between(DEMAND, meter or None, *span)
    yield from demand.samples(one for one in readings if one.envelope.node == node)


def registers(
    store: Store, node: str, meter: str, start: datetime, end: datetime
) -> list[Register]:
    """Return the registers of a meter, of a span in UTC without a zone."""
    span = (one.replace(tzinfo=UTC) for one in (start, end))
    readings = store.between(SUMMATION, meter or None, *span)
    return [energy.of_reading(one) for one in readings if one.envelope.node == node]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans of which those that meet are one."""
    found: list[Span] = []
    for start, end in spans:
        meets = found and found[-1][1] == start
        found.append((found.pop()[0], end) if meets else (start, end))
    return found


def _some_at_once(
    sums: Callable[[Sequence[Span]], Iterable[tuple[int, V]]], spans: Sequence[Span]
) -> Iterator[tuple[int, V]]:
    """Yield what a store says of spans, asked for some at a time."""
    for first in range(0, len(spans), AT_ONCE):
        for number, value in sums(spans[first : first + AT_ONCE]):
            yield first + number, value


def _divided(source: _Source[T], found: Sequence[datetime]) -> list[Part[T]]:
    """Return the parts between edges, from the longest periods that fill them."""
    values: list[list[T]] = [[] for _ in found[1:]]
    for period_s, pieces in _pieces(found).items():
        for number, value in source.sums(period_s, [piece.span for piece in pieces]):
            values[pieces[number].part].append(value)
    return [
        Part(
            start.replace(tzinfo=UTC), end.replace(tzinfo=UTC), source.combined(of) if of else None
        )
        for (start, end), of in zip(pairwise(found), values, strict=True)
    ]


def _pieces(found: Sequence[datetime]) -> dict[int, list[_Piece]]:
    """Return what fills the parts between edges, in order, by the length of its periods."""
    seconds = [int(one.replace(tzinfo=UTC).timestamp()) for one in found]
    pieces: dict[int, list[_Piece]] = defaultdict(list)
    for part, ends in enumerate(pairwise(seconds)):
        for period_s, *span in _cover(*ends):
            times = (datetime.fromtimestamp(one, UTC).replace(tzinfo=None) for one in span)
            pieces[period_s].append(_Piece(part, *times))
    return {period_s: sorted(of, key=attrgetter("start")) for period_s, of in pieces.items()}


def _cover(start: int, end: int, level: int = len(PERIODS_S)) -> Iterator[tuple[int, int, int]]:
    """Yield the pieces of a span: of the longest periods, what is left at its ends of shorter."""
    period_s = PERIODS_S[level - 1] if level else RAW_S
    first, last = -(-start // period_s) * period_s, end // period_s * period_s
    if first < last:
        yield period_s, first, last
        if start < first:
            yield from _cover(start, first, level - 1)
        if last < end:
            yield from _cover(last, end, level - 1)
    elif start < end:
        yield from _cover(start, end, level - 1)


def _closer(wide: _Stretch) -> Iterator[_Stretch]:
    """Yield what a stretch of several periods is made of, of one period in shorter ones."""
    period_s, start, end, _ = wide
    if end - start == timedelta(seconds=period_s):
        period_s = PERIODS_S[PERIODS_S.index(period_s) - 1]
    number = int((end - start).total_seconds()) // period_s
    length = timedelta(seconds=-(-number // CLOSER) * period_s)
    while start < end:
        yield _Stretch(period_s, start, min(start + length, end))
        start += length


def _instants(local: datetime, step: Step, zone: ZoneInfo) -> list[datetime]:
    """Return when a clock shows a time, once or twice; a time that it leaves out is when it jumps.

    A day begins when the clock shows midnight first.
    """
    offsets = (zone.utcoffset(local.replace(fold=fold)) for fold in (0, 1))
    first, second = (local - (offset or timedelta()) for offset in offsets)
    return [first, second] if step is Step.HOUR and first < second else [first]


def _floor(local: datetime, step: Step) -> datetime:
    if step is Step.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    return local.replace(
        day=1 if step is Step.MONTH else local.day, hour=0, minute=0, second=0, microsecond=0
    )


def _next(local: datetime, step: Step) -> datetime:
    if step is Step.MONTH:
        return (local + timedelta(days=31)).replace(day=1)
    return local + timedelta(hours=1 if step is Step.HOUR else 24)


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0, tzinfo=None)


def _combined(parts: Sequence[Energy]) -> Energy:
    return _aware(energy.combined(parts))


def _aware(one: Energy) -> Energy:
    """Return the energy with times that say that they are UTC."""
    times: dict[str, Any] = {
        name: time.replace(tzinfo=UTC)
        for name, time in one._asdict().items()
        if isinstance(time, datetime)
    }
    return one._replace(**times)
