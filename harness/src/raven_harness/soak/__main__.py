"""`make soak HOURS=1`: runs a home at its real pace, then through the dates of a year.

Every minute each part's heap, threads and open files are written down, and the sizes
of what it keeps.  What grows by more than is allowed, with 95 % certainty after the first quarter
of the time, fails the run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from calendar import isleap
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import psutil

from raven_harness import stack
from raven_harness.certificates import Authority
from raven_harness.crash.system import Clock
from raven_harness.demo import NODE, SETTLE_S, Demo, started
from raven_harness.soak.growth import SAMPLES_MIN, slope

WARM_UP_S: Final = 600.0
WARM_UP_SPEED: Final = "60"
"""Python's caches of names and types fill with the first thousands of messages, and then stay so."""
GLIBC_TUNABLES: Final = "glibc.malloc.tcache_count=0"
"""As where people run the services: glibc keeps what a thread freed for that thread, more with each hour."""
EVERY_S: Final = 60.0
SETTLING: Final = 0.25
"""The part of the samples that is not judged."""
KB: Final = 1024
ALLOWED_AN_HOUR: Final = {
    "heap kB": 128.0,
    "threads": 0.0,
    "open files": 0.0,
    "log kB": 16.0,
    "kept kB": 64.0,
}
"""A page of the allocator's comes now and then; 128 kB an hour are 20 MB a week."""
KEPT: Final = "kept kB"
"""What a part keeps on its disk."""
GROWING: Final = tuple(
    (store, what) for store in ("mariadb", "mongo") for what in (KEPT, "heap kB")
)
"""Databases keep more with each reading, in memory too until they have as much as they may."""
STORES: Final = ("SQL", "MONGO")
ENDS: Final = timedelta(days=200)
"""From now on, for a certificate."""
RENEWED: Final = timedelta(days=730)
"""For how long another one is good."""
KEEP_MONTHS: Final = "3"
AROUND_S: Final = 15.0
"""Real time before and after a date's moment."""


class Upstream:
    """What makes the upstream broker's year: a certificate that ends, for the relay, and a log."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "upstream.log"
        self.until = datetime.now(UTC) + ENDS
        self._authority = Authority(folder, "soak", 2 * RENEWED)
        self._port, self._shown = stack.free_port(), folder / "upstream.pem"
        self.renew(ENDS)

    @property
    def listener(self) -> list[str]:
        """Lines of the broker's settings."""
        files = [f"certfile {self._shown}", f"keyfile {self._shown}", f"log_dest file {self.log}"]
        return [f"listener {self._port} 127.0.0.1", *files]

    def settings(self, password: str) -> dict[str, str]:
        """Return the relay's."""
        return {
            "UPSTREAM_MQTT_URL": f"mqtts://{NODE}:{password}@127.0.0.1:{self._port}",
            "UPSTREAM_MQTT_TLS_CA": str(self._authority.file),
        }

    def renew(self, lasts: timedelta) -> None:
        """Make another certificate."""
        self._authority.server(lasts).replace(self._shown)


