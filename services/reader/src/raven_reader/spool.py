"""The reader's data on disk, in one SQLite file: node, runs, last readings, outbox, stores.

A reading gets its number in the same transaction that puts it in the outbox, so identity exists
before anything leaves the process, and a number is never used for two readings.
"""

from __future__ import annotations

import fcntl
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from shutil import disk_usage
from typing import Final, NamedTuple

import msgspec

from raven_reader.backfill import Wanted
from raven_reader.registers import Baseline, baselines
from ravenbus import __version__
from ravenbus.errors import FatalError, RetryableError
from ravenbus.messages import DeadLetter, Envelope, Reading, Run, decode_reading, encode
from ravenbus.notifications import Notification, Scaled
from ravenbus.topics import READING, REJECTED, Topics

VERSION: Final = 10
_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE node (name TEXT NOT NULL);
CREATE TABLE run (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    started TEXT NOT NULL,
    meter TEXT,
    seq INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE latest (
    kind TEXT NOT NULL,
    meter TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (kind, meter)
);
CREATE TABLE outbox (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    at REAL NOT NULL
);
"""
_CONFIRMATION = """
ALTER TABLE outbox ADD COLUMN run INTEGER;                          -- number of a reading's run
ALTER TABLE outbox ADD COLUMN seq INTEGER;
ALTER TABLE outbox ADD COLUMN letter TEXT;                          -- id of a dead letter
ALTER TABLE outbox ADD COLUMN sent INTEGER;                         -- turn in which it was taken
ALTER TABLE outbox ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0; -- bits of stores
CREATE TABLE store (
    name TEXT PRIMARY KEY,
    bit INTEGER NOT NULL UNIQUE,
    required INTEGER NOT NULL
);
UPDATE outbox SET
    run = (SELECT number FROM run
           WHERE hash = json_extract(CAST(outbox.payload AS TEXT), '$.hash')),
    seq = json_extract(CAST(payload AS TEXT), '$.seq'),
    letter = CASE WHEN topic GLOB '*/dead/*' THEN json_extract(CAST(payload AS TEXT), '$.id') END;
CREATE INDEX unsent ON outbox (key) WHERE sent IS NULL;
CREATE INDEX sent ON outbox (sent, confirmed) WHERE sent IS NOT NULL;
CREATE INDEX reading ON outbox (run, seq) WHERE seq IS NOT NULL;
CREATE INDEX letter ON outbox (letter) WHERE letter IS NOT NULL;
"""
_REPLAYED = """
CREATE TABLE replayed (letter TEXT PRIMARY KEY);  -- id of a dead letter
"""
_WAITING = """
CREATE TABLE waiting (id TEXT PRIMARY KEY, at TEXT NOT NULL, fragment BLOB NOT NULL);
CREATE TABLE register (
    meter TEXT NOT NULL, name TEXT NOT NULL, kwh REAL NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (meter, name)
);
INSERT INTO register
    SELECT meter, name, json_extract(said, '$.' || name), json_extract(said, '$.received')
    FROM (SELECT meter, CAST(payload AS TEXT) AS said FROM latest
          WHERE kind = 'current_summation_delivered')
    JOIN (SELECT 'delivered_kwh' AS name UNION ALL SELECT 'received_kwh')
    WHERE json_extract(said, '$.' || name) IS NOT NULL;
"""
_SENT_FIRST = """
ALTER TABLE outbox ADD COLUMN first INTEGER;  -- turn in which it was taken the first time
"""
_HEARD = """
ALTER TABLE store ADD COLUMN heard INTEGER;  -- turn in which it confirmed last
"""
_BACKFILL = """
CREATE TABLE backfill (
    meter TEXT NOT NULL, channel TEXT NOT NULL, wanted BLOB NOT NULL,
    PRIMARY KEY (meter, channel)
);
"""
_IDENTITY = """
CREATE TABLE identity (id TEXT NOT NULL);  -- Home Assistant's sensors are known by it; one row
INSERT INTO identity  -- before version 1.1 by the stick
    SELECT json_extract(said, '$.device') FROM (SELECT CAST(payload AS TEXT) AS said FROM latest)
    WHERE json_extract(said, '$.device') IS NOT NULL
    ORDER BY json_extract(said, '$.received') DESC LIMIT 1;
ALTER TABLE node ADD COLUMN retained INTEGER NOT NULL DEFAULT TRUE;  -- something is, under this name
"""
_PROGRAM = """
CREATE TABLE program (version TEXT NOT NULL);  -- release that took the last step
"""
_FOR_STORES = """
ALTER TABLE run ADD COLUMN for_stores INTEGER NOT NULL DEFAULT TRUE;  -- readings were kept for them
"""
_STEPS: Final = (
    *(_SCHEMA, _CONFIRMATION, _REPLAYED, _WAITING, _SENT_FIRST, _HEARD, _BACKFILL),
    *(_IDENTITY, _PROGRAM, _FOR_STORES),
)
MOVE_AWAY: Final = "it is damaged: move it away (what it still held is then lost to the stores)"
GIVEN_UP_AT_ONCE: Final = 1000
FULL_AT: Final = 15 / 16
"""The part of the largest size that entries may fill: to note what becomes of one takes room too."""
REQUIRED: Final = "SELECT coalesce(sum(bit), 0) FROM store WHERE required"
"""The bits of the stores that must confirm."""


class WaitingFragment(NamedTuple):
    """A fragment that is not judged yet, and when it came."""

    id: str
    at: datetime
    fragment: bytes


class FullError(RetryableError):
    """There is no room."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have the state's folder, made if there is none, to oneself; raise FatalError if another has it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise FatalError(f"RAVEN_STATE: {folder} cannot be used: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FatalError(
                f"RAVEN_STATE: another reader uses {folder}: stop it first, or use another folder"
            ) from error
        yield


class Spool:
    """The reader's side: accepts readings and dead letters under the run that goes on.

    Used by one thread, in the process that has the state locked.  Raises RetryableError when the
    disk is full or busy; nothing of that call is then kept.  Unless it is ``for_stores``, readings
    are numbered and nothing waits to be sent.  Before the disk counts as full, what subscribers took
    makes room, confirmed or not: ``on_given_up`` is told how many that no store confirmed.
    """

    def __init__(
        self,
        path: Path,
        topics: Topics,
        *,
        max_mb: int,
        for_stores: bool = True,
        on_given_up: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._topics = topics
        self._for_stores = for_stores
        self._on_given_up = on_given_up
        self._max_bytes = max_mb * 2**20 * FULL_AT
        self._db = open_file(path, synchronous="FULL")
        self.node = ""
        """The name under which everything is published."""
        self.nodes: list[str] = []
        """Every name under which something was published, the first one first."""
        self.former: list[str] = []
        """Those of them that are not used any more, and under which something is retained still."""
        self.identity: str | None = None
        """What Home Assistant's sensors are known by: the meter, or before version 1.1 the stick."""
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The run under way, once it was begun."""
        if self._run is None:
            raise RuntimeError("begin comes first")
        return self._run

    def last_run(self) -> Run | None:
        """Return the run that was begun last, None before the first."""
        row = self._db.execute(
            "SELECT name, hash, started, meter FROM run ORDER BY number DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        name, run_hash, started, meter = row
        return Run(
            node=self.node,
            run=name,
            hash=run_hash,
            started=datetime.fromisoformat(started),
            meter=meter,
        )

    def store_came_or_went(self) -> bool:
        """Say whether the last run was kept for stores and the next one is not to be, or the reverse.

        A run of which only a part was kept would lack the rest in every store.
        """
        last = self._db.execute(
            "SELECT for_stores FROM run ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return last is not None and last[0] != self._for_stores

    def begin(self, node: str | None, run_name: str, at: datetime, *, new_run: bool = False) -> Run:
        """Go on with the last run, or begin one if the name changed or ``new_run`` asks for it.

        Without a ``node`` the one that was made at the first start is used.
        """
        with transaction(self._db):
            names = self._db.execute("SELECT name FROM node ORDER BY rowid").fetchall()
            self.nodes = [name for (name,) in names]
            self.node = node or (self.nodes or [f"raven-{uuid.uuid4().hex[:8]}"])[0]
            if self.node not in self.nodes:
                self.nodes.append(self.node)
                self._db.execute("INSERT INTO node (name) VALUES (?)", (self.node,))
            self._db.execute("UPDATE node SET retained = TRUE WHERE name = ?", (self.node,))
            former = self._db.execute("SELECT name FROM node WHERE retained").fetchall()
            self.former = [name for (name,) in former if name != self.node]
            known = self._db.execute("SELECT id FROM identity").fetchone()
            self.identity = known and known[0]
            last = self.last_run()
            if new_run or last is None or last.run != run_name:
                self._db.execute(
                    "INSERT INTO run (name, hash, started, for_stores) VALUES (?, ?, ?, ?)",
                    (run_name, str(uuid.uuid4()), at.isoformat(), self._for_stores),
                )
                last = self.last_run()
        self._run = last
        return self.run

    def accept(
        self,
        notifications: Sequence[tuple[Notification, datetime]],
        letters: Sequence[DeadLetter],
        waiting: Sequence[WaitingFragment] = (),
        decided: Sequence[str] = (),
        wanted: Sequence[Wanted] = (),
    ) -> list[Reading]:
        """Keep the notifications, numbered, and the dead letters, in one transaction.

        Each notification comes with the time at which it was received.  What is ``waiting`` is
        kept until its id is ``decided``, and the gaps that are ``wanted`` until others are.
        """
        try:
            return self._accept(notifications, letters, waiting, decided, wanted)
        except FullError:
            if not self._make_room():
                raise
        return self._accept(notifications, letters, waiting, decided, wanted)

    def was_replayed(self, letter: str) -> bool:
        """Say whether the dead letter with an id was taken in."""
        query = "SELECT 1 FROM replayed WHERE letter = ?"
        return self._db.execute(query, (letter,)).fetchone() is not None

    def replay(
        self, letter: str, notifications: Sequence[tuple[Notification, datetime]]
    ) -> list[Reading]:
        """Keep what turned out to be in the dead letter with an id; nothing if that was done before.

        It is not new, so the last reading of its kind stays what it is.
        """
        return self._accept(notifications, [], replayed=letter)

    def _accept(
        self,
        notifications: Sequence[tuple[Notification, datetime]],
        letters: Sequence[DeadLetter],
        waiting: Sequence[WaitingFragment] = (),
        decided: Sequence[str] = (),
        wanted: Sequence[Wanted] = (),
        replayed: str | None = None,
    ) -> list[Reading]:
        run, identity = self.run, self.identity
        readings: list[Reading] = []
        with transaction(self._db):
            if replayed:
                query = "INSERT INTO replayed VALUES (?) ON CONFLICT DO NOTHING"
                if not self._db.execute(query, (replayed,)).rowcount:
                    return readings
            number, seq = self._db.execute(
                "SELECT number, seq FROM run WHERE hash = ?", (run.hash,)
            ).fetchone()
            for notification, received in notifications:
                seq += 1
                envelope = Envelope(
                    node=self.node, run=run.run, hash=run.hash, seq=seq, received=received
                )
                reading = Reading(envelope, notification)
                payload = encode(reading)
                topic = self._topics.of(READING, node=self.node, kind=reading.kind)
                self._put(topic, payload, received, run=number, seq=seq)
                if not replayed:
                    self._db.execute(
                        "INSERT OR REPLACE INTO latest VALUES (?, ?, ?)",
                        (reading.kind, notification.meter or "", payload),
                    )
                    self._db.executemany(
                        "INSERT OR REPLACE INTO register VALUES (?, ?, ?, ?)",
                        [
                            (one.meter or "", one.name, one.kwh, one.at.isoformat())
                            for one in baselines(notification, received)
                        ],
                    )
                readings.append(reading)
                if run.meter is None and notification.meter:
                    run = msgspec.structs.replace(run, meter=notification.meter)
                if identity is None and isinstance(notification, Scaled):
                    identity = notification.meter or notification.device
                    if identity is not None:
                        self._db.execute("INSERT INTO identity VALUES (?)", (identity,))
            self._db.execute(
                "UPDATE run SET seq = ?, meter = ? WHERE hash = ?", (seq, run.meter, run.hash)
            )
            for letter in letters:
                topic = self._topics.of(REJECTED, node=self.node)
                self._put(topic, encode(letter), letter.at, letter=letter.id)
            self._db.executemany(
                "INSERT INTO waiting VALUES (?, ?, ?)",
                [(one.id, one.at.isoformat(), one.fragment) for one in waiting],
            )
            self._db.executemany("DELETE FROM waiting WHERE id = ?", [(one,) for one in decided])
            self._db.executemany(
                "INSERT OR REPLACE INTO backfill VALUES (?, ?, ?)",
                [(one.meter or "", one.channel, msgspec.json.encode(one)) for one in wanted],
            )
            self._require_room()
        self._run, self.identity = run, identity
        return readings

    def latest(self) -> list[Reading]:
        """Return the last reading of each kind and meter."""
        rows = self._db.execute("SELECT payload FROM latest").fetchall()
        return [decode_reading(payload) for (payload,) in rows]

    def registers(self) -> list[Baseline]:
        """Return what each register was when it was last accepted."""
        rows = self._db.execute("SELECT meter, name, kwh, at FROM register").fetchall()
        return [
            Baseline(meter or None, name, kwh, datetime.fromisoformat(at))
            for meter, name, kwh, at in rows
        ]

    def waiting(self) -> list[WaitingFragment]:
        """Return what is not judged yet, in the order in which it came."""
        rows = self._db.execute("SELECT id, at, fragment FROM waiting ORDER BY rowid").fetchall()
        return [WaitingFragment(id_, datetime.fromisoformat(at), raw) for id_, at, raw in rows]

    def wanted(self) -> list[Wanted]:
        """Return the gaps that intervals are wanted for."""
        rows = self._db.execute("SELECT wanted FROM backfill ORDER BY rowid").fetchall()
        return [msgspec.json.decode(wanted, type=Wanted) for (wanted,) in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _put(
        self,
        topic: str,
        payload: bytes,
        at: datetime,
        *,
        run: int | None = None,
        seq: int | None = None,
        letter: str | None = None,
    ) -> None:
        if not self._for_stores:
            return
        self._db.execute(
            "INSERT INTO outbox (topic, payload, at, run, seq, letter) VALUES (?, ?, ?, ?, ?, ?)",
            (topic, payload, at.timestamp(), run, seq, letter),
        )

    def _require_room(self) -> None:
        """Raise FullError if the entries have become too many."""
        size, pages, free = (
            self._db.execute(f"PRAGMA {one}").fetchone()[0]
            for one in ("page_size", "page_count", "freelist_count")
        )
        if (pages - free) * size > self._max_bytes:
            raise FullError("the spool is full")

    def _make_room(self) -> bool:
        """Give up what was taken, what is confirmed first; return whether there was anything."""
        with transaction(self._db):
            (required,) = self._db.execute(REQUIRED).fetchone()
            given_up = self._db.execute(
                "DELETE FROM outbox WHERE key IN (SELECT key FROM outbox INDEXED BY sent "
                "WHERE sent IS NOT NULL ORDER BY confirmed & :required != :required, sent "
                "LIMIT :most) RETURNING confirmed",
                {"required": required, "most": GIVEN_UP_AT_ONCE},
            ).fetchall()
        unconfirmed = sum(confirmed & required != required for (confirmed,) in given_up)
        if unconfirmed:
            self._on_given_up(unconfirmed)
        return bool(given_up)


def open_file(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open the file, making it if there is none; raise FatalError that says what to do."""
    db = None
    try:
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        for number, step in enumerate(_STEPS[version:], version + 1):
            db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        if version < VERSION:
            db.execute("DELETE FROM program")
            db.execute("INSERT INTO program VALUES (?)", (__version__,))
        programs = [one for (one,) in db.execute("SELECT version FROM program")]
    except sqlite3.Error as error:
        if db:
            db.close()
        what = {
            sqlite3.SQLITE_FULL: "the disk is full: make room on it",
            sqlite3.SQLITE_CANTOPEN: "the folder is missing, cannot be written to or has no room",
            sqlite3.SQLITE_NOTADB: MOVE_AWAY,
            sqlite3.SQLITE_CORRUPT: MOVE_AWAY,
        }
        # The low byte is the kind, the others tell more of it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_IOERR and not disk_usage(path.parent).free:
            code = sqlite3.SQLITE_FULL
        advice = f"; {what[code]}" if code in what else ""
        raise FatalError(f"the spool {path} cannot be opened: {error}{advice}") from error
    if version > VERSION:
        newer = next(iter(programs), "a newer release")
        raise FatalError(
            f"the spool {path} is of version {version}, which {newer} made, and this program, "
            f"{__version__}, knows versions up to {VERSION}: run {newer} until the stores have what "
            "is in it, or give this one another RAVEN_STATE, where it begins a run of its own"
        )
    return db


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise RetryableError for what may work later."""
    try:
        yield
    except sqlite3.OperationalError as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        kind = FullError if full else RetryableError
        raise kind(f"the spool cannot be used: {error}") from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done meanwhile, or nothing of it; raise RetryableError if that fails."""
    with disk_errors():
        try:
            db.execute("BEGIN IMMEDIATE")
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
