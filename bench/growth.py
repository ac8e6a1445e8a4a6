"""What ten years of one meter cost: the same work at 1, 10 and 40 million rows."""

from __future__ import annotations

import math
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import pymysql  # type: ignore[import-untyped]

import system
from raven_harness.stack import BIN, MariaDb
from ravenbus.messages import Envelope, Reading
from ravenbus.months import Month
from ravenbus.notifications import InstantaneousDemand
from ravensql import schema
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from results import Row

EVERY_S: Final = 8
INSERTED: Final = 20_000
BATCH: Final = 500
REPEATS: Final = 5
AIM: Final = 1.3
NODE: Final = "house"
METER: Final = "0013500100abcdef"

TEXT: Final = f"""\
## Growth: ten years of one meter

Each database holds as many demands as the row says, one each {EVERY_S} s up to now, in their monthly
partitions with all indexes, and their roll-ups; the server has 256 MiB for its cache, a
fraction of the largest, and writes each commit to the disk.

- *insert*: {INSERTED:,} new readings through the writer's sink, {BATCH} at a time;
- *last day*: average and maximum of each hour of the last 24 from the view `demand`, and
- *every day*: the daily means of the whole history from `demand_rollup`, each the median of
  {REPEATS} after one to warm up; the second returns a line for each day, so its answer grows;
- *archive of a month*: the oldest whole month, with `raven-sql-writer archive`: written,
  checked row by row against the table, dropped; a month is {30 * 86400 // EVERY_S:,} rows at every size.

The ratio is to the smallest database, and the aim holds for all but the archive.
"""

LOAD: Final = """
INSERT INTO instantaneous_demand
  (time, received, device_time, node, device, meter, demand, multiplier, divisor, digits_right,
   digits_left, suppress_leading_zero, run, hash, seq, rolled_up)
SELECT FROM_UNIXTIME(%(start)s + {every} * seq), FROM_UNIXTIME(%(start)s + {every} * seq + 0.321),
  FROM_UNIXTIME(%(start)s + {every} * seq), '{node}', 'd8d5b90000001234', '{meter}',
  300 + (seq * 7919) %% 4000, 1, 1000, 3, 15, TRUE, 'default', %(hash)s, seq, TRUE
FROM seq_{first}_to_{last}
"""
ROLL_UP: Final = """
INSERT INTO demand_rollup (period_s, node, meter, start, readings, sum_kw, min_kw, max_kw)
SELECT {period}, '{node}', '{meter}', FROM_UNIXTIME((%s DIV {period} + seq) * {period}), {period} DIV 8, 2.3 * {period} / 8, 0.3, 4.3
FROM seq_0_to_{last}
"""
LAST_DAY: Final = """
SELECT DATE_FORMAT(time, '%Y-%m-%d %H:00'), AVG(demand_kw), MAX(demand_kw) FROM demand
WHERE time >= NOW() - INTERVAL 1 DAY GROUP BY 1
"""
EVERY_DAY: Final = "SELECT start, mean_kw FROM demand_rollup WHERE period_s = 86400 ORDER BY start"


def run(millions: Sequence[float]) -> list[Row]:
    """Measure databases of so many million demands, and return the rows."""
    found: dict[float, dict[str, float]] = {}
    for size in millions:
        with system.folder() as folder:
            mariadb = server(folder)
            with system.started(mariadb):
                found[size] = _measured(folder, mariadb, int(size * 1e6))
    least = millions[0]
    return [
        _row(f"growth, {name}, {size:g} million rows", found[size][name], least, found[least][name])
        for name in found[least]
        for size in millions[1:]
    ]


def server(folder: Path) -> MariaDb:
    """Return a server whose cache is a fraction of the largest database."""
    return MariaDb(folder, "--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M")


def _row(name: str, found: float, least: float, found_at_least: float) -> Row:
    return Row(
        name,
        _shown(found),
        f"at {least:g} million: {_shown(found_at_least)}",
        found / found_at_least,
        None if name.startswith("growth, archive") else AIM,
        at_most=True,
    )


