"""Demand by 5 minutes, hour and day, counted in the transaction of their rows.

A row is counted when it is inserted and never again, so a late one is added to its period and one
that is delivered again is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from ravenbus import demand
from ravenbus.demand import Sample, combined
from ravenbus.notifications import derived
from ravenbus.periods import rolled_up
from ravensql.database import Cursor

FOREIGN_AT_ONCE: Final = 2000

PUT_DEMAND: Final = (
    "INSERT INTO demand_rollup (period_s, node, meter, start, readings, sum_kw, min_kw, max_kw) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE "
    "readings = readings + VALUES(readings), sum_kw = sum_kw + VALUES(sum_kw), "
    "min_kw = LEAST(min_kw, VALUES(min_kw)), max_kw = GREATEST(max_kw, VALUES(max_kw))"
)
FOREIGN: Final = (
    "SELECT d.id, d.time, d.demand, d.multiplier, d.divisor, "
    "(SELECT MAX(r.meter_id) FROM run_info AS r WHERE r.hash = d.hash) "
    "FROM instantaneous_demand AS d WHERE d.rolled_up IS NULL ORDER BY d.id LIMIT %s "
    "FOR UPDATE SKIP LOCKED"
)
_ROLLED: Final = (
    "UPDATE instantaneous_demand FORCE INDEX (PRIMARY) SET rolled_up = TRUE WHERE id IN %s AND "
)
"""A scan would wait for what is not committed."""
ROLLED: Final = f"{_ROLLED} time BETWEEN %s AND %s"
"""The times spare the server the other months."""
ROLLED_TIMELESS: Final = f"{_ROLLED} time < '1970-01-02'"


def count(cursor: Cursor, samples: Sequence[Sample]) -> None:
    """Add the samples to their periods."""
    found = [(*period, *one) for period, one in rolled_up(demand.by_period(samples), combined)]
    if found:
        cursor.executemany(PUT_DEMAND, found)


def count_foreign(cursor: Cursor, beat: Callable[[], None]) -> int:
    """Count the rows that were there before us or come from another program; return how many.

    Each is marked in the transaction that counts it, so the order in which others commit and a
    crash of ours do not matter.  Rows that were made up, and rows with a time of zero, are marked
    and not counted.
    """
    done = 0
    while True:
        beat()
        cursor.execute(FOREIGN, (FOREIGN_AT_ONCE,))
        found = cursor.fetchall()
        if not found:
            return done
        samples = []
        for _, time, raw, multiplier, divisor, meter in found:
            kw = derived(raw, multiplier, divisor)
            if kw is not None and isinstance(time, datetime):
                samples.append(Sample("", meter or "", time, kw))
        count(cursor, samples)
        timed = {row[0]: row[1] for row in found if isinstance(row[1], datetime)}
        if timed:
            cursor.execute(ROLLED, (list(timed), min(timed.values()), max(timed.values())))
        if timeless := [row[0] for row in found if row[0] not in timed]:
            cursor.execute(ROLLED_TIMELESS, (timeless,))
        cursor.execute("COMMIT")
        done += len(found)