def main() -> int:
    """Run it; return 0 if nothing grows that should not, and nothing is missing."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--samples", type=Path, required=True, help="a JSON line for each minute")
    options = parser.parse_args()
    upstream = Upstream(options.samples.parent.resolve())
    demo = Demo(None, None, speed=WARM_UP_SPEED, past=False, upstream=upstream.listener)
    demo.relay.env |= upstream.settings(demo.upstream.passwords[NODE])
    aged = [demo.reader, demo.recorder, demo.writer, demo.relay, demo.upstream_recorder]
    ours = [one for one in (*aged, demo.dashboard, demo.simulator) if one]
    clocks = [Clock(one) for one in ours]
    for one in ours:
        one.env["GLIBC_TUNABLES"] = GLIBC_TUNABLES
    for one, store in zip((demo.writer, demo.recorder), STORES, strict=True):
        one.env[f"RAVEN_{store}_KEEP_MONTHS"] = KEEP_MONTHS
        one.env[f"RAVEN_{store}_ARCHIVE"] = str(demo.folder / f"archive-{store}")
    samples: list[tuple[float, dict[str, dict[str, float]]]] = []
    with started(demo, threading.Event()), options.samples.open("w") as file:
        print(f"a home at {WARM_UP_SPEED} times its pace for {WARM_UP_S / 60:.0f} min", flush=True)
        time.sleep(WARM_UP_S)  # the span that is not sampled
        if demo.simulator:
            at_its_pace(demo.simulator)
        print(
            f"at its own for {options.hours:g} h; a sample a minute is in {options.samples}",
            flush=True,
        )
        end = time.monotonic() + 3600 * options.hours
        while time.monotonic() < end:
            at, seen = time.monotonic(), look(demo)
            samples.append((at, seen))
            print(json.dumps({"at": datetime.now(UTC).isoformat(), **seen}), file=file, flush=True)
            time.sleep(EVERY_S)  # the interval of the samples
        wrong = grown(samples)
        with ExitStack() as ahead:
            for moment, what in dates(datetime.now(UTC), upstream.until):
                # Each goes on from the last: a clock that came back meanwhile would be another test.
                by_s = moment.timestamp() - AROUND_S - time.time()
                for clock in clocks:
                    ahead.enter_context(clock.off_by(int(by_s)))
                wrong += passed(demo, moment, what) + rotated(demo, upstream.log)
                if moment == upstream.until:
                    wrong += renewed(demo, upstream)
            for one in (demo.writer, demo.recorder):
                # By itself each does so once a day, of a clock that nobody moves.
                subprocess.run([*one.command, "archive"], env=os.environ | one.env, check=True)
            wrong += missing(demo)
    print("\n".join(["", *wrong]) if wrong else "\nGOOD: nothing grows, and nothing is missing")
    return 1 if wrong else 0


def at_its_pace(simulator: stack.Process) -> None:
    """Start the stick again, such that it says things as often as a real one."""
    simulator.stop()
    simulator.command[simulator.command.index("--speed") + 1] = "1"
    simulator.start()


def look(demo: Demo) -> dict[str, dict[str, float]]:
    """Return what each part takes now, and keeps."""
    kept = {
        "reader": demo.folder / "state-demo",
        "broker": demo.broker.data,
        "upstream": demo.upstream.data,
        "mariadb": demo.mariadb.folder,
        "mongo": demo.folder / "mongo",
    }
    found = {}
    for part in (*demo.supervised, demo.simulator):
        if part is None:
            continue
        if not part.running:
            raise RuntimeError(f"{part.name} has ended:\n{part.text()[-2000:]}")
        process = psutil.Process(part.pid)
        found[part.name] = {
            "heap kB": heap_kb(part.pid),
            "threads": float(process.num_threads()),
            "open files": float(process.num_fds()),
            "log kB": part.log.stat().st_size / KB,
        }
        if folder := kept.get(part.name):
            files = (file.stat().st_size for file in folder.rglob("*") if file.is_file())
            found[part.name][KEPT] = sum(files) / KB
    return found


def heap_kb(pid: int) -> float:
    """Return the memory that a process has of its own; what it maps of files comes and goes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return float(line.split()[1])
    raise RuntimeError(f"{pid} has ended")


def grown(samples: list[tuple[float, dict[str, dict[str, float]]]]) -> list[str]:
    """Print how each quantity grows; return what is more than is allowed."""
    some = samples[int(len(samples) * SETTLING) :]
    if len(some) < SAMPLES_MIN:
        return [f"{len(some)} samples after the first quarter say nothing: more HOURS"]
    wrong = []
    print(f"{'part':20}{'quantity':14}{'at the end':>12}{'an hour':>10}{'95 %':>22}")
    for part, quantities in some[-1][1].items():
        for quantity, last in quantities.items():
            found = slope([(at, seen[part][quantity]) for at, seen in some])
            within = f"{found.least:.1f} to {found.most:.1f}"
            print(f"{part:20}{quantity:14}{last:12.0f}{found.an_hour:10.1f}{within:>22}")
            if found.least > ALLOWED_AN_HOUR[quantity] and (part, quantity) not in GROWING:
                wrong.append(f"{part}: {quantity} grows by {found.an_hour:.1f} an hour")
    return wrong


