"""Demand by 5 minutes, hour and day; no database."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest

from ravenbus import demand
from ravenbus.periods import rolled_up
from ravensql import rollups
from ravensql.rollups import Sample
from tests.kinds import METER, new_hash, reading
from tests.mysql import power_cut

NOON = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - as MySQL has it


def sample(kw, *, after_s=0.0, node="home", meter="m"):
    return Sample(node, meter, NOON + timedelta(seconds=after_s), Decimal(str(kw)))


def grouped(samples):
    """Return the periods of the samples in the order in which a writer puts them."""
    return rolled_up(demand.by_period(samples), demand.combined)


def stored(server):
    """Return what each period counted, by its length and start."""
    found = server(
        "SELECT period_s, start, readings, sum_kw, min_kw, max_kw FROM demand_rollup ORDER BY 1, 2"
    )
    return {tuple(row[:2]): tuple(row[2:]) for row in found}


@pytest.fixture
def cursor(server):
    return server.connect()


@pytest.mark.parametrize(
    ("after_s", "starts"),
    [
        (0, (NOON, NOON, NOON.replace(hour=0))),
        (299.999, (NOON, NOON, NOON.replace(hour=0))),
        (300, (NOON.replace(minute=5), NOON, NOON.replace(hour=0))),
        (-0.001, (NOON.replace(hour=11, minute=55), NOON.replace(hour=11), NOON.replace(hour=0))),
        (12 * 3600, (NOON.replace(day=2, hour=0),) * 3),
    ],
)
def test_a_reading_is_in_the_period_that_begins_with_or_before_it(after_s, starts):
    """One of each length, and none where another one begins."""
    found = {key[0]: key[3] for key, _ in grouped([sample(1, after_s=after_s)])}
    assert found == dict(zip((300, 3600, 86400), starts, strict=True))


def test_the_first_periods_of_1970_are_left_out():
    """No TIMESTAMP holds when they begin; a period that begins later is counted."""
    early = sample(1)._replace(time=datetime(1970, 1, 1, 0, 4))  # noqa: DTZ001
    assert grouped([early]) == []
    later = early._replace(time=datetime(1970, 1, 1, 0, 6))  # noqa: DTZ001
    assert [key[0] for key, _ in grouped([later])] == [300]


def test_every_writer_locks_periods_in_the_same_order():
    """Whatever the order of the readings; two that lock each other's would wait for ever."""
    samples = [
        sample(1, after_s=after_s, node=node, meter=meter)
        for after_s in (0, 400)
        for node in ("b", "a")
        for meter in ("m", "")
    ]
    keys = [key for key, _ in grouped(samples)]
    assert keys == sorted(keys)
    assert [key for key, _ in grouped(reversed(samples))] == keys


def test_a_late_reading_is_added_to_its_period(server, cursor):
    """Each length of it has one more, a larger sum, and the lowest and highest of all."""
    rollups.count(cursor, [sample(1.5), sample(2, after_s=8)])
    rollups.count(cursor, [sample(7, after_s=600)])
    rollups.count(cursor, [sample(-0.5, after_s=16)])
    rollups.count(cursor, [sample(0, after_s=4)])
    found = stored(server)
    assert found[300, NOON] == (4, 3.0, -0.5, 2.0)
    assert found[300, NOON + timedelta(minutes=10)] == (1, 7.0, 7.0, 7.0)
    assert found[3600, NOON] == found[86400, NOON.replace(hour=0)] == (5, 10.0, -0.5, 7.0)


def test_meters_and_nodes_are_counted_apart(server, cursor):
    """A reading without a meter is one of the empty name."""
    samples = [sample(1), sample(2, meter=""), sample(4, node="other")]
    rollups.count(cursor, samples)
    days = server("SELECT node, meter, sum_kw FROM demand_rollup WHERE period_s = 86400")
    assert sorted(days) == [("home", "", 2.0), ("home", "m", 1.0), ("other", "m", 4.0)]


def test_only_a_demand_with_a_value_counts():
    """By the device's clock, or the reader's where the device has none."""
    hash_ = new_hash()
    none = [reading(hash_, 1, multiplier=None), reading(hash_, 2, demand=0, divisor=None)]
    nothing = reading(hash_, 3, demand=0)
    timeless = reading(hash_, 4, time=None, meter=None, divisor=0)
    found = demand.samples([*none, nothing, timeless])
    assert found == [
        Sample("home", METER, nothing.notification.time, Decimal(0)),
        Sample("home", "", timeless.envelope.received, Decimal(1437)),
    ]


def foreign(server, demand=1000, *, time="2026-03-01 12:00:00", scale=1000, rolled_up=None):
    """Insert a row as python-raven's scripts do."""
    columns = "(time, demand, multiplier, divisor, run, hash, rolled_up)"
    multiplier = 1 if scale > 0 else scale
    server(
        f"INSERT INTO instantaneous_demand {columns} VALUES (%s, %s, %s, %s, 'r', 'h', %s)",  # noqa: S608
        *(time, demand, multiplier, scale, rolled_up),
    )


def beat():
    """Return a beat that keeps what has no end from going on."""
    return iter(range(20)).__next__


def unmarked(server):
    return server("SELECT COUNT(*) FROM instantaneous_demand WHERE rolled_up IS NULL")[0][0]


def test_rows_of_other_programs_are_counted_once(server, cursor):
    """Under the meter of their run; not those that a sink counted, were made up or have no time."""
    server("INSERT INTO run_info (name, hash, meter_id) VALUES ('r', 'h', 'Zähler')")
    foreign(server, 1000)
    foreign(server, 3000, time="2026-03-01 12:01:00")
    foreign(server, 9000, rolled_up=True)
    foreign(server, -1, scale=-1)
    foreign(server, 5000, time="0000-00-00 00:00:00")
    assert rollups.count_foreign(cursor, beat()) == 4
    assert rollups.count_foreign(cursor, beat()) == 0
    assert stored(server)[300, NOON] == (2, 4.0, 1.0, 3.0)
    assert server("SELECT DISTINCT node, meter FROM demand_rollup") == [("", "Zähler")]
    assert unmarked(server) == 0


def test_a_page_of_rows_is_counted_and_marked_in_one_transaction(server, cursor, monkeypatch):
    """Wherever it is interrupted, the next time each row is counted once."""
    monkeypatch.setattr(rollups, "FOREIGN_AT_ONCE", 2)
    for at in count(1):
        server("DELETE FROM demand_rollup")
        server("UPDATE instantaneous_demand SET rolled_up = NULL")
        for _ in range(5 if at == 1 else 0):
            foreign(server)
        with power_cut(server, at) as was_cut:
            rollups.count_foreign(cursor, beat())
        cursor.rollback()
        left = unmarked(server)
        assert stored(server).get((300, NOON), (0,))[0] == 5 - left
        assert rollups.count_foreign(cursor, beat()) == left
        assert stored(server)[300, NOON] == (5, 5.0, 1.0, 1.0)
        if not was_cut():
            break
    assert at > 12


def test_a_stop_keeps_what_is_counted(server, cursor, monkeypatch):
    """Who asks to stop does so between two pages."""
    monkeypatch.setattr(rollups, "FOREIGN_AT_ONCE", 2)
    for _ in range(5):
        foreign(server)
    with pytest.raises(StopIteration):
        rollups.count_foreign(cursor, iter(range(2)).__next__)
    cursor.rollback()
    assert unmarked(server) == 1
    assert stored(server)[300, NOON][0] == 4
