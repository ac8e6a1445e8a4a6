"""From the tables to the upstream broker's PUBACK."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import system
from raven_harness.stack import Broker, MariaDb, Process, free_port, sql_relay
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from results import Row, at_most, compared, percentiles

ROUNDS: Final = 5
MESSAGES: Final = 20_000
WINDOW: Final = 100
AIM: Final = 0.8
CPU_AIM_US: Final = 70
POLL_S: Final = 0.05
SINGLES: Final = 200
LATENCY_AIM_MS: Final = 1000.0

TEXT: Final = f"""\
## Relay: from the tables to PUBACK

{MESSAGES:,} readings are stored by the writer's sink in MariaDB, in the tables with all their
indexes; then a relay is started, and its own metrics are read every {POLL_S * 1000:.0f} ms: the rate is that
between the first look that finds a row taken and the one that finds all, and so is the CPU time of
its process, in which these looks are.
Every row is read, made into the contract's message and checked against it, published, and marked
in the table after its PUBACK; median of {ROUNDS} rounds.
Where our time goes, by samples of the relay's stacks: a third is waiting for MariaDB's next block and
for the broker's window, 19 % making messages of rows, 13 % publishing; the rest is the network's
thread.  What stands beside it has its payloads in memory, and marks nothing.
Beside it *bare paho*: a process that publishes the same payloads to the same topics from memory
with QoS 1 and the same window ({WINDOW}).
A third process subscribes in both, and MariaDB shares the machine's two cores with them.

The time for one new row is from its commit until a process that subscribes has it, which the
broker tells before the relay has the PUBACK; {SINGLES} rows, one after another, at no particular
moment of the relay's looks at the tables.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    rates: dict[str, list[float]] = defaultdict(list)
    cpu_us: list[float] = []
    with system.folder() as folder:
        broker, server = system.broker(folder), system.mariadb(folder)
        listener = Process(
            "listener",
            system.client_command("listen", broker.url("watcher"), system.READINGS),
            folder,
        )
        with system.started(broker, server, listener):
            for number in range(ROUNDS):
                spool = folder / f"spool-{number}.sqlite"
                system.filled_spool(spool, MESSAGES, seed=number)
                measures = {
                    "ours": partial(_relay, folder, broker, server, spool, cpu_us),
                    "paho": partial(_paho, broker, spool),
                }
                for name, rate in system.in_turn(measures, number).items():
                    rates[name].append(rate)
        with system.started(broker, server):
            found = _singles(folder, broker, server)
    what = "relay, tables to PUBACK, rows/s"
    return [
        compared(what, rates["ours"], "bare paho from memory", rates["paho"], AIM),
        at_most("relay, CPU a row", cpu_us, CPU_AIM_US, "us"),
        *percentiles("relay, commit to a subscriber", found, LATENCY_AIM_MS, LATENCY_AIM_MS),
    ]


def _relay(
    folder: Path, broker: Broker, server: MariaDb, spool: Path, cpu_us: list[float]
) -> float:
    url, port = server.database(), free_port()
    with closing(MysqlSink(MysqlUrl(url))) as sink:
        sink.prepare()
        readings = system.readings_in(spool)
        for start in range(0, len(readings), 500):
            sink.store(readings[start : start + 500])
    relay = sql_relay(
        folder,
        url,
        broker.url(system.NODE),
        RAVEN_WINDOW=str(WINDOW),
        RAVEN_METRICS_PORT=str(port),
    )
    per_s, one_us = system.rate(relay, port, "raven_taken_total", MESSAGES, POLL_S)
    cpu_us.append(one_us)
    return per_s


def _paho(broker: Broker, spool: Path) -> float:
    found = system.client("load", broker.url(system.NODE), spool, WINDOW)
    if found["taken"] != MESSAGES:
        raise RuntimeError(f"{found['taken']} of {MESSAGES} readings were taken")
    return MESSAGES / float(found["seconds"])


def _singles(folder: Path, broker: Broker, server: MariaDb) -> list[float]:
    """Return the seconds from the commit of one row to its arrival at a subscriber."""
    url = server.database()
    relay = sql_relay(folder, url, broker.url(system.NODE))
    arrived: dict[int, float] = {}
    came = threading.Event()

    def receive(payload: bytes) -> None:
        arrived[json.loads(payload)["seq"]] = time.perf_counter()
        came.set()

    times: list[float] = []
    with closing(MysqlSink(MysqlUrl(url))) as sink:
        sink.prepare()
        spool = folder / "singles.sqlite"
        system.filled_spool(spool, SINGLES, seed=1)
        heard = system.subscriber(broker.url("watcher"), system.READINGS, receive)
        with heard, system.started(relay):
            for reading in system.readings_in(spool):
                came.clear()
                sink.store([reading])
                committed = time.perf_counter()
                if not came.wait(system.LIMIT_S):
                    raise TimeoutError("the row arrives")
                times.append(arrived[reading.envelope.seq] - committed)
                # The next commit falls anywhere between two looks of the relay.
                time.sleep(reading.envelope.seq % 37 / 100)
    return times[1:]