def _shown(seconds: float) -> str:
    units = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    unit = next((u for u, least in units.items() if seconds >= least), "us")
    return f"{seconds / units[unit]:.1f} {unit}"


def _measured(folder: Path, server: MariaDb, size: int) -> dict[str, float]:
    """Return the seconds that each kind of work takes in a database of a size."""
    url = server.database()
    end = datetime.now(UTC).replace(microsecond=0)
    fill(server, url, size, end)
    with connected(server, url) as cursor:
        found = {
            "last day": _asked(cursor, LAST_DAY),
            "every day": _asked(cursor, EVERY_DAY),
        }
        days = cursor.execute(EVERY_DAY)
    found["every day, for each day of the answer"] = found["every day"] / days
    found["insert"] = _inserted(url, end)
    month = Month.of(end - timedelta(seconds=EVERY_S * size)).later(1)
    started = time.perf_counter()
    subprocess.run(
        [BIN / "raven-sql-writer", "archive", str(month)],
        check=True,
        capture_output=True,
        env={**os.environ, "MYSQL_URL": url, "RAVEN_SQL_ARCHIVE": str(folder / "archive")},
    )
    found["archive of a month"] = time.perf_counter() - started
    return found


def fill(server: MariaDb, url: str, size: int, end: datetime) -> None:
    """Have a database hold so many demands up to a time, in one run, with their roll-ups."""
    start = int(end.timestamp()) - EVERY_S * size
    hash_ = str(uuid.uuid4())
    schema.migrate(MysqlUrl(url))
    with connected(server, url) as cursor:
        # A row of the oldest day has the partitions made from there on.
        load = LOAD.format(every=EVERY_S, node=NODE, meter=METER, first=1, last=1)
        cursor.execute(load, {"start": start, "hash": hash_})
        with closing(MysqlSink(MysqlUrl(url))) as sink:
            sink.prepare()
        cursor.execute("SET SESSION unique_checks = 0")
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        step = 200_000
        for first in range(2, size + 1, step):
            last = min(first + step - 1, size)
            load = LOAD.format(every=EVERY_S, node=NODE, meter=METER, first=first, last=last)
            cursor.execute(load, {"start": start, "hash": hash_})
        for period in (300, 3600, 86400):
            last = math.ceil(EVERY_S * size / period)
            cursor.execute(
                ROLL_UP.format(period=period, node=NODE, meter=METER, last=last), (start,)
            )
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        cursor.execute("ANALYZE TABLE instantaneous_demand, demand_rollup")
        cursor.fetchall()


def _asked(cursor: Any, query: str) -> float:
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        cursor.execute(query)
        cursor.fetchall()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def _inserted(url: str, end: datetime) -> float:
    hash_ = str(uuid.uuid4())
    batches = [
        [reading(hash_, seq, end) for seq in range(first, first + BATCH)]
        for first in range(1, INSERTED + 1, BATCH)
    ]
    with closing(MysqlSink(MysqlUrl(url))) as sink:
        sink.prepare()
        started = time.perf_counter()
        for batch in batches:
            sink.store(batch)
        return time.perf_counter() - started


def reading(hash_: str, seq: int, end: datetime) -> Reading:
    at = end + timedelta(seconds=seq)
    demand = InstantaneousDemand(
        device=None,
        meter=METER,
        time=at,
        demand=seq,
        multiplier=1,
        divisor=1000,
        demand_kw=seq / 1e3,
    )
    return Reading(Envelope(node=NODE, run="r", hash=hash_, seq=seq, received=at), demand)


@contextmanager
def connected(server: MariaDb, url: str) -> Iterator[Any]:
    """Lend the administrator's cursor, in UTC, each statement committed."""
    connection = pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user="admin",
        password=server.password,
        database=MysqlUrl(url).database,
        autocommit=True,
        init_command="SET time_zone = '+00:00'",
    )
    with closing(connection):
        yield connection.cursor()
