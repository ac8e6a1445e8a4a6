"""Demand and energy by 5 minutes, hour and day, beside the readings.

A period is counted again from what it is made of and never added to, so a late reading, a second
recorder and a crash do no harm.  A sink notes which 5 minutes the readings of a batch are in; whoever
has counted them removes the note.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bson import Decimal128, Int64
from pymongo import ReplaceOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from ravenbus import demand, energy
from ravenbus.demand import Demand
from ravenbus.energy import Energy
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.history import DEMAND, SUMMATION, registers, samples
from ravenbus.messages import Reading
from ravenbus.periods import EARLIEST, LATEST, PERIODS_S, Period, start_of
from ravenbus.readback import time_of
from ravenmongo.database import DUPLICATE_KEY, Document, sorted_errors
from ravenmongo.documents import DUE, PROGRESS, ROLLUPS
from ravenmongo.history import MongoHistory, demand_of, energy_of, rollup_id
from ravenmongo.settings import MongoUrl

log = logging.getLogger(__name__)

EVERY_S: Final = 30.0
NOTES_AT_ONCE: Final = 200
SAID_EVERY_S: Final = 60.0
SHORTEST: Final = timedelta(seconds=PERIODS_S[0])
DAY: Final = timedelta(days=1)


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
        f"{one.kind}/{one.envelope.node}/{one.notification.meter or ''}/"
        f"{start_of(time_of(one)).isoformat()}"
        for one in readings
        if one.kind in ROLLUPS and EARLIEST <= time_of(one).replace(tzinfo=None) < LATEST
    }
    if due:
        db[DUE].insert_one({"due": sorted(due)})


def run(url: MongoUrl, stop: threading.Event) -> None:
    """Count what is due, and first what was there before, until ``stop`` is set; it is at the end.

    What stands in the way is logged.
    """
    rollups = RollUps(url, stop)
    postponed, pause_s = False, EVERY_S
    try:
        while not stop.wait(pause_s):
            pause_s = EVERY_S
            try:
                rollups.count_due()
                if rollups.count_before(EVERY_S):
                    pause_s = 0.0
            except (RetryableError, PoisonError) as error:
                if not postponed:
                    log.warning("roll-ups postponed", extra={"reason": str(error)})
                postponed = True
            else:
                if postponed:
                    log.info("roll-ups go on")
                postponed = False
    finally:
        stop.set()
        rollups.close()


class RollUps(MongoHistory):
    """The collections of roll-ups, which it keeps up to date.

    A document has a ``revision`` and is replaced as it was read alone: of two that count a period
    at once, the one that may not have seen all begins again.  Between two steps it ends when
    ``stop`` is set.
    """

    def __init__(self, url: MongoUrl, stop: threading.Event) -> None:
        super().__init__(url)
        self._stop = stop

    def count_due(self) -> None:
        """Count the periods that are noted; raise RetryableError."""
        more = True
        while more:
            with sorted_errors():
                notes = list(self._db[DUE].find().limit(NOTES_AT_ONCE))
            more = len(notes) == NOTES_AT_ONCE
            due: dict[Meter, set[datetime]] = defaultdict(set)
            for one in {one for note in notes for one in note["due"]}:
                *meter, start = one.split("/")
                due[Meter(*meter)].add(datetime.fromisoformat(start))
            for of, starts in due.items():
                if self._stop.is_set():
                    return
                self._count(of, starts)
            with sorted_errors():
                self._db[DUE].delete_many({"_id": {"$in": [one["_id"] for one in notes]}})

    def count_before(self, for_s: float) -> bool:
        """Count what was stored before readings were noted, for a time; return whether more is left.

        A day of a meter is one step, after which what is interrupted goes on.  It rests as long as
        it works, for the sake of who stores.  Raise RetryableError.
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
                for node in self._nodes(kind, meter, day):
                    self._count(
                        Meter(kind, node, meter),
                        {day + n * SHORTEST for n in range(DAY // SHORTEST)},
                    )
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

    def _meters(self, kind: str) -> Iterator[str]:
        """Yield the meters of a kind; one that is not named is an empty text."""
        yield ""
        after = ""
        while found := self._db[kind].find_one({"meter": {"$gt": after}}, sort=[("meter", 1)]):
            yield (after := found["meter"])

    def _nodes(self, kind: str, meter: str, day: datetime) -> set[str]:
        span = {"$gte": day, "$lt": day + DAY}
        of = {"meter": meter or None}
        clocks = ({"time": span}, {"time": None, "received": span})
        return {node for one in clocks for node in self._db[kind].distinct("node", of | one)}

    def _count(self, of: Meter, starts: Collection[datetime]) -> None:
        """Count the shortest periods that start then, and those that hold them."""
        while not self._counted(of, starts):
            pass

    def _counted(self, of: Meter, starts: Collection[datetime]) -> bool:
        """Count periods; return False if somebody else counted one of them meanwhile."""
        kind, node, meter = of
        with sorted_errors():
            if kind == SUMMATION:
                starts = {*starts, *self._after(of, starts)}
            wanted = [Period(PERIODS_S[0], node, meter, start) for start in starts]
            revisions = self._revisions(kind, wanted)
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

    def _of_readings(self, of: Meter, starts: Iterable[datetime]) -> dict[Period, Demand | Energy]:
        kind, node, meter = of
        found: dict[Period, Demand | Energy] = {}
        for start, end in _spans(starts):
            if kind == DEMAND:
                found |= demand.by_period(samples(self, node, meter, start, end))
            else:
                known = self.last_registers(node, meter, start)
                counted = energy.totals(known, registers(self, node, meter, start, end))
                found |= energy.shortest(node, meter, counted)
        return found

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
        value_of: Any = demand_of if kind == DEMAND else energy_of
        combined: Any = demand.combined if kind == DEMAND else energy.combined
        for document in self._db[ROLLUPS[kind]].find({"_id": {"$in": list(ids)}}):
            parts[ids[document["_id"]]].append(value_of(document))
        return {period: combined(of_period) for period, of_period in parts.items() if of_period}

    def _revisions(self, kind: str, wanted: Iterable[Period]) -> dict[str, int]:
        ids = sorted({rollup_id(one) for one in wanted})
        found = self._db[ROLLUPS[kind]].find({"_id": {"$in": ids}}, {"revision": 1})
        return {document["_id"]: document["revision"] for document in found}

    def _put(
        self,
        kind: str,
        found: dict[Period, Demand | Energy],
        revisions: dict[str, int],
    ) -> bool:
        """Replace the periods that have the revisions; return whether all had."""
        if not found:
            return True
        puts = []
        for period, value in sorted(found.items()):
            id_ = rollup_id(period)
            revision = revisions.get(id_, 0)
            document = _document(period, value, revision + 1)
            as_read = {"_id": id_, "revision": revision}
            puts.append(ReplaceOne(as_read, document, upsert=not revision))
        try:
            result = self._db[ROLLUPS[kind]].bulk_write(puts, ordered=False)
        except BulkWriteError as error:
            if any(one["code"] != DUPLICATE_KEY for one in error.details["writeErrors"]):
                raise
            return False
        return bool(result.matched_count + result.upserted_count == len(puts))


def _document(period: Period, value: Demand | Energy, revision: int) -> Document:
    fields = period._asdict() | value._asdict()
    return {
        "_id": rollup_id(period),
        **{name: _stored(one) for name, one in fields.items()},
        "revision": revision,
    }


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
