"""How long one reading takes from the stick's line to a committed row."""

from __future__ import annotations

import os
import random
import time
import tty
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import Final

import pymysql  # type: ignore[import-untyped]

import system
from raven_harness.stack import free_port, reader, sql_writer
from ravensql.settings import MysqlUrl
from results import Row, percentiles

READINGS: Final = 300
PAUSE_S: Final = 0.3
"""Longest pause between a row and the next reading."""
LOOK_S: Final = 0.0005
P50_AIM_MS, P99_AIM_MS = 15.0, 40.0
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
FRAGMENT: Final = (
    "<InstantaneousDemand>\r\n  <DeviceMacId>0xd8d5b9000000abcd</DeviceMacId>\r\n"
    "  <MeterMacId>0x00135003000abcde</MeterMacId>\r\n  <TimeStamp>{time:#010x}</TimeStamp>\r\n"
    "  <Demand>{demand:#010x}</Demand>\r\n  <Multiplier>0x00000001</Multiplier>\r\n"
    "  <Divisor>0x000003e8</Divisor>\r\n  <DigitsRight>0x03</DigitsRight>\r\n"
    "  <DigitsLeft>0x06</DigitsLeft>\r\n  <SuppressLeadingZero>Y</SuppressLeadingZero>\r\n"
    "</InstantaneousDemand>\r\n"
)

TEXT: Final = f"""\
## Latency: from the line to the row

Reader, Mosquitto, writer and MariaDB, each commit of spool and database on the disk.
A demand is written to the reader's serial line, at once or up to {PAUSE_S:.1f} s after the last one's row was
committed, and the table is looked at each {LOOK_S * 1000:.1f} ms until it has it; {READINGS} times.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    with system.folder() as folder:
        broker, server = system.broker(folder), system.mariadb(folder)
        stick, line = os.openpty()
        tty.setraw(line)
        with system.started(broker, server):
            database, port = server.database(), free_port()
            writer = sql_writer(
                folder, broker.url("sql-writer"), database, RAVEN_METRICS_PORT=str(port)
            )
            producer = reader(folder, os.ttyname(line), broker.url(system.NODE), system.NODE)
            with system.started(writer, producer):
                system.connected(port)
                found = _times(stick, MysqlUrl(database))
        os.close(line)
        os.close(stick)
    return percentiles("line to row", found, P50_AIM_MS, P99_AIM_MS)


def _times(stick: int, url: MysqlUrl) -> list[float]:
    """Return the seconds from the last byte of each reading to its row."""
    account = {"user": url.user, "password": url.password, "database": url.database}
    chance = random.Random(1)
    found = []
    with (
        closing(pymysql.connect(**url.addresses[0]._asdict(), autocommit=True, **account)) as asked,
        asked.cursor() as cursor,
    ):

        def arrived(count: int) -> bool:
            cursor.execute("SELECT COUNT(*) FROM instantaneous_demand")
            return bool(cursor.fetchall() == ((count,),))

        _write(stick, 0)  # The first makes the run known.
        system.wait_until(partial(arrived, 1), "the first row")
        for number in range(1, READINGS + 1):
            # Alone, or while the store rests after the last one.
            time.sleep(chance.choice([0.0, chance.uniform(0, PAUSE_S)]))
            began = _write(stick, number)
            system.wait_until(partial(arrived, number + 1), "the row", LOOK_S)
            found.append(time.perf_counter() - began)
    return found


def _write(stick: int, number: int) -> float:
    """Write a demand to the line and return when its last byte was written."""
    seconds = int((datetime.now(UTC) - EPOCH).total_seconds())
    os.write(stick, FRAGMENT.format(time=seconds, demand=number).encode())
    return time.perf_counter()
