"""Energy by 5 minutes, hour and day in a real database, and what rows say of a wrong clock."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from ravenbus.errors import RetryableError
from ravenbus.messages import Envelope, Reading
from ravenbus.months import Month
from ravenbus.notifications import CurrentSummationDelivered, PriceCluster
from ravensql import energy, readings, rows, schema
from ravensql.archiving import Archive
from ravensql.housekeeping import look_after
from ravensql.retention import Retention
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from tests.kinds import METER, T0, new_hash, reading

from .sql import Db
from .system import NODE


def registers(
    hash_: str, *wh: int | None, every_s: int = 240, start: datetime = T0
) -> list[Reading]:
    """Return readings of a register, numbered from 1."""
    found = []
    for seq, value in enumerate(wh, 1):
        at = start + timedelta(seconds=every_s * (seq - 1))
        summation = CurrentSummationDelivered(
            device=None, meter=METER, time=at.replace(microsecond=0), multiplier=1, divisor=1000,
            summation_delivered=value, summation_received=0,
            delivered_kwh=None, received_kwh=None,
        )  # fmt: skip
        envelope = Envelope(node=NODE, run="r", hash=hash_, seq=seq, received=at)
        found.append(Reading(envelope, summation))
    return found


ENERGY = (
    "SELECT period_s, start, readings, delivered_kwh_min, delivered_kwh_max, delivered_kwh, "
    "received_kwh FROM energy_rollup ORDER BY period_s, start"
)


def test_a_meter_that_was_reset_used_what_both_counted(db: Db, sink: MysqlSink):
    """The day says the register at its first and last reading, and 0.9 kWh, not 17 MWh."""
    noon = T0.replace(microsecond=0)
    first = registers(new_hash(), 17078000, start=noon)
    rest = registers(new_hash(), 3, 4, 5, 900, every_s=1200, start=noon + timedelta(hours=2))
    sink.store(first)
    sink.store(rest)
    (day,) = [row for row in db(ENERGY) if row[0] == 86400]
    assert day[2:] == (5, Decimal(17078), Decimal("0.9"), Decimal("0.9"), Decimal(0))
    sink.store([*rest, *first])
    assert [row for row in db(ENERGY) if row[0] == 86400] == [day]


def until_stored(sink: MysqlSink, batch: list[Reading]) -> None:
    """Store a batch, again if the server ended it for another writer's sake."""
    for _ in range(20):
        with suppress(RetryableError):
            sink.store(batch)
            return
    raise AssertionError("a batch was refused 20 times")


@pytest.mark.parametrize("seed", range(4))
def test_energy_is_the_same_in_any_order_by_any_writer(db: Db, seed: int):
    """Late, repeated and refused batches of two writers at once come to what one writes in order."""
    chance = random.Random(seed)
    wh = [chance.choice([None, 17_078_000 + 3 * n, 17_078_000 + 3 * n, n]) for n in range(300)]
    first, second = new_hash(), new_hash()
    history = registers(first, *wh, every_s=97)
    history += registers(second, *wh[:150], every_s=131, start=T0 + timedelta(hours=3))
    with closing(db.sink()) as sink:
        sink.prepare()
        sink.store(history)
    expected = db(ENERGY)
    for table in ("energy_rollup", "energy_meter", "current_summation_delivered", "run_info"):
        db(f"DELETE FROM {table}")  # noqa: S608
    chance.shuffle(history)
    parts = [history[start : start + 20] for start in range(0, len(history), 20)]

    def write(mine: list[list[Reading]]) -> None:
        with closing(db.sink()) as sink:
            for part in [*mine, mine[0]]:
                until_stored(sink, part)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (parts[::2], parts[1::2])))
    assert db(ENERGY) == expected


