"""Roll-ups and registers in MongoDB, as history asks for them.

A roll-up's ``_id`` is ``<seconds>/<node>/<meter>/<start>``, so its index alone answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from bson import Decimal128

from ravenbus.demand import Demand
from ravenbus.energy import NAMES, Energy, Register, halves, last_of
from ravenbus.errors import ContractError
from ravenbus.history import DEMAND, SECOND, SUMMATION, Meter, Span, joined, registers
from ravenbus.messages import Run
from ravenbus.periods import EARLIEST, LATEST, PERIODS_S, Period, start_of
from ravenmongo import documents
from ravenmongo.database import Document, sorted_errors
from ravenmongo.documents import ROLLUPS, RUNS
from ravenmongo.readback import MongoStore

_END: Final = chr(ord("/") + 1)
_SHORTEST: Final = timedelta(seconds=PERIODS_S[0])


_DEMAND: Final[Document] = {
    "readings": {"$sum": "$readings"},
    "sum_kw": {"$sum": "$sum_kw"},
    "min_kw": {"$min": "$min_kw"},
    "max_kw": {"$max": "$max_kw"},
}


def _of_side(name: str) -> Document:
    """Return how the fields of a register are summed up, its growth and if there is one.

    Of documents of a time and a value, the one with the earliest time is the least.
    """
    first, last = (
        {"$cond": [f"${name}_{time}", {"at": f"${name}_{time}", "kwh": f"${name}_{kwh}"}, None]}
        for time, kwh in (("first", "kwh_min"), ("last", "kwh_max"))
    )
    return {
        f"{name}_first": {"$min": first},
        f"{name}_last": {"$max": last},
        f"{name}_kwh": {"$sum": f"${name}_kwh"},
        f"{name}_grew": {"$max": f"${name}_kwh"},
    }


_ENERGY: Final[Document] = {"readings": {"$sum": "$readings"}} | {
    field: how for name in NAMES for field, how in _of_side(name).items()
}
_LOWEST: Final[Document] = {"kw": {"$min": {"$divide": ["$sum_kw", "$readings"]}}}


def rollup_id(period: Period) -> str:
    """Return the ``_id`` of a period's roll-up."""
    return f"{period.period_s}/{period.node}/{period.meter}/{period.start.isoformat()}"


def demand_of(document: Document) -> Demand:
    """Return the demand in a roll-up."""
    return Demand(*(plain(document[name]) for name in Demand._fields))


def energy_of(document: Document) -> Energy:
    """Return the energy in a roll-up."""
    return Energy(*(plain(document[name]) for name in Energy._fields))


