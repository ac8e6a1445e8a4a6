"""Demand by 5 minutes, hour and day, counted in the transaction of their rows.

A row is counted when it is inserted and never again, so a late one is added to its period and one
that is delivered again is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Final, NamedTuple

from ravenbus.messages import Reading
from ravenbus.notifications import InstantaneousDemand
from ravensql import rows
from ravensql.database import Cursor
from ravensql.energy import PERIODS_S

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


class Sample(NamedTuple):
    """A row's contribution to its periods."""

    node: str
    meter: str
    time: datetime
    kw: Decimal


Key = tuple[int, str, str, datetime]


def of_demand(readings: Iterable[Reading]) -> list[Sample]:
    """Return the demands among the readings that have a value."""
    samples = []
    for reading in readings:
        found, envelope = reading.notification, reading.envelope
        if isinstance(found, InstantaneousDemand):
            kw = rows.scaled(found.demand, found.multiplier, found.divisor)
            if kw is not None:
                time = found.time or envelope.received
                samples.append(Sample(envelope.node, found.meter or "", time, kw))
    return samples


def grouped(samples: Iterable[Sample]) -> list[tuple[Key, list[Decimal]]]:
    """Return the values by period, in the order in which every writer locks the periods."""
    shortest: dict[tuple[str, str, int], list[Decimal]] = defaultdict(list)
    for node, meter, time, kw in samples:
        seconds = int(time.replace(tzinfo=UTC).timestamp())
        shortest[node, meter, seconds // PERIODS_S[0]].append(kw)
    found: dict[Key, list[Decimal]] = defaultdict(list)
    for (node, meter, number), group in shortest.items():
        for period in PERIODS_S:
            seconds = number * PERIODS_S[0] // period * period
            if not seconds:
                continue  # no TIMESTAMP holds the first second of 1970
            start = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
            found[period, node, meter, start] += group
    return sorted(found.items(), key=itemgetter(0))


def count(cursor: Cursor, samples: Sequence[Sample]) -> None:
    """Add the samples to their periods."""
    found = [(*key, len(kw), sum(kw), min(kw), max(kw)) for key, kw in grouped(samples)]
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
        for _, time, demand, multiplier, divisor, meter in found:
            kw = rows.scaled(demand, multiplier, divisor)
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
