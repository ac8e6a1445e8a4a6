"""Programs whose files a power cut is tried on: ``python -m tests.system.recorded NAME FOLDER``.

Each says on its standard output what it has promised so far.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

import credentials

from raven_reader.outbox import SpoolOutbox
from raven_reader.spool import Spool
from ravenbus import archives
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


def made(folder: Path) -> str:
    """Make credentials as at a first start, and an account of another home; return its URL."""
    for name in ("made", "own", *(f"for/{service}" for service in credentials.USER_OF)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "acl").touch()
    folders = [folder / name for name in ("made", "own", "for", "acl")]
    credentials.Credentials({}, *folders).hand_out()
    return credentials.Credentials({}, *folders).account("other")


if __name__ == "__main__":
    program = {"spool": spool, "archive": archive, "credentials": lambda to: say(made(to))}
    program[sys.argv[1]](Path(sys.argv[2]))