def test_a_late_reading_of_an_archived_month_invents_no_energy(db: Db, tmp_path: Path):
    """It divides the growth between readings whose rows are gone, and the days add up as before."""
    days = "SELECT start, delivered_kwh FROM energy_rollup WHERE period_s = 86400 ORDER BY start"
    url = MysqlUrl(db.url)
    schema.migrate(url)
    look_after(url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    march, late, april = (datetime(2026, *day, tzinfo=UTC) for day in ((3, 10), (3, 20), (4, 1)))
    with closing(db.sink()) as sink:
        sink.store(registers(new_hash(), 1_000_000, 1_006_000, every_s=21 * 86400, start=march))
        sink.store(registers(new_hash(), 1_006_100, start=april))
        june = datetime(2026, 6, 15, tzinfo=UTC)
        look_after(url, utc=lambda: june)
        archive = Archive(url, tmp_path, threading.Event(), lambda: june)
        Retention(archive, None).archive(Month.of(march))
        sink.store(registers(new_hash(), 1_003_000, start=late))
    assert [kwh for _, kwh in db(days)] == [0, 3, 3, Decimal("0.1")]


def test_a_month_that_1_0_archived_is_counted_when_it_is_restored(db: Db, tmp_path: Path):
    """Its energy is there then, over the border too, and a late reading takes away none of it."""
    url = MysqlUrl(db.url)
    schema.migrate(url)
    look_after(url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    june = datetime(2026, 6, 15, tzinfo=UTC)
    archive = Archive(url, tmp_path, threading.Event(), lambda: june)
    retention = Retention(archive, None)
    march, late, april = (
        datetime(2026, *at, tzinfo=UTC) for at in ((3, 31, 20), (4, 1, 1), (4, 1, 5))
    )
    with closing(db.sink()) as sink:
        sink.store(registers(new_hash(), 1_000_000, 1_001_000, every_s=3600, start=march))
        look_after(url, utc=lambda: june)
        retention.archive(Month.of(march))
        # As 1.0 left it: registers alone, without times and energy.
        columns = [
            f"{n}_{part}" for n in ("delivered", "received") for part in ("kwh", "first", "last")
        ]
        db(f"UPDATE energy_rollup SET {', '.join(f'{name} = NULL' for name in columns)}")  # noqa: S608
        db("UPDATE energy_meter SET delivered_last = NULL, received_last = NULL")
        sink.store(registers(new_hash(), 1_003_000, 1_003_500, every_s=3600, start=april))
        days = "SELECT delivered_kwh FROM energy_rollup WHERE period_s = 86400 ORDER BY start"
        assert db(days) == ((None,), (Decimal("0.5"),))
        archive.restore(Month.of(march))
        assert db(days) == ((1,), (Decimal("2.5"),))
        sink.store(registers(new_hash(), 1_002_000, start=late))
        assert db(days) == ((1,), (Decimal("2.5"),))
        assert db(
            "SELECT MIN(delivered_kwh), SUM(readings) FROM energy_rollup WHERE period_s = 300"
        ) == ((0, 5),)
        retention.archive(Month.of(march))
        archive.restore(Month.of(march))
        assert db(days) == ((1,), (Decimal("2.5"),))


def test_roll_ups_of_1_0_are_counted_again_from_their_rows(db: Db, monkeypatch):
    """Periods whose rows are there become right, over an interruption too; the others stay."""
    steps = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: steps[:8])
    schema.migrate(MysqlUrl(db.url))
    one = new_hash()
    insert = (
        "INSERT INTO current_summation_delivered (time, received, device_time, node, meter, "
        "summation_delivered, summation_received, multiplier, divisor, run, hash, seq) "
        "VALUES (%s, %s, %s, %s, %s, %s, 0, 1, 1000, 'r', %s, %s)"
    )
    for day in range(40):
        for seq, value in enumerate((17_078_000 + 10 * day, 17_078_004 + 10 * day), 1):
            at = (T0 + timedelta(days=day, hours=seq)).replace(tzinfo=None)
            db(insert, at, at, at, NODE, METER, value, one, 2 * day + seq)
    old = (
        "INSERT INTO energy_rollup (period_s, node, meter, start, readings, delivered_kwh_min, "
        "delivered_kwh_max, received_kwh_min, received_kwh_max) VALUES (%s, %s, %s, %s, 2, 1, 2, 0, 0)"
    )
    db(old, 86400, NODE, METER, "2026-03-01 00:00:00")
    db(old, 86400, NODE, METER, "2024-01-01 00:00:00")
    monkeypatch.setattr(schema, "migrations", lambda: steps)
    schema.migrate(MysqlUrl(db.url))

    def stop() -> None:
        raise RetryableError("it was asked to stop")

    with pytest.raises(RetryableError), schema.maintenance(MysqlUrl(db.url)) as cursor:
        energy.recount(cursor, stop)
    ((counted_to,),) = db("SELECT counted_to FROM energy_meter")
    assert T0.replace(tzinfo=None) < counted_to < (T0 + timedelta(days=40)).replace(tzinfo=None)
    with closing(db.sink()) as sink:
        sink.prepare()
        days = [row for row in db(ENERGY) if row[0] == 86400]
        gone, first, second, *_ = days
        assert gone[2:] == (2, 1, 2, None, None)
        assert first[2:5] == (2, Decimal(17078), Decimal("17078.004"))
        assert [row[5] for row in (first, second)] == [Decimal("0.004"), Decimal("0.01")]
        assert len(days) == 41
        late = registers(new_hash(), 17_078_002, start=T0 + timedelta(hours=1, minutes=30))
        sink.store(late)
        again = [row for row in db(ENERGY) if row[0] == 86400]
        assert again[1][2:6] == (3, *first[3:6])
        old_month = registers(new_hash(), 5, start=datetime(2024, 1, 1, 5, tzinfo=UTC))
        sink.store(old_month)
        assert next(row for row in db(ENERGY) if row[0] == 86400)[3:] == gone[3:]


def test_a_claimed_time_and_a_negative_price_are_kept(db: Db, sink: MysqlSink):
    """A row goes by the reader's clock where the device's cannot be true, and says what that said."""
    claimed = datetime(2135, 12, 31, 23, 59, 58, tzinfo=UTC)
    one = new_hash()
    batch = [reading(one, 1, time=None, claimed_time=claimed), *registers(one, 5)]
    price = PriceCluster(
        device=None, meter=METER, time=None, claimed_time=claimed, price=-10, trailing_digits=3,
        price_per_kwh=-0.01,
    )  # fmt: skip
    batch[1] = Reading(
        msgspec.structs.replace(batch[1].envelope, seq=2),
        msgspec.structs.replace(batch[1].notification, time=None, claimed_time=claimed),
    )
    batch.append(Reading(Envelope(node=NODE, run="r", hash=one, seq=3, received=T0), price))
    sink.store(batch)
    for table, item in zip(
        ("instantaneous_demand", "current_summation_delivered", "price_cluster"), batch, strict=True
    ):
        ((time, said),) = db(f"SELECT time, claimed_time FROM {table}")  # noqa: S608
        assert time == item.envelope.received.replace(microsecond=0, tzinfo=None)
        assert said == claimed.replace(tzinfo=None)
        ((text,),) = db(f"SELECT {readings.selected(table)} FROM {table}")  # noqa: S608
        back = readings.reading(table, readings.record(table, text))
        assert rows.reading_row(back) == rows.reading_row(item)
        assert back.notification.claimed_time == claimed
    assert db("SELECT price, price_per_kwh FROM price_cluster") == ((-10, Decimal("-0.01")),)
