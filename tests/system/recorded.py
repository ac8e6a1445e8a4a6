"""Programs whose files a power cut is tried on: ``python -m tests.system.recorded NAME FOLDER``.

Each says on its standard output what it has promised so far.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

import credentials

from raven_backup import backups
from raven_backup.main import fill
from raven_backup.settings import BackupSettings
from raven_reader.outbox import SpoolOutbox
from raven_reader.spool import Spool
from ravenbus import archives, copies
from ravenbus.messages import Confirmation, DeadLetter
from ravenbus.metrics import PublisherMetrics
from ravenbus.notifications import InstantaneousDemand
from ravenbus.topics import Topics

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
TOPICS: Final = Topics("raven")
SPOOL: Final = "spool.sqlite"
IDS: Final = {
    "device": "d8d5b90000001234",
    "meter": "0013500100abcdef",
    "digits_right": 3,
    "digits_left": 6,
    "suppress_leading_zero": True,
}
ROWS: Final = [("time", "demand"), *((f"2026-03-01 00:{n:02}:00", str(n)) for n in range(60))]


def say(line: str) -> None:
    """Say a line in one write."""
    os.write(1, f"{line}\n".encode())


def spool(folder: Path) -> None:
    """Accept readings and letters, which a store confirms, until SQLite writes its journal back."""
    path, passed = folder / SPOOL, count(step=601)
    kept = Spool(path, TOPICS, max_mb=16)
    run = kept.begin(None, "power", START)
    say(f"node {kept.node}")
    outbox = SpoolOutbox(path, metrics=PublisherMetrics(), clock=lambda: float(next(passed)))
    for seq in range(1, 41):
        at = START + timedelta(seconds=8 * seq)
        demand = InstantaneousDemand(
            time=at, demand=seq, demand_kw=seq / 1000, multiplier=1, divisor=1000, **IDS
        )
        letter = DeadLetter(
            id=f"{seq:032x}",
            service="reader",
            at=at,
            reason="demand-too-large",
            detail="",
            payload=bytes(100_000),
            size=100_000,
        )
        kept.accept([(demand, at)], [letter] if seq > 8 else [])
        say(f"accepted {seq}")
        outbox.taken([entry.key for entry in outbox.entries(0, 100)])
        if not seq % 4:
            say(f"stored {seq - 2}")
            said = Confirmation(node=kept.node, store="store", runs={run.hash: [(1, seq - 2)]})
            outbox.confirmed(said)
            outbox.tend()
    outbox.close()
    kept.close()


def archive(folder: Path) -> None:
    """Write a month, and the same name again with other rows."""
    part, path = folder / "month.part", folder / "month.csv.gz"
    for rows in (ROWS[:30], ROWS):
        archives.write(part, rows)
        say(archives.publish(part, path))


class Store:
    """A table, and a month that left it."""

    name = "store"

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    def save(self, folder: Path) -> copies.Copied:
        """Put both into a folder."""
        part, month = self._archive / "month.part", self._archive / "month.csv.gz"
        archives.write(part, ROWS)
        recorded = copies.Recorded(month.name, archives.publish(part, month))
        copies.save_archive([recorded], self._archive, folder)
        return copies.Copied({"table": copies.write(folder, "table", ROWS[0], ROWS[1:])}, [])

    def obstacle(self) -> None:
        """There is nothing to replace."""

    def load(self, folder: Path) -> copies.Counts:
        """It is not restored."""
        raise NotImplementedError

    def close(self) -> None:
        """There is no connection."""


class Home(BackupSettings, frozen=True, kw_only=True):
    """A home with one store, whose credentials are its archive."""

    def stores(self) -> Iterator[copies.Copying]:
        """Yield the store."""
        assert self.raven_credentials
        yield Store(self.raven_credentials)


def backup(folder: Path) -> None:
    """Make three backups, and remove all but the last after each."""
    home = Home(raven_credentials=folder / "home")
    (folder / "home").mkdir()
    for day in range(3):
        at = START + timedelta(days=day)
        with backups.alone(folder), backups.begun(folder, at) as part:
            fill(home, part, at)
        say(f"backed-up {backups.newest_last(folder)[-1].name}")
        backups.thin_out(folder, 1)


def made(folder: Path) -> str:
    """Make credentials as at a first start, and an account of another home; return its URL."""
    for name in ("made", "own", *(f"for/{service}" for service in credentials.USER_OF)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "acl").touch()
    folders = [folder / name for name in ("made", "own", "for", "acl")]
    credentials.Credentials({}, *folders).hand_out()
    return credentials.Credentials({}, *folders).account("other")


if __name__ == "__main__":
    program = {
        "spool": spool,
        "archive": archive,
        "backup": backup,
        "credentials": lambda to: say(made(to)),
    }
    program[sys.argv[1]](Path(sys.argv[2]))
