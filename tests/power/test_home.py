"""A home whose machine loses its power: MariaDB, Mosquitto with its SQLite persistence, the reader, the writer."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

from raven_harness import cuts
from raven_harness.home import command
from raven_harness.stack import MariaDb, wait_until
from raven_reader.spool import VERSION
from tests import judge
from tests.system.sql import SqlSystem

CUTS = int(os.environ.get("CUTS", "300"))
WHOLE_EACH = 30
"""After so many cuts everything is started, to go on by itself."""
READINGS = 40


def test_what_was_promised_before_a_power_cut_is_there_after_it(
    folder: Path, disk: Path, server: MariaDb, home: SqlSystem
) -> None:
    """What the writer confirmed is in the tables, what the reader accepted there or in its spool.

    Each part starts by itself on what a cut left, and together they store the rest.
    """
    home.reader.env["RAVEN_STORES"] = "sql-writer"
    home.simulator.command[1:] = [
        *("--pty", home.device, "--wait", "--ledger", str(folder / "ledger")),
        *("--rate", "5"),
    ]
    with closing(home.sql.sink()) as sink:
        sink.prepare()
    server.stop()
    parts = [server, home.broker, home.writer, home.simulator, home.reader]
    program = command(folder, parts, home.broker.url("watcher"), READINGS)
    recording = cuts.record(program, disk, folder / "strace")
    (folder / "strace").unlink()

    found: Counter[str] = Counter()
    for number, left in enumerate(cuts.left(recording, Random(1), points=CUTS, choices=1)):
        shutil.rmtree(disk)
        left.disk.put(disk)
        promised = Promised(left.said)
        server.start()
        in_tables = stored(home)
        assert in_tables >= promised.stored, (number, promised.stored - in_tables)
        in_spool, last = spooled(disk / "state" / "spool.sqlite")
        lost = promised.accepted - in_tables - in_spool
        assert not lost, (number, lost)
        home.broker.start()
        if number % WHOLE_EACH == 0:
            home.writer.start()
            home.reader.start()
            wait_until(
                lambda all_=set(range(1, last + 1)): stored(home) >= all_,
                f"all {last} readings are stored; the reader says\n{home.reader.said()[-2000:]}",
                timeout_s=400,
            )
            found["went on"] += 1
            home.reader.kill()
            home.writer.kill()
        home.broker.kill()
        server.kill()
        found["cuts"] += 1
        found["with something uncertain"] += left.uncertain > 0
        found["changes uncertain"] += left.uncertain
    print(dict(found))
    assert found["with something uncertain"] > CUTS / 2


class Promised:
    """What was said before a cut."""

    def __init__(self, said: tuple[str, ...]) -> None:
        self.accepted: set[int] = set()
        self.stored: set[int] = set()
        for line in said:
            what, first, *last = line.split()
            numbers = getattr(self, what)
            numbers.update(range(int(first), int((last or [first])[0]) + 1))


def stored(home: SqlSystem) -> set[int]:
    """Return the numbers of the readings in the tables."""
    query = "SELECT hash FROM run_info"
    return {number for (run,) in home.sql(query) for number in judge.in_sql(home.sql.url, run)[1]}


def spooled(spool: Path) -> tuple[set[int], int]:
    """Return the numbers of the readings that a spool has, and the last that it gave out."""
    if not spool.exists():
        return set(), 0
    with closing(sqlite3.connect(spool)) as db:
        if db.execute("PRAGMA user_version").fetchone() != (VERSION,):
            return set(), 0  # it was being made
        kept = {seq for (seq,) in db.execute("SELECT seq FROM outbox WHERE seq IS NOT NULL")}
        return kept, db.execute("SELECT coalesce(max(seq), 0) FROM run").fetchone()[0]
