"""Roll-ups and registers in MySQL or MariaDB, as history asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ravenbus.demand import Demand
from ravenbus.energy import NAMES, Energy, Register, halves, last_of, register
from ravenbus.history import Meter, Span, joined
from ravenbus.messages import Run
from ravenbus.periods import PERIODS_S
from ravensql.readback import MysqlStore

_ROLLUPS: Final = ("demand_rollup", "energy_rollup")
_METERS: Final = (
    "SELECT node, meter, MIN(start), MAX(start) FROM {} WHERE period_s = %s "
    "GROUP BY period_s, node, meter"
)
"""Grouped by all that the key begins with, or MariaDB reads each period of each meter."""
_HEARD: Final = (
    "SELECT start FROM {} WHERE period_s = %s AND node = %s AND meter = %s "
    "AND start >= %s AND start < %s ORDER BY start {} LIMIT 1"
)
"""MIN and MAX find nothing in MariaDB (10.11) below a time that a TIMESTAMP cannot hold."""
_SUMS: Final = (
    "SELECT INTERVAL(TO_SECONDS(start), {starts}) - 1 AS number, {columns} FROM {table} "
    "WHERE period_s = %s AND node = %s AND meter = %s AND ({spans}) GROUP BY number"
)
"""INTERVAL says how many of the spans' starts are not after a period's start."""
_SPAN: Final = "start >= %s AND start < %s"
_DEMAND: Final = "SUM(readings), SUM(sum_kw), MIN(min_kw), MAX(max_kw)"
_ENERGY: Final = ", ".join(
    ["SUM(readings)"]
    + [
        f"MIN(CONCAT({name}_first, ' ', {name}_kwh_min)), "
        f"MAX(CONCAT({name}_last, ' ', {name}_kwh_max)), SUM({name}_kwh)"
        for name in NAMES
    ]
)
"""Of each register its value at the first reading with the time before it, at the last, growth."""
_LOWEST: Final = "MIN(sum_kw / readings)"
"""A quotient has four digits more than the sum, which is enough to round it as it is."""
_DAYS: Final = tuple(
    "SELECT start FROM energy_rollup WHERE period_s = %s AND node = %s AND meter = %s "  # noqa: S608 - our names
    f"AND start < %s AND {name}_last IS NOT NULL ORDER BY start DESC LIMIT 2"
    for name in NAMES
)
_OF: Final = "FROM current_summation_delivered WHERE node = %s AND meter <=> %s AND time "
_LASTS: Final = tuple(
    "SELECT time, summation_delivered, summation_received, multiplier, divisor "
    f"{_OF}= (SELECT time {_OF}>= %s AND time < %s AND summation_{name} IS NOT NULL "
    "AND multiplier IS NOT NULL AND divisor IS NOT NULL ORDER BY time DESC LIMIT 1)"
    for name in NAMES
)


class MysqlHistory(MysqlStore):
    """The tables that ``ravensql`` describes, with their roll-ups."""

    def meters(self) -> list[Meter]:
        """Return what there are roll-ups of."""
        found: dict[tuple[str, str], Meter] = {}
        shortest = timedelta(seconds=PERIODS_S[0])
        for table in _ROLLUPS:
            for *of, first, last in self._rows(_METERS.format(table), (PERIODS_S[0],)):
                span = (one.replace(tzinfo=UTC) for one in (first, last + shortest))
                meter = Meter(*of, *span)
                key = meter.node, meter.meter
                found[key] = meter.joined(found.get(key, meter))
        return [found[key] for key in sorted(found)]

    def announced(self) -> Iterator[Run]:
        """Yield what table ``run_info`` says, also of a run of which there are readings alone."""
        return self._announced("TRUE")

    def heard(self, node: str, meter: str, span: Span) -> Span | None:
        """Return the ends of what the tables of roll-ups have."""
        of = (PERIODS_S[0], node, meter, *span)
        queries = [_HEARD.format(table, order) for table in _ROLLUPS for order in ("ASC", "DESC")]
        found = [start for query in queries for (start,) in self._rows(query, of)]
        return (min(found), max(found)) if found else None

    def demand(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Demand]]:
        """Yield sums of ``demand_rollup``."""
        for number, (readings, *kw) in self._sums(0, _DEMAND, node, meter, period_s, spans):
            yield number, Demand(int(readings), *kw)

    def energy(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Energy]]:
        """Yield sums of ``energy_rollup``."""
        for number, (readings, *of_sides) in self._sums(1, _ENERGY, node, meter, period_s, spans):
            columns: list[Any] = [int(readings)]
            for low, high, kwh in (of_sides[:3], of_sides[3:]):
                (first, kwh_min), (last, kwh_max) = map(_timed, (low, high))
                columns += [kwh_min, kwh_max, kwh, first, last]
            yield number, Energy(*columns)

    def lowest_kw(
        self, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Decimal]]:
        """Yield the lowest of ``demand_rollup``."""
        for number, (kw,) in self._sums(0, _LOWEST, node, meter, period_s, spans):
            yield number, kw

    def last_registers(self, node: str, meter: str, before: datetime) -> list[Register]:
        """Return the last value of each register in the rows.

        It is on the last day that has one or, where that is not over yet, on the one before it: a
        register that a meter does not have is looked for in the roll-ups of the days alone.
        """
        columns: list[Any] = []
        of = (node, meter or None)
        for side, query in enumerate(_LASTS):
            days = [day for (day,) in self._rows(_DAYS[side], (PERIODS_S[-1], node, meter, before))]
            found = self._rows(query, (*of, *of, days[-1], before)) if days else ()
            last = last_of([register(*row) for row in found], side)
            columns += [last and last.time, last and last.kwh[side]]
        return [one for one in halves(*columns) if one]

    def _sums(
        self, table: int, columns: str, node: str, meter: str, period_s: int, spans: Sequence[Span]
    ) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the columns of a table of roll-ups for each span that has any, with its number."""
        whole = joined(spans)
        query = _SUMS.format(
            starts=", ".join(str(_seconds(start)) for start, _ in spans),
            columns=columns,
            table=_ROLLUPS[table],
            spans=" OR ".join([_SPAN] * len(whole)),
        )
        arguments = (period_s, node, meter, *(time for span in whole for time in span))
        for number, *found in self._rows(query, arguments):
            yield number, found


def _seconds(time: datetime) -> int:
    """Return what TO_SECONDS returns, which counts from the year 0."""
    return int((time - datetime.min).total_seconds()) + 366 * 86400  # noqa: DTZ901 - UTC


def _timed(text: str | None) -> tuple[datetime | None, Decimal | None]:
    """Return the time and the value in a text of both."""
    if text is None:
        return None, None
    time, _, value = text.rpartition(" ")
    return datetime.fromisoformat(time), Decimal(value)
