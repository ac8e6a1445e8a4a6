"""Processor time that each service takes from its start until it is ready."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Final

import psutil

import drivers
import system
from raven_harness.stack import (
    Mongo,
    Process,
    free_port,
    reader,
    recorder,
    simulator,
    sql_relay,
    sql_writer,
)
from results import Row, at_most

ROUNDS: Final = 5
AIM_S: Final = 0.15
READY: Final = "connected to the broker"

TEXT: Final = f"""\
## Start: until a service is ready

Processor time of each process from its start until its log says that it is {READY};
stores and tables are there, bytecode is compiled; median of {ROUNDS}.
Beside each stands a Python process that imports the drivers that it needs and ends, without what
those would import beside them (`cryptography`): what is left when our code is taken away.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    with system.folder() as folder:
        broker, server, mongo = system.broker(folder), system.mariadb(folder), Mongo(folder)
        link = folder / "stick"
        with system.started(broker, server, mongo, simulator(folder, "--pty", str(link))):
            database, port = server.database(), {"RAVEN_METRICS_PORT": str(free_port())}
            services = {
                "reader": reader(folder, str(link), broker.url(system.NODE), system.NODE, **port),
                "writer": sql_writer(folder, broker.url("sql-writer"), database, **port),
                "recorder": recorder(folder, broker.url("mongo-recorder"), mongo.url, **port),
                "relay": sql_relay(folder, database, broker.url("sql-writer"), **port),
            }
            return [_row(name, service) for name, service in services.items()]


def _row(name: str, service: Process) -> Row:
    _cpu_s(service)  # The first start makes tables and files.
    taken = [_cpu_s(service) for _ in range(ROUNDS)]
    alone = median(_cpu_alone_s(name) for _ in range(ROUNDS))
    row = at_most(f"start: {name}, CPU", taken, AIM_S, "s", 2)
    return replace(row, beside=f"{row.beside}; drivers alone {alone:.2f} s")


def _cpu_alone_s(name: str) -> float:
    before = os.times()
    subprocess.run(drivers.command(name), check=True)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def _cpu_s(service: Process) -> float:
    with system.started(service):
        system.wait_until(partial(_is_ready, service), "the service is ready", 0.01)
        return float(sum(psutil.Process(service.pid).cpu_times()[:2]))


def _is_ready(service: Process) -> bool:
    return READY in service.said()
