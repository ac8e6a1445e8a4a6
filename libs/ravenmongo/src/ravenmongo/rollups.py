"""Demand and energy by 5 minutes, hour and day, beside the readings.

A period is counted again from what it is made of and never added to, so a late reading, a second
recorder and a crash do no harm.  A sink notes which 5 minutes the readings of a batch are in; whoever
has counted them removes the note.

What the readings of 5 minutes came to that are archived is in the field ``left`` of the roll-up, and
counting again adds to that what is in the collection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Any, Final, NamedTuple

from bson import Decimal128, Int64
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from ravenbus import demand, energy
from ravenbus.demand import Demand
from ravenbus.energy import NAMES, Energy, Register
from ravenbus.history import DEMAND, SUMMATION, registers, samples
from ravenbus.messages import Reading
from ravenbus.months import Month
from ravenbus.periods import EARLIEST, LATEST, PERIODS_S, Period, start_of
from ravenbus.readback import time_of
from ravenmongo.database import Document, duplicates, sorted_errors
from ravenmongo.documents import ARCHIVE, DUE, PROGRESS, RESTORED, ROLLUPS
from ravenmongo.history import MongoHistory, demand_of, energy_of, lasts, plain, rollup_id
from ravenmongo.settings import MongoUrl

log = logging.getLogger(__name__)

NOTES_AT_ONCE: Final = 200
SAID_EVERY_S: Final = 60.0
SHORTEST: Final = timedelta(seconds=PERIODS_S[0])
DAY: Final = timedelta(days=1)
CLOSE: Final = timedelta(hours=1)


class Meter(NamedTuple):
    """Readings of a kind that one meter sent by one node; no meter is an empty text."""

    kind: str
    node: str
    meter: str


def note(db: Database[Document], readings: Iterable[Reading]) -> None:
    """Write down that the periods of readings, which are stored, are to be counted again.

    Who stores acknowledges after that, so what a crash keeps from being noted is stored again.
    """
    due = {
        _noted(one.kind, one.envelope.node, one.notification.meter, start_of(time_of(one)))
        for one in readings
        if one.kind in ROLLUPS and is_counted(one)
    }
    if due:
        db[DUE].insert_one({"due": sorted(due)})


def is_counted(reading: Reading) -> bool:
    """Say whether a reading's time is one that roll-ups have."""
    return EARLIEST <= time_of(reading).replace(tzinfo=None) < LATEST


def _noted(kind: str, node: str, meter: str | None, start: datetime) -> str:
    return f"{kind}/{node}/{meter or ''}/{start.isoformat()}"


def steps(starts: Iterable[datetime]) -> Iterator[set[datetime]]:
    """Yield the periods of each day, with those between them where they are close.

    A span is asked for at once, and one that is counted though it did not change does no harm.
    """
    for _, of_day in groupby(sorted(starts), key=datetime.date):
        found: list[datetime] = []
        for start in of_day:
            while found and SHORTEST < start - found[-1] <= CLOSE:
                found.append(found[-1] + SHORTEST)
            found.append(start)
        yield set(found)


