"""Roll-ups and registers in MySQL or MariaDB, as history asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ravenbus.demand import Demand
from ravenbus.energy import NAMES, Energy, Register, halves, last_of, register
from ravenbus.history import Meter
from ravenbus.periods import PERIODS_S
from ravensql.readback import MysqlStore

_ROLLUPS: Final = ("demand_rollup", "energy_rollup")
_METERS: Final = (
    "SELECT node, meter, MIN(start), MAX(start) FROM {} WHERE period_s = %s "
    "GROUP BY period_s, node, meter"
)
"""Grouped by all that the key begins with, or MariaDB reads each period of each meter."""
_PERIODS: Final = (
    "SELECT start, {} FROM {} WHERE period_s = %s AND node = %s AND meter = %s "
    "AND start >= %s AND start < %s ORDER BY start"
)
_DEMAND: Final = _PERIODS.format(", ".join(Demand._fields), _ROLLUPS[0])
_ENERGY: Final = _PERIODS.format(", ".join(Energy._fields), _ROLLUPS[1])
_OF: Final = "FROM current_summation_delivered WHERE node = %s AND meter <=> %s AND time "
_LASTS: Final = tuple(
    "SELECT time, summation_delivered, summation_received, multiplier, divisor "
    f"{_OF}= (SELECT MAX(time) {_OF}< %s AND summation_{name} IS NOT NULL "
    "AND multiplier IS NOT NULL AND divisor IS NOT NULL)"
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

    def demand(
        self, node: str, meter: str, period_s: int, start: datetime, end: datetime
    ) -> Iterator[tuple[datetime, Demand]]:
        """Yield the rows of ``demand_rollup``."""
        for begin, *columns in self._rows(_DEMAND, (period_s, node, meter, start, end)):
            yield begin, Demand(*columns)

    def energy(
        self, node: str, meter: str, period_s: int, start: datetime, end: datetime
    ) -> Iterator[tuple[datetime, Energy]]:
        """Yield the rows of ``energy_rollup``."""
        for begin, *columns in self._rows(_ENERGY, (period_s, node, meter, start, end)):
            yield begin, Energy(*columns)

    def last_registers(self, node: str, meter: str, before: datetime) -> list[Register]:
        """Return the last value of each register in the rows."""
        columns: list[Any] = []
        of = (node, meter or None)
        for side, query in enumerate(_LASTS):
            found = self._rows(query, (*of, *of, before))
            last = last_of([register(*row) for row in found], side)
            columns += [last and last.time, last and last.kwh[side]]
        return [one for one in halves(*columns) if one]
