"""Reads the reader's spool while the reader writes it or is stopped; nothing is written."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Final

from raven_verify.inventory import Accepted
from ravenbus.errors import RetryableError
from ravenbus.ranges import Range, merged

FILE: Final = "spool.sqlite"
TRIES: Final = 5
"""A reader may start or stop between a look at its files and opening them."""

_RUNS: Final = "SELECT number, hash, name, seq FROM run "
_KEPT: Final = "WHERE for_stores"
"""Without a store nothing is kept; all runs of a spool before version 10 are."""
_UNDER_WAY: Final = """
    WITH required AS (SELECT coalesce(sum(bit), 0) AS bits FROM store WHERE required)
    SELECT run, seq FROM outbox, required
    WHERE seq IS NOT NULL AND (sent IS NULL OR bits = 0 OR confirmed & bits <> bits)
    ORDER BY run, seq
"""
"""Numbers under way; confirmed ones stay in the outbox for a while, and are not sent again."""


def accepted(folder: Path) -> dict[str, Accepted] | None:
    """Return what the reader accepted and still has, by run; None if there is no spool.

    Raises RetryableError if it cannot be read.
    """
    file = folder / FILE
    error: Exception | None = None
    for _ in range(TRIES):
        if not file.exists():
            return None
        # Its journal is there as long as the reader runs, or was killed.  Without it the file is
        # all there is, and on a volume that cannot be written SQLite has to be told so.
        journal = file.with_name(f"{FILE}-wal")
        alone = not journal.exists()
        try:
            found = _read(f"{file.absolute().as_uri()}?{'immutable=1' if alone else 'mode=ro'}")
        except sqlite3.Error as caught:
            error = caught
            continue
        if not alone or not journal.exists():
            return found
    raise RetryableError(f"the spool {file} cannot be read: {error or 'the reader keeps starting'}")


def _read(uri: str) -> dict[str, Accepted]:
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)) as db:
        db.execute("BEGIN")
        columns = {name for _, name, *_ in db.execute("PRAGMA table_info(run)")}
        kept = _KEPT if "for_stores" in columns else ""
        runs = db.execute(_RUNS + kept).fetchall()
        waiting: dict[int, list[Range]] = defaultdict(list)
        for run, seq in db.execute(_UNDER_WAY):
            ranges = waiting[run]
            if ranges and ranges[-1][1] + 1 == seq:
                ranges[-1] = ranges[-1][0], seq
            else:
                ranges.append((seq, seq))
    return {
        hash_: Accepted(name, seq, merged(waiting[number])) for number, hash_, name, seq in runs
    }
