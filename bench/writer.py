"""From a full queue at the broker to committed rows."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Final

import pymysql  # type: ignore[import-untyped]

import system
from raven_harness.stack import Broker, MariaDb, free_port, sql_writer
from ravenbus.messages import Reading
from ravensql import rows, schema
from ravensql.readback import MysqlStore
from ravensql.settings import MysqlUrl
from results import Row, at_most, compared

ROUNDS: Final = 5
MESSAGES: Final = 20_000
BATCH: Final = 500
WINDOW: Final = 2 * BATCH
AIM: Final = 0.9
CPU_AIM_US: Final = 60
POLL_S: Final = 0.05

TEXT: Final = f"""\
## Writer: from a full queue to committed rows

{MESSAGES:,} readings wait at the broker in the writer's session; median of {ROUNDS} rounds.
The writer's process is started and its own metrics are read every {POLL_S * 1000:.0f} ms;
the rate is that between the first look that finds something stored and the one that finds all,
and so is the CPU time of its process, in which these looks are.

Two ceilings, each in its own turn of the same round, of which the slower one counts:

- *bare paho*: a process that receives the same messages from a session of its own with the same
  Receive Maximum ({WINDOW}), acknowledges each by hand and does nothing else;
- *bare PyMySQL*: `executemany` of the same rows, ready made, into the same tables with the same
  indexes and partitions, committed every {BATCH} messages; no MQTT, no roll-ups, no run.

MariaDB writes each commit to the disk.
Where our time goes, by samples of the writer's stacks: a quarter is talk with MariaDB, 16 % reading
and checking messages, 14 % the text of statements, 13 % the roll-ups of demand and energy, which
neither ceiling has, and 19 % what else keeps a reading once: its run, its number, what is there.
Broker, writer and database share the machine's cores, and so does each ceiling with its server.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    rates: dict[str, list[float]] = defaultdict(list)
    cpu_us: list[float] = []
    with system.folder() as folder:
        broker, server = system.broker(folder), system.mariadb(folder)
        with system.started(broker, server):
            for number in range(ROUNDS):
                for name, rate in _round(folder, broker, server, number, cpu_us).items():
                    rates[name].append(rate)
    rates["slower"] = [min(both) for both in zip(rates["paho"], rates["pymysql"], strict=True)]
    what = "writer, messages/s"
    return [
        compared(what, rates["ours"], "the slower of the two", rates["slower"], AIM),
        compared(what, rates["ours"], "bare paho", rates["paho"]),
        compared(what, rates["ours"], "bare PyMySQL", rates["pymysql"]),
        at_most("writer, CPU a message", cpu_us, CPU_AIM_US, "us"),
    ]


def _round(
    folder: Path, broker: Broker, server: MariaDb, number: int, cpu_us: list[float]
) -> dict[str, float]:
    port, url = free_port(), broker.url("sql-writer")
    stored, ceiling = server.database(), server.database()
    ours = sql_writer(
        folder, url, stored, RAVEN_METRICS_PORT=str(port), RAVEN_BATCH_SIZE=str(BATCH)
    )
    spool = folder / f"spool-{number}.sqlite"
    system.filled_spool(spool, MESSAGES, seed=number)
    system.queued(ours, port, url, broker, spool, MESSAGES, WINDOW)
    readings = system.readings_in(spool)

    def run_ours() -> float:
        per_s, one_us = system.rate(ours, port, "raven_stored_total", MESSAGES, POLL_S)
        cpu_us.append(one_us)
        return per_s

    ceilings = {
        "paho": lambda: system.drained(url, MESSAGES, WINDOW),
        "pymysql": lambda: _executemany(ceiling, readings),
        "ours": run_ours,
    }
    found = system.in_turn(ceilings, number)
    with closing(MysqlStore(MysqlUrl(stored))) as store:
        held = store.holding(readings[0].envelope.hash).held
    if held != [(1, MESSAGES)]:
        raise RuntimeError(f"of {MESSAGES} readings these are stored: {held}")
    return found


def _executemany(database: str, readings: list[Reading]) -> float:
    """Insert the rows as the writer does, by table within each batch."""
    url = MysqlUrl(database)
    schema.migrate(url)
    batches: list[dict[str, list[rows.Row]]] = []
    for start in range(0, MESSAGES, BATCH):
        tables: dict[str, list[rows.Row]] = defaultdict(list)
        for reading in readings[start : start + BATCH]:
            row = rows.reading_row(reading)
            tables[row.table].append(row.values)
        batches.append(tables)
    account = {"user": url.user, "password": url.password, "database": url.database}
    with closing(pymysql.connect(**url.addresses[0]._asdict(), **account)) as connection:
        cursor = connection.cursor()
        start_s = time.perf_counter()
        for tables in batches:
            for table, values in tables.items():
                cursor.executemany(rows.INSERTS[table], values)
            connection.commit()
        return MESSAGES / (time.perf_counter() - start_s)
