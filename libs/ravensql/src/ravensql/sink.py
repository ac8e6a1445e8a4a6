"""The SQL store: each batch is one transaction, and storing again changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from ravenbus import demand
from ravenbus.errors import PoisonError
from ravenbus.messages import DeadLetter, Item, Reading, Run
from ravenbus.storing import Stored
from ravensql import digests, energy, housekeeping, ranges, rollups, rows, schema
from ravensql.database import Cursor, Database
from ravensql.ranges import Identity
from ravensql.settings import MysqlUrl

LOOKED_UP_AT_ONCE: Final = 500
"""Beyond some thousand pairs the optimizer gives the index up."""

FORGET_LETTERS: Final = "DELETE FROM dead_letter WHERE at < %s ORDER BY at LIMIT %s"
FORGOTTEN_AT_ONCE: Final = 1000
RUNS: Final = "SELECT hash, last_seq FROM run_info WHERE node IS NOT NULL AND hash IN %s "
PUT_RUN: Final = (
    "INSERT INTO run_info (name, hash, meter_id, time, node, last_seq) "
    "VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE "
    "meter_id = COALESCE(meter_id, VALUES(meter_id)), "
    "time = LEAST(time, VALUES(time)), last_seq = GREATEST(last_seq, VALUES(last_seq))"
)
STORED: Final = " UNION ALL ".join(
    f"SELECT hash, seq, received FROM {table} WHERE (hash, seq) IN %s"  # noqa: S608 - our names
    for table in rows.COLUMNS
)


class _StaleRunError(Exception):
    """A reading above its run's `last_seq` is stored: somebody changed `run_info`."""


class _Run(NamedTuple):
    """A run as a batch describes it."""

    name: str
    hash: str
    meter: str | None
    since: datetime
    node: str
    last_seq: int