class RollUps(MongoHistory):
    """The collections of roll-ups, which it keeps up to date.

    A document has a ``revision`` and is replaced as it was read alone: of two that count a period
    at once, the one that may not have seen all begins again.  Between two steps it ends when
    ``stop`` is set.  While a month leaves, what is older than its end is not counted.
    """

    _only: Document = {RESTORED: None}  # noqa: RUF012 - never changed

    def __init__(self, url: MongoUrl, stop: threading.Event) -> None:
        super().__init__(url)
        self._stop = stop

    def count_due(self) -> None:
        """Count the periods that are noted; raise RetryableError.

        It rests as long as it works, for the sake of who stores: a fleet's homes are counted one by one.
        """
        seen: list[Any] = []
        more = True
        while more:
            with sorted_errors():
                query = {"_id": {"$nin": seen}}
                notes = list(self._db[DUE].find(query).limit(NOTES_AT_ONCE))
            more = len(notes) == NOTES_AT_ONCE
            due: dict[Meter, set[datetime]] = defaultdict(set)
            for one in {one for note in notes for one in note["due"]}:
                *meter, start = one.split("/")
                due[Meter(*meter)].add(datetime.fromisoformat(start))
            counted = True
            for of, starts in ((of, one) for of, all_ in due.items() for one in steps(all_)):
                began = time.monotonic()
                counted &= self._count(of, starts)
                if self._stop.wait(time.monotonic() - began):
                    return
            if counted:
                with sorted_errors():
                    self._db[DUE].delete_many({"_id": {"$in": [one["_id"] for one in notes]}})
            else:
                seen += [one["_id"] for one in notes]

    def count_before(self, for_s: float) -> bool:
        """Count what was stored before readings were noted, for a time; return whether more can be counted.

        A day of a meter is one step, after which what is interrupted goes on.  It rests as above.
        Raise RetryableError.
        """
        with sorted_errors():
            if self._db[PROGRESS].find_one({"_id": "complete"}):
                return False
            end = said_at = time.monotonic()
            end += for_s
            for kind, meter, day in self._days():
                began = time.monotonic()
                if self._stop.is_set() or began > end:
                    return True
                if began >= said_at:
                    log.info("counting roll-ups", extra={"kind": kind, "meter": meter, "day": day})
                    said_at = began + SAID_EVERY_S
                starts = {day + n * SHORTEST for n in range(DAY // SHORTEST)}
                for node in self._nodes(kind, meter, day):
                    if not self._count(Meter(kind, node, meter), starts):
                        return False
                self._put_progress(kind, meter, day + DAY)
                self._stop.wait(time.monotonic() - began)
            self._db[PROGRESS].replace_one({"_id": "complete"}, {}, upsert=True)
        log.info("roll-ups are complete")
        return False

    def _days(self) -> Iterator[tuple[str, str, datetime]]:
        """Yield the days of each meter that have readings and are not counted yet."""
        for kind in ROLLUPS:
            for meter in self._meters(kind):
                progress = self._db[PROGRESS].find_one({"_id": f"{kind}/{meter}"})
                start = progress["counted_to"] if progress else EARLIEST
                while found := self._nearest(kind, {"meter": meter or None}, {"$gte": start}, 1):
                    day = start_of(found, PERIODS_S[-1])
                    yield kind, meter, day
                    start = day + DAY

    def _put_progress(self, kind: str, meter: str, counted_to: datetime) -> None:
        of = {"_id": f"{kind}/{meter}"}
        self._db[PROGRESS].replace_one(of, {"counted_to": counted_to}, upsert=True)

    def _nodes(self, kind: str, meter: str, day: datetime) -> set[str]:
        span = {"$gte": day, "$lt": day + DAY}
        of = {"meter": meter or None}
        clocks = ({"time": span}, {"time": None, "received": span})
        return {node for one in clocks for node in self._db[kind].distinct("node", of | one)}

    def leave(self, of: Meter, tag: str, readings: Sequence[Reading]) -> None:
        """Keep what readings of a day come to, before they leave their collection.

        They are all that leave of the day.  Doing it again with the same ``tag`` changes nothing.
        Raise RetryableError.
        """
        while not self._left_with(of, tag, readings):
            pass

    def _left_with(self, of: Meter, tag: str, readings: Sequence[Reading]) -> bool:
        """Keep what readings come to; return False if somebody counted one of the periods."""
        kind, node, meter = of
        with sorted_errors():
            leaving = self._of_leaving(of, readings)
            ids = [rollup_id(period) for period in leaving]
            found = {one["_id"]: one for one in self._db[ROLLUPS[kind]].find({"_id": {"$in": ids}})}
            puts, changed = [], set()
            # What a late reading takes from a later period goes first: once the reading itself is
            # kept, that would not be seen again.
            for period, value in sorted(leaving.items(), reverse=True):
                known = found.get(rollup_id(period))
                if known and known.get("left_in") == tag:
                    continue
                left = _combined(kind, [value, *_left_of(kind, known)])
                if not known or _value_of(kind, known) != left:
                    changed.add(period.start)
                puts.append(_put(period, known, _left_fields(left, tag), left))
            if changed:
                self._db[DUE].insert_one({"due": [_noted(kind, node, meter, s) for s in changed]})
            return self._all_put(kind, puts, ordered=True)

    def _of_leaving(self, of: Meter, readings: Sequence[Reading]) -> dict[Period, Any]:
        kind, node, meter = of
        if kind == DEMAND:
            return dict(demand.by_period(demand.samples(readings)))
        new = [energy.of_reading(one) for one in readings]
        times = [one.time for one in new]
        known = self._kept_around(node, meter, start_of(min(times)), start_of(max(times)))
        return dict(energy.shortest(node, meter, energy.totals(_in_units(known, new), new)))

    def _kept_around(
        self, node: str, meter: str, first: datetime, last: datetime
    ) -> list[Register]:
        """Return the registers that are kept of archived readings, of the periods and around them."""
        within = {rollup_id(Period(PERIODS_S[0], node, meter, one)) for one in (first, last)}
        query = {"_id": {"$gte": min(within), "$lte": max(within)}, "left": {"$ne": None}}
        found = list(self._db[ROLLUPS[SUMMATION]].find(query))
        for name in NAMES:
            of = {f"left.{name}_last": {"$ne": None}}
            for bound in ({"$lt": first}, {"$gt": last}):
                near = self._period_near(node, meter, of, bound)
                found += [near] if near else []
        kept = [one for document in found for one in _left_of(SUMMATION, document)]
        ends = [energy.halves(*end(one)) for one in kept for end in (_firsts, lasts)]
        return [one for both in ends for one in both if one]

    def _count(self, of: Meter, starts: Collection[datetime]) -> bool:
        """Count the shortest periods that start then, and those that hold them.

        Return False if that has to wait for a month that is leaving.
        """
        while not self._counted(of, starts):
            if self._leaving(starts):
                return False
        return True

    def _leaving(self, starts: Iterable[datetime]) -> bool:
        with sorted_errors():
            months = [
                Month.parse(one["_id"]) for one in self._db[ARCHIVE].find({"state": "leaving"})
            ]
        return any(start < month.span[1] for month in months for start in starts)

    def _counted(self, of: Meter, starts: Collection[datetime]) -> bool:
        """Count periods; return False if somebody else counted one, or one is about to leave."""
        kind, node, meter = of
        with sorted_errors():
            if kind == SUMMATION:
                starts = {*starts, *self._after(of, starts)}
            wanted = [Period(PERIODS_S[0], node, meter, start) for start in starts]
            revisions = self._revisions(kind, wanted)
            # After the revisions: a month that begins to leave now changes them.
            if self._leaving(starts):
                return False
            found = self._of_readings(of, starts)
            if not self._put(kind, found, revisions):
                return False
            for shorter_s, period_s in pairwise(PERIODS_S):
                wanted = [Period(period_s, node, meter, start_of(one, period_s)) for one in starts]
                revisions = self._revisions(kind, wanted)
                if not self._put(kind, self._of_shorter(kind, wanted, shorter_s), revisions):
                    return False
        return True

    def _after(self, of: Meter, starts: Iterable[datetime]) -> Iterator[datetime]:
        """Yield the periods of the first registers after each span: they grew from those in it."""
        for _, end in _spans(starts):
            for side in (0, 1):
                if found := self._nearest_register(of.node, of.meter, side, {"$gte": end}, 1):
                    yield start_of(found)
                kept = {f"left.{NAMES[side]}_first": {"$ne": None}}
                if near := self._period_near(of.node, of.meter, kept, {"$gte": end}):
                    yield plain(near["start"])

    def _of_readings(self, of: Meter, starts: Iterable[datetime]) -> dict[Period, Demand | Energy]:
        kind, node, meter = of
        found: dict[Period, Demand | Energy] = {}
        left = self._left(of, starts)
        for start, end in _spans(starts if kind == DEMAND else set(starts) - left.keys()):
            if kind == DEMAND:
                found |= demand.by_period(samples(self, node, meter, start, end))
            else:
                known = self.last_registers(node, meter, start)
                counted = energy.totals(known, registers(self, node, meter, start, end))
                found |= energy.shortest(node, meter, counted)
        for start, value in left.items():
            period = Period(PERIODS_S[0], node, meter, start)
            late = found.get(period) if kind == DEMAND else self._late(node, meter, start)
            found[period] = _combined(kind, [value, late] if late else [value])
        return found

    def _left(self, of: Meter, starts: Iterable[datetime]) -> dict[datetime, Any]:
        """Return what periods came to by readings that are archived, for those that have such."""
        kind, node, meter = of
        ids = [rollup_id(Period(PERIODS_S[0], node, meter, start)) for start in starts]
        query = {"_id": {"$in": ids}, "left": {"$ne": None}}
        return {
            plain(one["start"]): value
            for one in self._db[ROLLUPS[kind]].find(query)
            for value in _left_of(kind, one)
        }

    def _late(self, node: str, meter: str, start: datetime) -> Energy | None:
        """Return what readings add to 5 minutes of which others are archived."""
        known = self._kept_around(node, meter, start, start)
        before = (self._last_stored(node, meter, side, start) for side in (0, 1))
        new = [*filter(None, before), *registers(self, node, meter, start, start + SHORTEST)]
        return energy.totals(_in_units(known, new), new).get(start)

    def _of_shorter(
        self, kind: str, wanted: Iterable[Period], shorter_s: int
    ) -> dict[Period, Demand | Energy]:
        parts: dict[Period, list[Any]] = {one: [] for one in wanted}
        shorter = timedelta(seconds=shorter_s)
        ids = {
            rollup_id(one._replace(period_s=shorter_s, start=one.start + n * shorter)): one
            for one in parts
            for n in range(one.period_s // shorter_s)
        }
        for document in self._db[ROLLUPS[kind]].find({"_id": {"$in": list(ids)}}):
            parts[ids[document["_id"]]].append(_value_of(kind, document))
        return {
            period: _combined(kind, of_period) for period, of_period in parts.items() if of_period
        }

    def _revisions(self, kind: str, wanted: Iterable[Period]) -> dict[str, Document]:
        ids = sorted({rollup_id(one) for one in wanted})
        found = self._db[ROLLUPS[kind]].find({"_id": {"$in": ids}}, {"revision": 1})
        return {document["_id"]: document for document in found}

    def _put(
        self,
        kind: str,
        found: dict[Period, Demand | Energy],
        revisions: dict[str, Document],
    ) -> bool:
        """Replace the periods that have the revisions; return whether all had."""
        puts = [
            _put(period, revisions.get(rollup_id(period)), {}, value)
            for period, value in sorted(found.items())
        ]
        return self._all_put(kind, puts)

    def _all_put(self, kind: str, puts: list[UpdateOne], *, ordered: bool = False) -> bool:
        if not puts:
            return True
        try:
            result = self._db[ROLLUPS[kind]].bulk_write(puts, ordered=ordered)
        except BulkWriteError as error:
            duplicates(error)
            return False
        return bool(result.matched_count + result.upserted_count == len(puts))


def _put(
    period: Period, known: Document | None, left: Document, value: Demand | Energy
) -> UpdateOne:
    """Return what writes a period if it is as it was ``known``.

    With what is ``left`` of archived readings, what a known one came to stays as it is.
    """
    revision = known["revision"] if known else 0
    fields = period._asdict() | value._asdict()
    changed = (
        left if left and known else left | {name: _stored(one) for name, one in fields.items()}
    )
    return UpdateOne(
        {"_id": rollup_id(period), "revision": revision},
        {"$set": changed | {"revision": revision + 1}},
        upsert=not known,
    )


def _left_fields(left: Demand | Energy, tag: str) -> Document:
    return {"left": {k: _stored(v) for k, v in left._asdict().items()}, "left_in": tag}


def _left_of(kind: str, document: Document | None) -> list[Any]:
    """Return what archived readings came to in a roll-up, if there were any."""
    left = document and document.get("left")
    return [_value_of(kind, left)] if left else []


def _value_of(kind: str, document: Document) -> Demand | Energy:
    return demand_of(document) if kind == DEMAND else energy_of(document)


def _combined(kind: str, parts: Sequence[Any]) -> Any:
    return demand.combined(parts) if kind == DEMAND else energy.combined(parts)


def _in_units(known: Iterable[Register], new: Sequence[Register]) -> list[Register]:
    """Return registers of which nothing but the value is kept, with the unit of new ones."""
    return [one._replace(unit=new[0].unit) for one in known] if new else []


def _firsts(one: Energy) -> tuple[Any, ...]:
    return (
        *(one.delivered_first, one.delivered_kwh_min),
        *(one.received_first, one.received_kwh_min),
    )


def _stored(value: Any) -> Any:
    """Return a value as a document keeps it: numbers of kW and kWh to the last digit."""
    match value:
        case int():
            return Int64(value)
        case str() | datetime() | None:
            return value
    return Decimal128(value)


def _spans(starts: Iterable[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the spans of the shortest periods that start then, as few as they make."""
    begin = end = None
    for start in sorted(starts):
        if start != end:
            if begin and end:
                yield begin, end
            begin = start
        end = start + SHORTEST
    if begin and end:
        yield begin, end
