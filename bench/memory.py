"""Resident memory of both services, idle and at work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

import system
from raven_harness.stack import Mongo, Process, free_port, metric, reader, recorder, simulator
from results import Row

IDLE_S: Final = 10.0
LOAD_S: Final = 20.0
REPORTS_PER_S: Final = 50
MESSAGES: Final = 20_000
READER_AIM_MB: Final = 40.0
RECORDER_AIM_MB: Final = 60.0
LOOK_S: Final = 0.2
MB: Final = 1e6
_DRIVERS: Final = {
    "reader": "paho.mqtt.client, msgspec, prometheus_client, serial, sqlite3, tenacity",
    "recorder": "paho.mqtt.client, msgspec, prometheus_client, pymongo, tenacity",
}

TEXT: Final = f"""\
## Memory

Resident set (RSS) of each process in MB of a million bytes, the largest of the looks taken each
{LOOK_S} s; in brackets the proportional set (PSS), which counts a page shared with other
processes by its share.
The aim is held against RSS, which is the larger: {READER_AIM_MB:.0f} MB for the reader,
{RECORDER_AIM_MB:.0f} MB for the recorder, and the ratio is to that aim.

- *reader, idle*: {IDLE_S:.0f} s with a simulated stick at its real pace;
- *reader, at work*: {LOAD_S:.0f} s with {REPORTS_PER_S} reports a second, 400 times the real pace,
  all of them recorded meanwhile;
- *recorder, idle*: {IDLE_S:.0f} s connected, with that stick's few messages;
- *recorder, at work*: while it empties a queue of {MESSAGES:,} readings.

Metrics are served in all of them.
Beside each stands a Python process that has only imported the same drivers: what is left when
our code and its work are taken away.
The recorder runs without the package `cryptography`, as where it is installed alone: pymongo
imports that package if the writer beside it has brought it, and is then about 10 MB larger.
"""

_HIDE: Final = "import sys\nsys.modules['cryptography'] = None\n"


def run() -> list[Row]:
    """Measure and return the rows."""
    found: dict[str, tuple[float, float]] = {}
    with system.folder() as folder:
        broker = system.broker(folder)
        mongo = Mongo(folder)
        link = folder / "stick"
        port = free_port()
        url = broker.url("mongo-recorder")
        consumer = recorder(folder, url, mongo.url, RAVEN_METRICS_PORT=str(port))
        main = "from raven_mongo_recorder.main import main\nsys.exit(main())"
        consumer.command = [sys.executable, "-c", _HIDE + main]
        producer = reader(
            folder,
            str(link),
            broker.url(system.NODE),
            system.NODE,
            RAVEN_METRICS_PORT=str(free_port()),
        )
        calm = simulator(folder, "--pty", str(link), name="calm")
        busy = simulator(folder, "--pty", str(link), "--rate", str(REPORTS_PER_S), name="busy")
        with system.started(broker, mongo):
            with system.started(consumer, calm, producer):
                _connected(port)
                found["reader, idle"] = _largest(producer, IDLE_S)
                found["recorder, idle"] = _largest(consumer, IDLE_S)
            with system.started(consumer, busy, producer):
                _connected(port)
                before = metric(port, "raven_stored_total") or 0
                found["reader, at work"] = _largest(producer, LOAD_S)
                stored = (metric(port, "raven_stored_total") or 0) - before
                if stored < LOAD_S * REPORTS_PER_S / 2:
                    raise RuntimeError(f"only {stored} readings came in {LOAD_S} s")
            spool = folder / "spool.sqlite"
            system.filled_spool(spool, MESSAGES, seed=1)
            system.client("send", broker.url(system.NODE), spool)
            with system.started(consumer):
                found["recorder, at work"] = _largest(
                    consumer, system.LIMIT_S, lambda: _stored(port) >= MESSAGES
                )
    floors = {name: _floor(modules) for name, modules in _DRIVERS.items()}
    aims = {"reader": READER_AIM_MB, "recorder": RECORDER_AIM_MB}
    rows = []
    for name in ("reader, idle", "reader, at work", "recorder, idle", "recorder, at work"):
        service = name.split(",")[0]
        rss, pss = found[name]
        rows.append(
            Row(
                f"memory: {name}, MB",
                f"{rss:.1f} ({pss:.1f})",
                "aim {:.0f}; drivers alone {:.1f} ({:.1f})".format(aims[service], *floors[service]),
                rss / aims[service],
                1.0,
                at_most=True,
            )
        )
    return rows


def _largest(
    process: Process, for_s: float, ended: Callable[[], bool] = lambda: False
) -> tuple[float, float]:
    """Return the largest RSS and PSS in MB over a time, or until something has ended."""
    watched = psutil.Process(process.pid)
    rss = pss = 0.0
    end = time.monotonic() + for_s
    while time.monotonic() < end and not ended():
        memory = watched.memory_full_info()
        rss, pss = max(rss, memory.rss / MB), max(pss, memory.pss / MB)
        time.sleep(LOOK_S)
    return rss, pss


def _connected(port: int) -> None:
    system.connected(port)
    system.wait_until(lambda: _stored(port) > 0, "readings come")


def _stored(port: int) -> float:
    return metric(port, "raven_stored_total") or 0


def _floor(modules: str) -> tuple[float, float]:
    """Return RSS and PSS in MB of a process that has imported modules and waits."""
    command = [sys.executable, "-c", f"{_HIDE}import {modules}\nprint(flush=True)\ninput()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path("/")) as process:
        if process.stdout is None:
            raise RuntimeError("the pipe was asked for")
        process.stdout.readline()
        memory = psutil.Process(process.pid).memory_full_info()
        process.communicate(b"\n")
    return memory.rss / MB, memory.pss / MB