class MysqlSink:
    """Stores readings, runs and dead letters in the tables that ``migrations`` describe.

    ``run_info.last_seq`` is the highest number stored of a run, and its row the lock of the run:
    a reading above it is new, so only those at or below it are looked up, in the tables and then
    among those that are archived.
    """

    def __init__(
        self,
        url: MysqlUrl,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = url
        self._beat = beat
        self._database = Database(url, on_connect=schema.require_known)

    def prepare(self) -> None:
        """Bring the tables up to date; raise RetryableError or FatalError."""
        schema.migrate(self._url, self._beat)
        housekeeping.look_after(self._url, self._beat)

    def store(self, items: Sequence[Item]) -> Stored:
        """Commit the items; raise PoisonError or RetryableError."""
        try:
            return self._store(items)
        except _StaleRunError:
            pass
        try:
            return self._store(items, look_up_all=True)
        except _StaleRunError:
            detail = "a unique key that is not ours has a row of the same values"
            raise PoisonError("duplicate-key", detail) from None

    def _store(self, items: Sequence[Item], *, look_up_all: bool = False) -> Stored:
        readings = [item for item in items if isinstance(item, Reading)]
        runs = [item for item in items if isinstance(item, Run)]
        letters = [item for item in items if isinstance(item, DeadLetter)]
        wanted = _by_identity(readings)
        with self._database.transaction() as cursor:
            known_runs = _lock_runs(cursor, readings, runs)
            suspects = list(wanted) if look_up_all else _suspects(wanted, known_runs)
            for identity, received in _stored(cursor, suspects).items():
                _require_same(identity, received, wanted.pop(identity))
            # A month is recorded before it leaves the tables, so what is in neither is new.
            archived = ranges.covered(cursor, wanted.keys() & suspects)
            again = {identity: wanted.pop(identity).envelope.received for identity in archived}
            for identity in digests.conflicting(cursor, again):
                raise _conflict(identity)
            new = _insert(cursor, wanted.values())
            if new < len(wanted):
                raise _StaleRunError
            rollups.count(cursor, demand.samples(wanted.values()))
            energy.count(cursor, wanted.values())
            new += len({run.hash for run in runs} - known_runs.keys())
            _put_runs(cursor, readings, runs)
            new += self._bury(cursor, letters)
        return Stored(new, len(items) - new)

    def forget_letters(self, before: datetime) -> int:
        """Remove the dead letters from before a time; return how many there were."""
        count = 0
        while True:
            with self._database.transaction() as cursor:
                cursor.execute(FORGET_LETTERS, (rows.millis(before), FORGOTTEN_AT_ONCE))
                count += cursor.rowcount
                if cursor.rowcount < FORGOTTEN_AT_ONCE:
                    return count

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _bury(self, cursor: Cursor, letters: Sequence[DeadLetter]) -> int:
        if not letters:
            return 0
        found = [rows.letter_row(letter, self._database.payload_max) for letter in letters]
        return cursor.executemany(rows.INSERT_LETTER, found) or 0


def _by_identity(readings: Iterable[Reading]) -> dict[Identity, Reading]:
    found: dict[Identity, Reading] = {}
    for reading in readings:
        identity = (reading.envelope.hash, reading.envelope.seq)
        twin = found.setdefault(identity, reading)
        _require_same(identity, rows.millis(twin.envelope.received), reading)
    return found


def _require_same(identity: Identity, received: datetime, reading: Reading) -> None:
    """Raise PoisonError if another reading has this one's identity.

    So it is when the reader's state was put back from an older copy.
    """
    if received != rows.millis(reading.envelope.received):
        raise _conflict(identity)


def _conflict(identity: Identity) -> PoisonError:
    detail = f"another reading is stored as {identity[0]}/{identity[1]}"
    return PoisonError("identity-conflict", detail)


def _lock_runs(cursor: Cursor, readings: Sequence[Reading], runs: Sequence[Run]) -> dict[str, int]:
    """Lock the runs of a batch; return the highest number stored of those known before."""
    hashes = sorted({r.envelope.hash for r in readings} | {run.hash for run in runs})
    if not hashes:
        return {}
    query = RUNS + "ORDER BY hash FOR UPDATE"
    cursor.execute(query, (hashes,))
    known = _highest(cursor.fetchall())
    if len(known) == len(hashes):
        return known
    # A row that is not there yet cannot be locked.  Another writer may make it just now, so the
    # answer counts that comes after ours is there.
    _put_runs(cursor, readings, runs, stored=False)
    cursor.execute(query, (hashes,))
    found = _highest(cursor.fetchall())
    return {hash_: last for hash_, last in found.items() if hash_ in known or last > 0}


def _highest(found: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the highest number of each run, which has two nodes if its state was copied."""
    highest: dict[str, int] = {}
    for hash_, last in found:
        highest[hash_] = max(last, highest.get(hash_, 0))
    return highest


def _put_runs(
    cursor: Cursor, readings: Sequence[Reading], runs: Sequence[Run], *, stored: bool = True
) -> None:
    """Write what a batch says of its runs, in the order of their hashes, as they are locked."""
    found: dict[str, _Run] = {}
    for run in _said_of_runs(readings, runs):
        other = found.get(run.hash, run)
        found[run.hash] = run._replace(
            meter=other.meter or run.meter,
            since=min(other.since, run.since),
            last_seq=max(other.last_seq, run.last_seq) if stored else 0,
        )
    if found:
        cursor.executemany(PUT_RUN, [found[hash_] for hash_ in sorted(found)])


def _said_of_runs(readings: Iterable[Reading], runs: Iterable[Run]) -> Iterable[_Run]:
    for reading in readings:
        e = reading.envelope
        meter = reading.notification.meter
        yield _Run(e.run, e.hash, meter, rows.seconds(e.received), e.node, e.seq)
    for run in runs:
        yield _Run(run.run, run.hash, run.meter, rows.seconds(run.started), run.node, 0)


def _suspects(wanted: Iterable[Identity], runs: dict[str, int]) -> list[Identity]:
    return [(hash_, seq) for hash_, seq in wanted if seq <= runs.get(hash_, 0)]


def _stored(cursor: Cursor, identities: Sequence[Identity]) -> dict[Identity, datetime]:
    """Return when those of the readings that are stored were received."""
    found: dict[Identity, datetime] = {}
    for start in range(0, len(identities), LOOKED_UP_AT_ONCE):
        part = identities[start : start + LOOKED_UP_AT_ONCE]
        cursor.execute(STORED, [part] * len(rows.COLUMNS))
        found |= {(hash_, seq): received for hash_, seq, received in cursor.fetchall()}
    return found


def _insert(cursor: Cursor, readings: Iterable[Reading]) -> int:
    """Insert readings, one statement for each table, and return how many were new."""
    tables: dict[str, list[rows.Row]] = defaultdict(list)
    for reading in readings:
        table, values = rows.reading_row(reading)
        tables[table].append(values)
    return sum(cursor.executemany(rows.INSERTS[t], found) or 0 for t, found in tables.items())
