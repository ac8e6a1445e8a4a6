"""Energy by 5 minutes, hour and day, counted in the transaction of their rows.

A late reading moves the growth that it divides; whoever counts has the meter's row of
``energy_meter`` locked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from ravenbus.energy import (
    NAMES,
    Energy,
    Register,
    combined,
    halves,
    last_of,
    of_reading,
    register,
    shortest,
    totals,
)
from ravenbus.messages import Reading
from ravenbus.notifications import CurrentSummationDelivered
from ravenbus.periods import PERIODS_S, Period, rolled_up, start_of
from ravensql.database import Cursor

COUNTED_AT_ONCE: Final = timedelta(days=10)

_COLUMNS: Final = ", ".join((*Period._fields, *Energy._fields))
_PLACES: Final = ", ".join(["%s"] * 15)


def _added(name: str) -> str:
    """Return how a period's columns of a register take up more readings.

    Assignments see those before them.  A period of which the rows are gone has registers without
    times: it stays as it is.
    """
    gone = f"({name}_first IS NULL AND {name}_kwh_min IS NOT NULL)"
    kwh, first, last, low, high = (
        f"{name}_{part}" for part in ("kwh", "first", "last", "kwh_min", "kwh_max")
    )
    return (
        f"{kwh} = IF({gone} OR VALUES({kwh}) IS NULL, {kwh}, COALESCE({kwh}, 0) + VALUES({kwh})), "
        f"{high} = IF({gone} OR VALUES({last}) IS NULL OR VALUES({last}) < {last}, {high}, "
        f"IF(VALUES({last}) = {last}, GREATEST({high}, VALUES({high})), VALUES({high}))), "
        f"{last} = IF({gone}, NULL, COALESCE(GREATEST({last}, VALUES({last})), {last}, VALUES({last}))), "
        f"{low} = IF({gone} OR VALUES({first}) IS NULL OR VALUES({first}) > {first}, {low}, "
        f"IF(VALUES({first}) = {first}, LEAST({low}, VALUES({low})), VALUES({low}))), "
        # A row whose registers have just come has the time of the last by now.
        f"{first} = IF({first} IS NULL AND {last} IS NULL, NULL, "
        f"COALESCE(LEAST({first}, VALUES({first})), {first}, VALUES({first})))"
    )


ADD: Final = (
    f"INSERT INTO energy_rollup ({_COLUMNS}) VALUES ({_PLACES}) ON DUPLICATE KEY UPDATE "  # noqa: S608 - our names
    f"readings = readings + VALUES(readings), {', '.join(map(_added, NAMES))}"
)
SET: Final = f"REPLACE INTO energy_rollup ({_COLUMNS}) VALUES ({_PLACES})"  # noqa: S608 - our names

LOCK: Final = (
    "INSERT INTO energy_meter (node, meter) VALUES (%s, %s) ON DUPLICATE KEY UPDATE node = node"
)
METERS: Final = (
    "SELECT node, meter, counted_to, delivered_last, delivered_kwh, received_last, received_kwh "
    "FROM energy_meter WHERE (node, meter) IN %s ORDER BY node, meter FOR UPDATE"
)
_LASTS: Final = ("counted_to", "delivered_last", "delivered_kwh", "received_last", "received_kwh")
PUT_METER: Final = (
    f"INSERT INTO energy_meter (node, meter, {', '.join(_LASTS)}) "  # noqa: S608 - our names
    "VALUES (%s, %s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE "
    + ", ".join(f"{name} = VALUES({name})" for name in _LASTS)
)
UNCOUNTED: Final = (
    "SELECT node, meter FROM energy_meter WHERE counted_to IS NOT NULL ORDER BY node, meter LIMIT 1"
)

WITHOUT_ENERGY: Final = (
    "SELECT DISTINCT r.node, r.meter FROM energy_rollup AS r JOIN energy_meter USING (node, meter) "  # noqa: S608 - our names
    f"WHERE r.period_s = {PERIODS_S[-1]} AND r.start >= %s AND r.start < %s AND "
    "r.delivered_first IS NULL AND r.received_first IS NULL AND "
    "COALESCE(r.delivered_kwh_min, r.received_kwh_min) IS NOT NULL ORDER BY r.node, r.meter"
)
FORGET: Final = (
    "DELETE FROM energy_rollup WHERE node = %s AND meter = %s AND start >= %s AND start < %s"
)

_ROWS: Final = (
    "SELECT time, hash, seq, summation_delivered, summation_received, multiplier, divisor "
    "FROM current_summation_delivered WHERE node = %s AND meter <=> %s AND "
)
_BETWEEN: Final = _ROWS + "time >= %s AND time <= %s"
_NEIGHBOURS: Final = tuple(
    f"{_ROWS} time {than} %s AND summation_{name} IS NOT NULL "
    "AND multiplier IS NOT NULL AND divisor IS NOT NULL "
    f"ORDER BY time {order} LIMIT 1"
    for name in NAMES
    for than, order in (("<", "DESC"), (">", "ASC"))
)
_PERIODS: Final = (
    "SELECT delivered_first, delivered_kwh_min, received_first, received_kwh_min, "  # noqa: S608 - our names
    "delivered_last, delivered_kwh_max, received_last, received_kwh_max FROM energy_rollup "
    f"WHERE period_s = {PERIODS_S[0]} AND node = %s AND meter = %s AND start "
)
_PERIODS_BETWEEN: Final = _PERIODS + ">= %s AND start <= %s"
_PERIODS_AROUND: Final = tuple(
    f"{_PERIODS}{than} %s AND {name}_last IS NOT NULL ORDER BY start {order} LIMIT 1"
    for name in NAMES
    for than, order in (("<", "DESC"), (">", "ASC"))
)
_NEXT: Final = (
    "SELECT MIN(time) FROM current_summation_delivered "
    "WHERE node = %s AND meter <=> %s AND time >= %s"
)


class _Meter(NamedTuple):
    """A meter's row: up to when its rows are counted, and the last of each register."""

    node: str
    meter: str
    counted_to: datetime | None
    last: tuple[Register | None, Register | None]


