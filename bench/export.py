"""What an export needs in memory, and how fast it is, in each format."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import growth
import system
from raven_harness.stack import BIN, MariaDb, peak_bytes
from results import Row

READINGS: Final = (150_000, 450_000)
AIM: Final = 1.15

TEXT: Final = f"""\
## Export

`raven-export` of {READINGS[1]:,} demands from MariaDB, and of {READINGS[0]:,} beside it: the highest resident
set (RSS) of the process in MB, and its readings a second with the start of Python.
The ratio is of the memory, and the aim is that it does not grow.
A process that has only imported pyarrow stands below: what is left of Parquet without our code.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    found = []
    with system.folder() as folder:
        mariadb = MariaDb(folder)
        with system.started(mariadb):
            url = mariadb.database()
            end = datetime.now(UTC).replace(microsecond=0)
            growth.fill(mariadb, url, READINGS[1], end)
            for format_ in ("csv", "jsonl", "parquet"):
                few, many = (_export(url, folder / f"{n}.{format_}", end, n) for n in READINGS)
                found.append(
                    Row(
                        f"export as {format_}, {READINGS[1]:,} readings",
                        f"{many[0]:.0f} MB, {READINGS[1] / many[1]:,.0f}/s",
                        f"{few[0]:.0f} MB ({READINGS[0]:,} readings)",
                        many[0] / few[0],
                        AIM,
                        at_most=True,
                    )
                )
    only, _ = _run([sys.executable, "-c", "import pyarrow.parquet, pyarrow.csv"], {})
    return [*found, Row("pyarrow alone, imported", "", f"{only:.0f} MB")]


def _export(url: str, file: Path, end: datetime, readings: int) -> tuple[float, float]:
    """Export the last readings; return the peak in MB, and the seconds."""
    start = end - timedelta(seconds=growth.EVERY_S * readings)
    command = [str(BIN / "raven-export"), "--from", start.isoformat(), "--to", end.isoformat()]
    command += ["--kind", "instantaneous_demand", str(file)]
    return _run(command, {"MYSQL_URL": url})


def _run(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        peak = peak_bytes(process)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return peak / 1e6, time.perf_counter() - started
