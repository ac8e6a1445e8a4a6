"""Demand and energy of each meter by 5 minutes, hours or days, as rows of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from raven_export.columns import TIME, Column, Row, Type
from ravenbus.history import History, MeterHistory, Step, edges

STEPS: Final = (Step.RAW, Step.FIVE_MINUTES, Step.HOUR, Step.DAY)
_SPANS: Final = {Step.FIVE_MINUTES: Step.DAY, Step.HOUR: Step.DAY, Step.DAY: Step.MONTH}
"""What is in memory at a time, by the step."""

NODE, READINGS = 2, 4
"""Places of columns in a row."""
COLUMNS: Final = (
    Column(TIME, Type.TIME),
    Column("end_utc", Type.TIME),
    Column("node", Type.TEXT),
    Column("meter", Type.TEXT),
    Column("demand_readings", Type.INTEGER),
    *(Column(f"demand_{name}_kw", Type.REAL) for name in ("mean", "min", "max")),
    *(Column(f"{name}_kwh", Type.REAL) for name in ("delivered", "received")),
    Column("meter_intervals", Type.INTEGER),
)


def rows(
    history: History,
    nodes: Collection[str] | None,
    start: datetime,
    end: datetime,
    step: Step,
    zone: ZoneInfo,
) -> Iterator[Row]:
    """Yield a row for each step of each meter, by time, from its first reading to its last.

    The first and the last step are whole.  What nothing is known of is None.
    """
    meters = [one for one in history.meters() if not nodes or one.node in nodes]
    ends = edges(start, end, _SPANS[step], zone)
    for span in pairwise(one.replace(tzinfo=UTC) for one in ends):
        first, last = max(start, span[0]), min(end, span[1])
        found = []
        for meter in meters:
            if meter.first < last and meter.last > first:
                its = MeterHistory(history, meter.node, meter.meter, zone)
                parts = its.demand(first, last, step), its.energy(first, last, step)
                for demand, energy in zip(*parts, strict=True):
                    if meter.first < demand.end and meter.last > demand.start:
                        of, its_energy = demand.value, energy.value
                        found.append(
                            [
                                *(demand.start, demand.end, meter.node, meter.meter or None),
                                *(of.readings if of else 0, _float(of and of.mean_kw)),
                                *(_float(of and of.min_kw), _float(of and of.max_kw)),
                                _float(its_energy and its_energy.delivered_kwh),
                                _float(its_energy and its_energy.received_kwh),
                                energy.intervals,
                            ]
                        )
        yield from sorted(found, key=lambda row: (row[0], row[NODE], row[NODE + 1] or ""))


def _float(value: object) -> float | None:
    return None if value is None else float(str(value))