class _Found(NamedTuple):
    """A reading of registers, with its identity."""

    node: str
    meter: str
    identity: tuple[str, int]
    register: Register


def count(cursor: Cursor, readings: Iterable[Reading]) -> None:
    """Add the registers among readings that were just inserted to their periods."""
    groups: dict[tuple[str, str], list[_Found]] = defaultdict(list)
    for one in map(_found, filter(_has_registers, readings)):
        groups[one.node, one.meter].append(one)
    if not groups:
        return
    cursor.executemany(LOCK, sorted(groups))
    cursor.execute(METERS, (list(groups),))
    added: list[tuple[Any, ...]] = []
    meters: list[tuple[Any, ...]] = []
    for node, meter, counted_to, *last in cursor.fetchall():
        row = _Meter(node, meter, counted_to, halves(*last))
        new = [one for one in groups[node, meter] if _is_before(one.register, counted_to)]
        known = _known(cursor, row, new) if new else []
        added += _rows(node, meter, totals(known, [one.register for one in new]))
        meters.append(_meter_row(row, [one.register for one in new], counted_to))
    cursor.executemany(PUT_METER, meters)
    if added:
        cursor.executemany(ADD, sorted(added))


def recount(cursor: Cursor, beat: Callable[[], None]) -> int:
    """Count the rows that an earlier version rolled up otherwise; return how many meters are done.

    Ten days of a meter are one transaction, so who stores waits for no longer, and what is
    interrupted goes on where it was.
    """
    done = 0
    while True:
        cursor.execute(UNCOUNTED)
        found = cursor.fetchall()
        if not found:
            return done
        while not _recount(cursor, *found[0]):
            beat()
        done += 1


def count_restored(
    cursor: Cursor, start: datetime, end: datetime, beat: Callable[[], None]
) -> None:
    """Count the rows of a month that an earlier version archived without energy, once they are back.

    ``start`` and ``end`` are UTC without a zone.
    """
    recount(cursor, beat)
    cursor.execute(WITHOUT_ENERGY, (start, end))
    for node, meter in cursor.fetchall():
        beat()
        cursor.execute(METERS, ([(node, meter)],))
        ((_, _, counted_to, *last),) = cursor.fetchall()
        row = _Meter(node, meter, counted_to, halves(*last))
        cursor.execute(_BETWEEN, (node, meter or None, start, end - timedelta(seconds=1)))
        if new := [_of_row(*columns) for columns in cursor.fetchall()]:
            cursor.execute(FORGET, (node, meter, start, end))
            registers = [one.register for one in new]
            added = _rows(node, meter, totals(_known(cursor, row, new), registers))
            cursor.executemany(ADD, added)
            cursor.executemany(PUT_METER, [_meter_row(row, registers, counted_to)])
        cursor.execute("COMMIT")


