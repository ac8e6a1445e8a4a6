"""Resident memory of the services, idle and at work."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import psutil

import drivers
import system
from raven_harness.stack import (
    Mongo,
    Process,
    free_port,
    metric,
    reader,
    recorder,
    simulator,
    sql_relay,
    sql_writer,
)
from results import Row

IDLE_S: Final = 10.0
LOAD_S: Final = 20.0
REPORTS_PER_S: Final = 50
MESSAGES: Final = 20_000
LOOK_S: Final = 0.2
MB: Final = 1e6
AIMS_MB: Final = {"reader": 28.0, "recorder": 45.0, "writer": 36.0, "relay": 34.0}

TEXT: Final = f"""\
## Memory

Resident set (RSS) of each process in MB of a million bytes, the largest of the looks taken each
{LOOK_S} s; in brackets the proportional set (PSS), which counts a page shared with other
processes by its share.
The ratio is of RSS, which is the larger, to the aim.

- *idle*: {IDLE_S:.0f} s with a simulated stick at its real pace;
- *at work*: {LOAD_S:.0f} s with {REPORTS_PER_S} reports a second, 400 times the real pace, all of them stored and
  relayed meanwhile; of recorder and writer also while they empty queues of {MESSAGES:,} readings.

Metrics are served in all of them.
Beside each stands a Python process that has only imported the same drivers, without what those
would import beside it (`cryptography`): what is left when our code and its work are taken away.
A store at work holds the messages of two batches, and the rows or documents made of one.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    found: dict[str, tuple[float, float]] = {}
    with system.folder() as folder:
        broker, server, mongo = system.broker(folder), system.mariadb(folder), Mongo(folder)
        link, home = folder / "stick", broker.url(system.NODE)
        calm = simulator(folder, "--pty", str(link), name="calm")
        busy = simulator(folder, "--pty", str(link), "--rate", str(REPORTS_PER_S), name="busy")
        with system.started(broker, server, mongo):
            database = server.database()
            ports = {name: free_port() for name in AIMS_MB}
            serve = {name: {"RAVEN_METRICS_PORT": str(port)} for name, port in ports.items()}
            writer_url, recorder_url = map(broker.url, ("sql-writer", "mongo-recorder"))
            services = {
                "reader": reader(folder, str(link), home, system.NODE, **serve["reader"]),
                "recorder": recorder(folder, recorder_url, mongo.url, **serve["recorder"]),
                "writer": sql_writer(folder, writer_url, database, **serve["writer"]),
                "relay": sql_relay(folder, database, writer_url, **serve["relay"]),
            }
            stores = {name: services[name] for name in ("recorder", "writer")}
            for state, stick, for_s in (("idle", calm, IDLE_S), ("at work", busy, LOAD_S)):
                with system.started(*stores.values(), stick, services["reader"], services["relay"]):
                    for name in stores:
                        system.connected(ports[name])
                        system.wait_until(partial(_has_stored, ports[name], 1), "readings come")
                    before = {name: _stored(ports[name]) for name in stores}
                    found |= _largest(state, services, for_s)
                    least = min(_stored(ports[name]) - before[name] for name in stores)
                    if stick is busy and least < LOAD_S * REPORTS_PER_S / 2:
                        raise RuntimeError(f"only {least} readings came in {LOAD_S} s")
            spool = folder / "spool.sqlite"
            system.filled_spool(spool, MESSAGES, seed=1)
            system.client("send", home, spool)
            for name, store in stores.items():
                with system.started(store):
                    emptied = partial(_has_stored, ports[name], MESSAGES)
                    queue = _largest("at work", {name: store}, system.LIMIT_S, emptied)
                found |= {state: max(found[state], largest) for state, largest in queue.items()}
    rows = []
    for name, aim in AIMS_MB.items():
        floor = _floor(name)
        for state in ("idle", "at work"):
            rss, pss = found[f"{name}, {state}"]
            rows.append(
                Row(
                    f"memory: {name}, {state}, MB",
                    f"{rss:.1f} ({pss:.1f})",
                    "aim {:.0f}; drivers alone {:.1f} ({:.1f})".format(aim, *floor),
                    rss / aim,
                    1.0,
                    at_most=True,
                )
            )
    return rows


def _largest(
    state: str,
    services: Mapping[str, Process],
    for_s: float,
    ended: Callable[[], bool] = lambda: False,
) -> dict[str, tuple[float, float]]:
    """Return the largest RSS and PSS in MB of each over a time, or until something has ended."""
    watched = {f"{name}, {state}": psutil.Process(one.pid) for name, one in services.items()}
    found = dict.fromkeys(watched, (0.0, 0.0))
    end = time.monotonic() + for_s
    while time.monotonic() < end and not ended():
        for name, process in watched.items():
            memory = process.memory_full_info()
            rss, pss = found[name]
            found[name] = max(rss, memory.rss / MB), max(pss, memory.pss / MB)
        time.sleep(LOOK_S)  # nothing says when memory is at its most
    return found


def _has_stored(port: int, count: int) -> bool:
    return _stored(port) >= count


def _stored(port: int) -> float:
    return metric(port, "raven_stored_total") or 0


def _floor(service: str) -> tuple[float, float]:
    """Return RSS and PSS in MB of a process that has imported a service's drivers and waits."""
    pipe, command = subprocess.PIPE, drivers.command(service, "print(flush=True)\ninput()")
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path("/")) as process:
        if process.stdout is None:
            raise RuntimeError("the pipe was asked for")
        process.stdout.readline()
        memory = psutil.Process(process.pid).memory_full_info()
        process.communicate(b"\n")
    return memory.rss / MB, memory.pss / MB