def dates(now: datetime, until: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield the moments of the year that comes, in order, and then of the next leap day.

    A certificate is good ``until`` one of them.
    """
    months = [
        datetime(now.year + month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in range(27)
    ]
    zone = ZoneInfo("Europe/Berlin")
    days = [
        now.replace(hour=1, minute=0, second=0, microsecond=0) + timedelta(n) for n in range(366)
    ]
    switches = [
        day
        for day in days
        if (day - timedelta(hours=1)).astimezone(zone).utcoffset()
        != day.astimezone(zone).utcoffset()
    ]
    leap = next(year for year in count(now.year + 1) if isleap(year))
    found = [(month, "a month begins") for month in months if days[0] < month < days[-1]]
    found += [(switch, "summer time begins or ends") for switch in switches]
    found.append((until, "a certificate ends"))
    found += [(datetime(leap, 2, 29, tzinfo=UTC), "a leap day begins")]
    found += [(datetime(leap, 3, 1, tzinfo=UTC), "a leap day ends")]
    yield from sorted(found)


def passed(demo: Demo, moment: datetime, what: str) -> list[str]:
    """Have a moment pass; return what is wrong after it."""
    print(f"{moment:%Y-%m-%d %H:%M} {what}", flush=True)
    before = demo.accepted()[1]
    time.sleep(2 * AROUND_S)  # the span around the moment
    wrong = [f"{moment}: {part.name} has ended" for part in demo.supervised if not part.running]
    if demo.accepted()[1] == before:
        wrong.append(f"{moment}: nothing was accepted around it")
    return wrong


def rotated(demo: Demo, log: Path) -> list[str]:
    """Rotate the upstream broker's log as Debian does every day; return what is wrong."""
    log.replace(log.with_suffix(".log.1"))
    demo.upstream.send(signal.SIGHUP)
    try:
        stack.wait_until(log.exists, "the upstream broker begins another log", SETTLE_S)
    except RuntimeError as error:
        return [str(error)]
    return []


def renewed(demo: Demo, upstream: Upstream) -> list[str]:
    """Have the relay meet a certificate that has ended, and then another; return what is wrong."""

    def sent() -> int:
        return found.last if (found := demo.stored()["upstream"]) else 0

    restarted(demo.upstream)
    try:
        refused = "certificate has expired"
        stack.wait_until(lambda: refused in demo.relay.text(), "the relay says it ended", SETTLE_S)
        before = sent()
        upstream.renew(ENDS + RENEWED)
        restarted(demo.upstream)
        stack.wait_until(lambda: sent() > before, "the relay sends again", 2 * SETTLE_S)
    except RuntimeError as error:
        return [str(error)]
    return []


def restarted(server: stack.Process) -> None:
    """Have a server end and start again."""
    server.stop()
    server.start()


def missing(demo: Demo) -> list[str]:
    """Stop the stick; return what the stores lack, and which of them archived nothing."""
    if demo.simulator:
        demo.simulator.stop()
    accepted = demo.accepted()[1]
    whole = [(1, accepted)]

    def complete() -> bool:
        return all(found and found.present == whole for found in demo.stored().values())

    with suppress(RuntimeError):  # what is missing then is returned
        stack.wait_until(complete, "all is stored", SETTLE_S)
    wrong = [
        f"no month of {store} was archived"
        for store in STORES
        if not any((demo.folder / f"archive-{store}").rglob("*.csv.gz"))
    ]
    return wrong + [
        f"{name} has {found and found.present} of 1 to {accepted}"
        for name, found in demo.stored().items()
        if not found or found.present != whole
    ]


if __name__ == "__main__":
    sys.exit(main())