def is_counted(cursor: Cursor, until: datetime) -> bool:
    """Say whether every row before a time is counted."""
    cursor.execute("SELECT COUNT(*) FROM energy_meter WHERE counted_to < %s", (until,))
    return cursor.fetchall() == ((0,),)


def _recount(cursor: Cursor, node: str, meter: str) -> bool:
    """Count the next ten days of a meter; return whether it has no more."""
    cursor.execute(METERS, ([(node, meter)],))
    ((_, _, counted_to, *last),) = cursor.fetchall()
    row = _Meter(node, meter, counted_to, halves(*last))
    end: datetime | None = None
    new: list[Register] = []
    if counted_to is not None:
        cursor.execute(_NEXT, (node, meter or None, max(counted_to, datetime(1970, 1, 2))))  # noqa: DTZ001 - as MySQL has it
        ((first,),) = cursor.fetchall()
        if first is not None:
            start = start_of(first, PERIODS_S[-1])
            end = start + COUNTED_AT_ONCE
            cursor.execute(_BETWEEN, (node, meter or None, start, end - timedelta(seconds=1)))
            new = [_of_row(*columns).register for columns in cursor.fetchall()]
            set_rows = _rows(node, meter, totals([one for one in row.last if one], new))
            cursor.executemany(SET, set_rows)
    cursor.executemany(PUT_METER, [_meter_row(row, new, end)])
    cursor.execute("COMMIT")
    return end is None


def _known(cursor: Cursor, meter: _Meter, new: Sequence[_Found]) -> list[Register]:
    """Return the readings around new ones, and between them, that were there before."""
    times = [one.register.time for one in new]
    lasts = [one for one in meter.last if one]
    if all(one.time < min(times) for one in lasts):
        return lasts
    identities = {one.identity for one in new}
    where = (meter.node, meter.meter or None)
    cursor.execute(_BETWEEN, (*where, min(times), max(times)))
    found = list(cursor.fetchall())
    for query, time in zip(_NEIGHBOURS, [min(times), max(times)] * 2, strict=True):
        cursor.execute(query, (*where, time))
        found += cursor.fetchall()
    known = {one.identity: one.register for one in (_of_row(*columns) for columns in found)}
    return _of_periods(cursor, meter, new) + [
        register
        for identity, register in known.items()
        if identity not in identities and _is_before(register, meter.counted_to)
    ]


def _of_periods(cursor: Cursor, meter: _Meter, new: Sequence[_Found]) -> list[Register]:
    """Return the first and last readings of the periods around new ones, and of theirs.

    They stand for the readings of archived months, which a late one still divides.
    """
    times = [one.register.time for one in new]
    where = (meter.node, meter.meter)
    ends = (start_of(min(times)), start_of(max(times)))
    cursor.execute(_PERIODS_BETWEEN, (*where, *ends))
    found = list(cursor.fetchall())
    for query, start in zip(_PERIODS_AROUND, ends * 2, strict=True):
        cursor.execute(query, (*where, start))
        found += cursor.fetchall()
    registers = [one for row in found for half in (row[:4], row[4:]) for one in halves(*half)]
    # A wrap of the first after the new is seen by its unit, which is theirs.
    return [one._replace(unit=new[0].register.unit) for one in registers if one]


def _rows(node: str, meter: str, by_start: Mapping[datetime, Energy]) -> list[tuple[Any, ...]]:
    """Return the rows of ``energy_rollup`` for all periods, in the order in which they are locked."""
    parts = shortest(node, meter, by_start)
    return [(*period, *one) for period, one in rolled_up(parts, combined)]


def _meter_row(
    meter: _Meter, new: Iterable[Register], counted_to: datetime | None
) -> tuple[Any, ...]:
    """Return a meter's row as it is after more readings."""
    columns: list[Any] = [meter.node, meter.meter, counted_to]
    for side in (0, 1):
        last = last_of((meter.last[side], *new), side)
        columns += [last and last.time, last and last.kwh[side]]
    return tuple(columns)


def _has_registers(reading: Reading) -> bool:
    return isinstance(reading.notification, CurrentSummationDelivered)


def _found(reading: Reading) -> _Found:
    envelope = reading.envelope
    identity = (envelope.hash, envelope.seq)
    meter = reading.notification.meter or ""
    return _Found(envelope.node, meter, identity, of_reading(reading))


def _of_row(time: datetime, hash_: str, seq: int, *columns: Any) -> _Found:
    return _Found("", "", (hash_, seq), register(time, *columns))


def _is_before(register: Register, counted_to: datetime | None) -> bool:
    return counted_to is None or register.time < counted_to