class MongoHistory(MongoStore):
    """The collections that ``ravenmongo`` describes, with their roll-ups."""

    def meters(self) -> list[Meter]:
        """Return what there are roll-ups of, by an index that is skipped through."""
        found: dict[tuple[str, str], Meter] = {}
        shortest = f"{PERIODS_S[0]}/"
        with sorted_errors():
            for name in ROLLUPS.values():
                after = shortest
                while one := self._rollup(name, {"$gt": after, "$lt": f"{PERIODS_S[0]}{_END}"}, 1):
                    of = f"{shortest}{one['node']}/{one['meter']}"
                    after = of + _END
                    last = self._rollup(name, {"$gt": f"{of}/", "$lt": after}, -1) or one
                    key = (one["node"], one["meter"])
                    meter = Meter(*key, one["start"], last["start"] + _SHORTEST)
                    found[key] = meter.joined(found.get(key, meter))
        return [found[key] for key in sorted(found)]

    def announced(self) -> Iterator[Run]:
        """Yield the documents of runs; what somebody else put among them is passed over."""
        with sorted_errors():
            for document in self._db[RUNS].find():
                with suppress(ContractError):
                    yield documents.run(document)

    def heard(self, node: str, meter: str, span: Span) -> Span | None:
        """Return the ends of what the collections of roll-ups have."""
        start, end = (rollup_id(Period(PERIODS_S[0], node, meter, time)) for time in span)
        ids = {"$gte": start, "$lt": end}
        with sorted_errors():
            found = [
                plain(one["start"])
                for name in ROLLUPS.values()
                for order in (1, -1)
                if (one := self._rollup(name, ids, order))
            ]
        return (min(found), max(found)) if found else None

    def demand(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Demand]]:
        """Yield sums of the roll-ups of demand."""
        for number, found in self._sums(DEMAND, _DEMAND, node, meter, period_s, spans):
            yield number, demand_of(found)

    def energy(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Energy]]:
        """Yield sums of the roll-ups of energy."""
        for number, found in self._sums(SUMMATION, _ENERGY, node, meter, period_s, spans):
            columns: list[Any] = [found["readings"]]
            for name in NAMES:
                first, last = (found[f"{name}_{one}"] or {} for one in ("first", "last"))
                # The sum of nothing is 0 in MongoDB.
                kwh = found[f"{name}_kwh"] if found[f"{name}_grew"] is not None else None
                of_side = (first.get("kwh"), last.get("kwh"), kwh, first.get("at"), last.get("at"))
                columns += map(plain, of_side)
            yield number, Energy(*columns)

    def lowest_kw(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Decimal]]:
        """Yield the lowest of the roll-ups of demand."""
        for number, found in self._sums(DEMAND, _LOWEST, node, meter, period_s, spans):
            yield number, plain(found["kw"])

    def last_registers(self, node: str, meter: str, before: datetime) -> list[Register]:
        """Return the last value of each register, in the roll-ups where its reading is archived."""
        columns: list[Any] = []
        with sorted_errors():
            for side in (0, 1):
                last = self._last_stored(node, meter, side, before)
                of = {f"{NAMES[side]}_last": {"$ne": None}}
                if found := self._period_near(node, meter, of, {"$lt": start_of(before)}):
                    last = last_of((last, *halves(*lasts(energy_of(found)))), side)
                columns += [last and last.time, last and last.kwh[side]]
        return [one for one in halves(*columns) if one]

    def _meters(self, kind: str) -> Iterator[str]:
        """Yield the meters of a kind; one that is not named is an empty text."""
        yield ""
        after = ""
        while found := self._db[kind].find_one({"meter": {"$gt": after}}, sort=[("meter", 1)]):
            yield (after := found["meter"])

    def _rollup(self, name: str, ids: Document, order: int) -> Document | None:
        fields = {"node": 1, "meter": 1, "start": 1}
        return next(
            iter(self._db[name].find({"_id": ids}, fields).sort("_id", order).limit(1)), None
        )

    def _sums(
        self,
        kind: str,
        fields: Document,
        node: str,
        meter: str,
        period_s: int,
        spans: Sequence[Span],
    ) -> Iterator[tuple[int, Document]]:
        """Yield the fields of a kind's roll-ups for each span that has any, with its number."""
        ids = [
            {bound: rollup_id(Period(period_s, node, meter, time)) for bound, time in bounds}
            for bounds in (zip(("$gte", "$lt"), span, strict=True) for span in joined(spans))
        ]
        whole = {"$gte": ids[0]["$gte"], "$lt": ids[-1]["$lt"]}
        numbers = {start: number for number, (start, _) in enumerate(spans)}
        pipeline: list[Document] = [
            {"$match": {"_id": whole, "$or": [{"_id": one} for one in ids]}},
            {
                "$bucket": {
                    "groupBy": "$start",
                    "boundaries": [*numbers, spans[-1][1]],
                    "output": fields,
                }
            },
        ]
        with sorted_errors():
            for found in self._db[ROLLUPS[kind]].aggregate(pipeline):
                yield numbers[plain(found["_id"])], found

    def _last_stored(self, node: str, meter: str, side: int, before: datetime) -> Register | None:
        """Return the last reading of a register that is in its collection."""
        time = self._nearest_register(node, meter, side, {"$lt": before}, -1)
        if not time:
            return None
        second = time.replace(microsecond=0)
        return last_of(registers(self, node, meter, second, second + SECOND), side)

    def _period_near(self, node: str, meter: str, of: Document, bound: Document) -> Document | None:
        """Return the roll-up of 5 minutes of energy that is nearest before or after a start."""
        ((than, start),) = bound.items()
        period = Period(PERIODS_S[0], node, meter, start)
        of_meter = f"{PERIODS_S[0]}/{node}/{meter}"
        ids = {"$gt": f"{of_meter}/", "$lt": of_meter + _END} | {than: rollup_id(period)}
        found = self._db[ROLLUPS[SUMMATION]].find({"_id": ids} | of)
        order = -1 if than == "$lt" else 1
        return next(iter(found.sort("_id", order).limit(1)), None)

    def _nearest_register(
        self, node: str, meter: str, side: int, bound: Document, order: int
    ) -> datetime | None:
        """Return the time nearest to a bound at which a register had a value."""
        needed = (f"summation_{NAMES[side]}", "multiplier", "divisor")
        of = {"meter": meter or None, "node": node} | {one: {"$ne": None} for one in needed}
        return self._nearest(SUMMATION, of | self._only, bound, order)

    def _nearest(self, kind: str, of: Document, bound: Document, order: int) -> datetime | None:
        """Return the time of a reading nearest to a bound, by either clock; UTC without a zone."""
        times = []
        bound = {"$gte": EARLIEST, "$lt": LATEST} | bound
        for clock, untimed in (("time", {}), ("received", {"time": None})):
            query = of | untimed | {clock: bound}
            found = self._db[kind].find(query, {clock: 1}).sort(clock, order).limit(1)
            times += [plain(document[clock]) for document in found]
        nearest = min if order > 0 else max
        return nearest(times, default=None)


def lasts(one: Energy) -> tuple[Any, ...]:
    """Return the last of each register, as ``energy.halves`` takes it."""
    return (
        *(one.delivered_last, one.delivered_kwh_max),
        *(one.received_last, one.received_kwh_max),
    )


def plain(value: Any) -> Any:
    """Return a value of a document as the computations have it."""
    match value:
        case Decimal128():
            return value.to_decimal()
        case datetime():
            return value.astimezone(UTC).replace(tzinfo=None)
    return value
