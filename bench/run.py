"""Measures, prints a table of each bench, and writes its part of docs/performance.md.

``.venv/bin/python bench/run.py [decode|recorder|publisher|writer|...] [--rows 1 10 40]``
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Final

import psutil

import decode
import disk
import export
import growth
import history
import latency
import memory
import publisher
import recorder
import relay
import size
import start
import stores
import writer
from raven_harness.stack import PEERS_LOCK, tool
from results import table

BENCHES: Final[dict[str, ModuleType]] = {
    "decode": decode,
    "recorder": recorder,
    "publisher": publisher,
    "writer": writer,
    "stores": stores,
    "relay": relay,
    "latency": latency,
    "growth": growth,
    "history": history,
    "export": export,
    "memory": memory,
    "start": start,
    "size": size,
    "disk": disk,
}
BY_ROWS: Final = ("growth", "history")
MILLIONS: Final = (1.0, 10.0, 40.0)
PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BUSY_LOOK_S: Final = 3.0
PACKAGES: Final = ("paho-mqtt", "pymongo", "PyMySQL", "msgspec", "SecantusDB")

HEAD: Final = """\
# Performance

Written by `bench/run.py`; run it on your machine rather than believe another's numbers.
Each number stands beside a ceiling or a peer that was measured in the same run on the same
machine: the ratio is what carries over, the absolute number is not.
Where brackets follow a ratio it is the median of the rounds, in brackets the lowest and highest.
A real stick sends one reading in 8 seconds, so one reader or recorder has far more than it needs;
the numbers matter when a queue has to be emptied after an outage.
"""

TAIL: Final = """\
## Not measured

- Real serial hardware, a network between the parts, TLS.
- MongoDB itself: SecantusDB stands in for it, and another database moves the recorder's ceiling.
- History from MongoDB: times of its stand-in would say nothing of it.
- A broker that writes its file at each change: the benches leave that off, because Mosquitto
  writes its whole queue anew each time and a long queue would measure the disk alone.
- Memory over days.
- More than one reader, writer or relay at a time; several recorders are in
  [performance-containers.md](performance-containers.md).
"""


def main() -> int:
    # Ends as with Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    asked = _asked()
    for name in asked.benches or BENCHES:
        busy, began = psutil.cpu_percent(interval=BUSY_LOOK_S), time.monotonic()
        rows = BENCHES[name].run(*([asked.rows] if name in BY_ROWS else []))
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        print(table(rows))
        _write(name, f"{table(rows)}\n\n{machine(busy)}")
    return 0


def _write(name: str, measured: str) -> None:
    """Put what a bench measured into the page, and leave the other benches' parts as they are."""
    there = [f"## {part}" for part in PAGE.read_text().split("\n## ")[1:]]
    parts = {part.partition("\n")[0]: part for part in there}
    parts[_title(name)] = f"{BENCHES[name].TEXT}\n{measured}"
    found = [parts[title] for title in map(_title, BENCHES) if title in parts]
    PAGE.write_text("\n".join(f"{part.strip()}\n" for part in (HEAD, *found, TAIL)))


def _title(name: str) -> str:
    title: str = BENCHES[name].TEXT.partition("\n")[0]
    return title


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("benches", nargs="*", metavar="bench", help=f"of {', '.join(BENCHES)}")
    parser.add_argument(
        *("--rows", "-r"),
        nargs="+",
        type=float,
        default=MILLIONS,
        metavar="N",
        help=f"millions of rows in the databases of {' and '.join(BY_ROWS)}",
    )
    asked = parser.parse_args()
    if unknown := set(asked.benches) - set(BENCHES):
        parser.error(f"{', '.join(sorted(unknown))}: allowed is {', '.join(BENCHES)}")
    return asked


def machine(busy: float) -> str:
    """Return the machine, how busy it was in percent, and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    gib = psutil.virtual_memory().total / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores, {gib:.0f} GiB; "
        f"{_system()}, Linux {platform.release().split('-')[0]}; "
        f"Python {platform.python_version()}, {packages}; "
        f"{_mosquitto()}, {_mariadb()}, SQLite {sqlite3.sqlite_version}{_node()}; "
        f"beside them {', '.join(_peers())}; "
        f"other processes took {busy:.0f} % of the cores just before.\n"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())


def _mosquitto() -> str:
    shown = subprocess.run([tool("mosquitto"), "-h"], capture_output=True, text=True, check=False)
    return "Mosquitto" + shown.stdout.partition("version")[2].splitlines()[0]


def _mariadb() -> str:
    command = [tool("mariadbd"), "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return "MariaDB " + shown.stdout.partition("Ver ")[2].partition("-")[0]


def _node() -> str:
    command = ["node", "--version"]
    if not shutil.which(command[0]):
        return ""
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return f", Node.js {shown.stdout.strip().removeprefix('v')}"


def _peers() -> list[str]:
    lines = PEERS_LOCK.read_text().splitlines()
    pins = [line.split()[0] for line in lines if line.startswith(("aioraven==", "raven2mqtt=="))]
    return [pin.replace("==", " ") for pin in pins]


if __name__ == "__main__":
    sys.exit(main())
