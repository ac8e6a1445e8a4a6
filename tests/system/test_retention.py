"""Months leave MariaDB for files and come back: nothing is lost and nothing is there twice."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import signal
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pymysql
import pytest

from raven_harness import stack
from raven_setup.accounts import WRITER_RIGHTS
from ravenbus import archives
from ravenbus.archiving import archive_due
from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravenbus.messages import Envelope, Reading
from ravenbus.months import Month
from ravenbus.notifications import (
    CurrentSummationDelivered,
    MessageCluster,
    Notification,
    PriceCluster,
)
from ravensql import archiving, housekeeping, rows, schema
from ravensql.archiving import Archive
from ravensql.housekeeping import look_after
from ravensql.retention import Retention
from ravensql.settings import MysqlUrl
from tests.kinds import METER, T0, new_hash, reading

from .sql import OLD_INSERT, Db, SqlSystem, run
from .system import NODE, wait_until

MARCH, APRIL, MAY = (Month.parse(f"2026-0{number}") for number in (3, 4, 5))
JUNE_15 = datetime(2026, 6, 15, tzinfo=UTC)
ODD = 'ü€\U0001f600, "quoted", \\N \\ \r\n\t\0 '
DEMANDS = "instantaneous_demand"


def tables(db: Db, condition: str = "TRUE") -> dict[str, Sequence[tuple[Any, ...]]]:
    """Return every column of every row."""
    with closing(db.connect(init_command="SET time_zone = '+00:00'")) as connection:
        return {
            table: run(connection, f"SELECT * FROM {table} WHERE {condition} ORDER BY id")  # noqa: S608
            for table in rows.COLUMNS
        }


def rollups(db: Db) -> list[Sequence[tuple[Any, ...]]]:
    names = ("demand_rollup", "energy_rollup")
    return [db(f"SELECT * FROM {n} ORDER BY period_s, node, meter, start") for n in names]  # noqa: S608


def months(db: Db, table: str = DEMANDS) -> list[str]:
    query = (
        "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() "
        "AND table_name = %s ORDER BY partition_ordinal_position"
    )
    return [name.removeprefix("p_").replace("_", "-") for (name,) in db(query, table)]


def of_every_kind(hash_: str, first: int, month: int, number: int = 20) -> list[Reading]:
    """Return readings of a month, numbered from ``first`` on, for every table."""
    found: list[Reading] = []
    for seq in range(first, first + number):
        at = datetime(2026, month, 2, 3, 4, 5, 678000, tzinfo=UTC) + timedelta(minutes=seq)
        common = {"device": None, "meter": METER, "time": at.replace(microsecond=0)}
        scale = {"multiplier": 1, "divisor": 1000}
        kind: Notification
        match seq % 5:
            case 0:
                kind = CurrentSummationDelivered(
                    **common, **scale, summation_delivered=2**48 - seq, summation_received=None,
                    delivered_kwh=None, received_kwh=None,
                )  # fmt: skip
            case 1:
                kind = PriceCluster(
                    **common, price=14764, trailing_digits=5, price_per_kwh=0.14764, currency=840,
                    tier=1, start_time=at, duration=None, tier_label="", rate_label=None,
                )  # fmt: skip
            case 2:
                kind = MessageCluster(**common, text=ODD)
            case _:
                found.append(reading(hash_, seq, time=common["time"], received=at))
                continue
        envelope = Envelope(node=NODE, run=ODD, hash=hash_, seq=seq, received=at)
        found.append(Reading(envelope, kind))
    return found


class Filled:
    """A database with March, April and May of 2026, and its archive."""

    def __init__(self, db: Db, folder: Path) -> None:
        self.db = db
        self.folder = folder
        self.url = MysqlUrl(db.url)
        self.hash = new_hash()
        self.march = of_every_kind(self.hash, 1, 3)
        self.april = of_every_kind(self.hash, 21, 4)
        self.may = of_every_kind(self.hash, 41, 5)
        schema.migrate(self.url)
        look_after(self.url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
        self.sink = db.sink()
        assert self.sink.store([*self.march, *self.april, *self.may]) == (60, 0)
        insert = OLD_INSERT.replace("(demand", "(time, demand").replace("(%s", "('2026-03-05', %s")
        for demand in (1437, -1):
            db(insert, demand, demand, demand, "old", "h")
        look_after(self.url, utc=lambda: JUNE_15)

    @property
    def archive(self) -> Archive:
        return Archive(self.url, self.folder, threading.Event(), lambda: JUNE_15)

    def retention(self, keep: int | None = None) -> Retention:
        return Retention(self.archive, keep)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def command(self, *arguments: str, **settings: str) -> stack.Process:
        """Return the command, which has the real clock."""
        env = {"MYSQL_URL": self.db.url, "RAVEN_SQL_ARCHIVE": str(self.folder), **settings}
        command = [str(stack.BIN / "raven-sql-writer"), *arguments]
        return stack.Process(f"command-{new_hash()}", command, self.folder.parent, env)

    def run_command(self, *arguments: str, **settings: str) -> tuple[int, list[str]]:
        process = self.command(*arguments, **settings)
        process.start()
        status = process.wait()
        return status, [line for line in process.text().splitlines() if "stopped" not in line]


@pytest.fixture
def filled(db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setattr(archiving, "LOCK_PAUSE_S", 0.05)
    found = Filled(db, tmp_path / "archive")
    yield found
    found.sink.close()


def assert_all_there(filled: Filled) -> None:
    """Every reading is in its table or in a file, and none in both."""
    query = " UNION ALL ".join(
        f"SELECT seq FROM {table} WHERE seq IS NOT NULL"  # noqa: S608
        for table in rows.COLUMNS
    )
    left = [seq for (seq,) in filled.db(query)]
    archived = []
    for path in filled.folder.glob("*.csv.gz"):
        names, *lines = archives.read(path)
        seq = names.index("seq")
        archived += [int(line[seq] or 0) for line in lines if line[seq]]
    assert sorted(left + archived) == list(range(1, 61))
    ((recorded,),) = filled.db("SELECT SUM(last_seq - first_seq + 1) FROM archived_run")
    assert recorded == len(archived)


def test_a_month_leaves_the_tables_for_files(filled: Filled):
    """Its rows are in files that `sha256sum` proves; roll-ups and other months stay as they are."""
    db = filled.db
    before, rolled = tables(db, "time >= '2026-04-01'"), rollups(db)
    assert filled.retention().archive(MARCH) == 22
    assert filled.files() == sorted(
        f"{table}-2026-03.csv.gz{end}" for table in rows.COLUMNS for end in ("", ".sha256")
    )
    checked = subprocess.run(
        ["sha256sum", "-c", *(name for name in filled.files() if name.endswith(".sha256"))],
        cwd=filled.folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.stdout.count(": OK") == 4
    assert tables(db) == before
    assert rollups(db) == rolled
    assert db("SELECT SUM(readings) FROM demand_rollup WHERE period_s = 86400") == ((25,),)
    assert db("SELECT COUNT(*) FROM demand") == ((16,),)
    assert db("SELECT COUNT(*) FROM energy") == ((8,),)
    assert all(months(db, table)[0] == "2026-04" for table in rows.COLUMNS)
    query = "SELECT file, readings, oldest, newest FROM archive WHERE of_table = %s"
    ((file, readings, oldest, newest),) = db(query, DEMANDS)
    assert (file, readings) == ("instantaneous_demand-2026-03.csv.gz", 10)
    assert (oldest, newest) == (datetime(2026, 3, 2, 3, 7, 5), datetime(2026, 3, 5))  # noqa: DTZ001
    assert db("SELECT * FROM archived_run") == ((filled.hash, 1, 20, "2026-03"),)
    assert_all_there(filled)


def test_an_archive_is_read_without_us(filled: Filled):
    """LOAD DATA of the server takes a file as it is, every column the same."""
    db = filled.db
    db.admin("SET GLOBAL local_infile = 1")
    before = tables(db, "time < '2026-04-01'")
    for table in rows.COLUMNS:
        db(f"CREATE TABLE copy_{table} LIKE {table}")
    filled.retention().archive(MARCH)
    for table in rows.COLUMNS:
        file = filled.folder / f"{table}-2026-03.csv.gz"
        plain = filled.folder / "plain.csv"
        plain.write_bytes(gzip.decompress(file.read_bytes()))
        names = plain.read_text().partition("\n")[0]
        with closing(db.connect(local_infile=True, charset="utf8mb4")) as connection:
            run(connection, "SET time_zone = '+00:00'")
            run(
                connection,
                f"LOAD DATA LOCAL INFILE '{plain}' INTO TABLE copy_{table} CHARACTER SET utf8mb4 "
                "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' IGNORE 1 LINES "
                f"({names})",
            )
        assert db(f"SELECT * FROM copy_{table} ORDER BY id") == before[table]  # noqa: S608


def test_a_restored_month_is_what_it_was_bit_for_bit(filled: Filled):
    """Every column of every row, its flags included; archived again, the files are the same."""
    db, retention = filled.db, filled.retention()
    db("UPDATE notification SET relayed = 1")
    before, rolled = tables(db), rollups(db)
    retention.archive(MARCH)
    retention.archive(APRIL)
    files = {path.name: path.read_bytes() for path in filled.folder.iterdir()}
    assert filled.archive.restore(MARCH) == 22
    assert filled.archive.restore(APRIL) == 20
    assert tables(db) == before
    assert months(db)[:3] == ["2026-03", "2026-04", "2026-05"]
    assert db("SELECT COUNT(*) FROM instantaneous_demand PARTITION (p_2026_03)") == ((10,),)
    assert db("SELECT COUNT(*) FROM archive") == db("SELECT COUNT(*) FROM archived_run") == ((0,),)
    with pytest.raises(FatalError, match="2026-03 is not archived"):
        filled.archive.restore(MARCH)
    look_after(filled.url, utc=lambda: JUNE_15)
    assert filled.sink.store([*filled.march, *filled.april]) == (0, 40)
    assert (tables(db), rollups(db)) == (before, rolled)
    retention.archive(MARCH)
    retention.archive(APRIL)
    assert {path.name: path.read_bytes() for path in filled.folder.iterdir()} == files


def test_a_redelivery_of_what_is_archived_is_a_duplicate(filled: Filled):
    """It is neither stored nor rolled up again, beside readings that are new or in the tables."""
    rolled = rollups(filled.db)
    filled.retention().archive(MARCH)
    after = tables(filled.db)
    assert filled.sink.store([*filled.march, *filled.april]) == (0, 40)
    assert (tables(filled.db), rollups(filled.db)) == (after, rolled)
    (new,) = of_every_kind(new_hash(), 3, 6, 1)
    assert filled.sink.store([*filled.march[:10], new, *filled.may]) == (1, 30)


def test_late_rows_are_stored_rolled_up_and_archived_later(filled: Filled):
    """Readings of an archived month wait with the oldest month that is left."""
    db, retention = filled.db, filled.retention()
    late = of_every_kind(filled.hash, 100, 3, 20)
    retention.archive(MARCH)
    assert filled.sink.store([*late, *filled.march]) == (20, 20)
    query = "SELECT readings FROM demand_rollup WHERE period_s = 86400 AND start = '2026-03-02'"
    assert db(query + " AND node = %s", NODE) == ((16,),)
    retention.archive(APRIL)
    assert sum(map(len, tables(db).values())) == 20, "only May"
    assert set(db("SELECT first_seq, last_seq, month FROM archived_run")) == {
        (1, 20, "2026-03"), (21, 40, "2026-04"), (100, 119, "2026-04"),
    }  # fmt: skip
    assert filled.sink.store([*late, *filled.march, *filled.april]) == (0, 60)
    assert filled.archive.restore(MARCH) == 22
    assert filled.archive.restore(APRIL) == 40
    assert sum(map(len, tables(db).values())) == 82


def test_what_no_relay_has_sent_stays(filled: Filled):
    """Not sent, or nobody took it: the month waits, and says for whom; then it goes."""
    db, retention = filled.db, filled.retention()
    db(
        "INSERT INTO relay (id, source, node, upstream) VALUES (1, 's', 'n', 'mqtts://upstream:8883')"
    )
    with pytest.raises(RetryableError, match="22 rows are not sent to mqtts://upstream:8883; if"):
        retention.archive(MARCH)
    for table in rows.COLUMNS:
        db(f"UPDATE {table} SET relayed = 1 + (id %% 2) WHERE time < %s", "2026-04-01")  # noqa: S608
    db("UPDATE price_cluster SET relayed = 0 ORDER BY id LIMIT 1")
    with pytest.raises(RetryableError, match="1 rows are not sent"):
        retention.archive(MARCH)
    assert not filled.folder.exists()
    db("UPDATE price_cluster SET relayed = 1 WHERE relayed = 0")
    assert retention.archive(MARCH) == 22
    with pytest.raises(RetryableError, match="not sent"):
        retention.archive(APRIL)
    db("DELETE FROM relay")
    assert retention.archive(APRIL) == 20


@pytest.mark.parametrize("table", list(rows.COLUMNS))
def test_what_comes_between_verifying_and_dropping_stays(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, table: str
):
    """A late reading of any table, and a relay: the month is begun again, whole, the next time."""
    late = next(r for r in of_every_kind(filled.hash, 61, 3, 5) if rows.reading_row(r)[0] == table)
    assert late.envelope.seq
    publish = archives.publish
    came: list[Reading] = []

    def meanwhile(part: Path, path: Path) -> str:
        if path.name.startswith(table) and not came:
            came.append(late)
            assert filled.sink.store([late]) == (1, 0)
        return publish(part, path)

    monkeypatch.setattr(archives, "publish", meanwhile)
    with pytest.raises(RetryableError, match=f"rows came to {table} meanwhile"):
        filled.retention().archive(MARCH)
    assert "2026-03" in months(filled.db, table)
    filled.retention().archive(MARCH)
    assert all(fault is None for _, fault in filled.archive.verify([]))
    assert filled.sink.store([late, *filled.march]) == (0, 21)
    ranges = filled.db("SELECT SUM(last_seq - first_seq + 1) FROM archived_run")
    assert ranges == ((21,),)
    assert filled.archive.restore(MARCH) == 23
    assert sum(map(len, tables(filled.db).values())) == 63


def test_a_relay_that_comes_while_a_month_is_archived_keeps_it(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
):
    """What it has not sent is not dropped."""
    publish = archives.publish

    def meanwhile(part: Path, path: Path) -> str:
        filled.db(
            "INSERT IGNORE INTO relay (id, source, node, upstream) VALUES (1, 's', 'n', 'mqtts://upstream:8883')"
        )
        return publish(part, path)

    monkeypatch.setattr(archives, "publish", meanwhile)
    before = tables(filled.db)
    with pytest.raises(RetryableError, match="a relay came meanwhile"):
        filled.retention().archive(MARCH)
    assert tables(filled.db) == before


class PowerCutError(BaseException):
    """Ends the archiving where nothing expects it."""


CHANGES = ("ALTER", "COMMIT", "DELETE", "INSERT", "REPLACE", "UPDATE")


class Fuse:
    """Cuts the power before the n-th change of the database or of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        execute = pymysql.cursors.Cursor.execute

        def fused_execute(cursor: Any, query: str | bytearray, args: Any = None) -> Any:
            if (query if isinstance(query, str) else query.decode()).startswith(CHANGES):
                self.burn()
            return execute(cursor, query, args)

        monkeypatch.setattr(pymysql.cursors.Cursor, "execute", fused_execute)
        places = [(pymysql.connections.Connection, "commit"), (os, "fsync")]
        places += [(Path, "open"), (Path, "replace"), (Path, "unlink")]
        for owner, name in places:
            monkeypatch.setattr(owner, name, self._fused(getattr(owner, name)))

    def burn(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise PowerCutError

    def _fused(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def fused(*args: Any, **kwargs: Any) -> Any:
            self.burn()
            return call(*args, **kwargs)

        return fused


def test_an_archive_that_is_interrupted_anywhere_is_completed_the_next_time(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
):
    """Before each change of the database or of a file: nothing is lost, doubled or left behind."""
    before, rolled = tables(filled.db), rollups(filled.db)
    retention, fuse = filled.retention(), Fuse(monkeypatch)
    for at in count(1):
        fuse.left = at
        try:
            retention.archive(MARCH)
            break
        except PowerCutError:
            fuse.left = 10**9
        assert filled.sink.store([*filled.march, *filled.may]) == (0, 40)
        retention.archive(MARCH)
        assert_all_there(filled)
        assert [fault for _, fault in filled.archive.verify([MARCH])] == [None] * 4
        assert not [name for name in filled.files() if name.endswith(".part")]
        filled.archive.restore(MARCH)
        assert tables(filled.db) == before
    assert at > 40
    assert rollups(filled.db) == rolled


def test_a_restore_that_is_interrupted_anywhere_is_completed_the_next_time(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
):
    """Before each change of the database: nothing is lost or doubled, redeliveries included.

    Nothing is archived until then: a part of a month would take the place of the whole.
    """
    before, rolled = tables(filled.db), rollups(filled.db)
    retention, fuse = filled.retention(), Fuse(monkeypatch)
    for at in count(1):
        retention.archive(MARCH)
        fuse.left = at
        try:
            filled.archive.restore(MARCH)
            break
        except PowerCutError:
            fuse.left = 10**9
        assert filled.sink.store([*filled.march, *filled.may]) == (0, 40)
        ((recorded, restoring),) = filled.db("SELECT COUNT(*), MAX(restoring) FROM archive")
        if restoring:
            for month in (MARCH, APRIL):
                with pytest.raises(RetryableError, match="restore of 2026-03 was interrupted"):
                    retention.archive(month)
        if recorded:
            filled.archive.restore(MARCH)
        assert tables(filled.db) == before
        assert filled.db("SELECT COUNT(*) FROM archived_run") == ((0,),)
    assert at > 15
    assert rollups(filled.db) == rolled


def test_the_command_is_killed_when_half_of_the_month_is_dropped(filled: Filled):
    """Kill -9 between one table's drop and the next one's: the next run drops the others."""
    filled.folder.mkdir()
    command = filled.command("archive", "2026-03")
    with closing(filled.db.connect(autocommit=False)) as record:
        run(record, "SELECT * FROM archive FOR UPDATE")
        command.start()
        with closing(filled.db.connect(autocommit=False)) as reader:
            wait_until(lambda: len(filled.files()) == 8, "the files are written")
            run(reader, "SELECT COUNT(*) FROM current_summation_delivered")
            record.rollback()
            wait_until(lambda: months(filled.db)[0] == "2026-04", "the first table is done")
            command.kill()
    assert months(filled.db, "notification")[0] == "2026-03"
    assert filled.sink.store(filled.march) == (0, 20)
    status, text = filled.run_command("archive", "2026-03")
    assert (status, text) == (0, ["2026-03: 12 rows archived"])
    assert_all_there(filled)
    assert filled.run_command("verify")[0] == 0
    assert filled.sink.store(filled.march) == (0, 20)


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    checksum = path.with_name(f"{path.name}.sha256")
    match how:
        case "changed":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "truncated":
            path.write_bytes(data[:-20])
        case "missing":
            path.unlink()
        case "checksum":
            checksum.write_text(checksum.read_text().replace(path.name, "other"))
        case "no checksum":
            checksum.unlink()
        case "no file":
            path.unlink()
            os.mkfifo(path)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("changed", "its checksum is not the one that was recorded"),
        ("truncated", "its checksum is not the one that was recorded"),
        ("missing", "it cannot be read: "),
        ("checksum", ".csv.gz.sha256 has another checksum"),
        ("no checksum", "it cannot be read: "),
        ("no file", "it cannot be read: there is no such file"),
    ],
)
def test_a_damaged_file_is_found_and_not_restored(filled: Filled, how: str, said: str):
    """`verify` names it and ends with 1, `restore` changes nothing."""
    filled.retention().archive(MARCH)
    name = "notification-2026-03.csv.gz"
    damage(filled.folder / name, how)
    before = tables(filled.db)
    status, text = filled.run_command("verify")
    assert status == 1
    assert [line.endswith(": good") for line in text] == [True, True, False, True, False]
    assert text[2].startswith(f"{name}: ")
    assert said in text[2]
    with pytest.raises(FatalError, match="2026-03 cannot be restored: notification-2026-03"):
        filled.archive.restore(MARCH)
    assert tables(filled.db) == before


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("file", "../notification-2026-03.csv.gz", "it is not in the archive's folder"),
        ("file", "/etc/passwd", "it is not in the archive's folder"),
        ("of_table", "run_info; DROP TABLE run_info", "is no table of readings"),
        ("of_table", "run_info", "is no table of readings"),
    ],
)
def test_a_record_that_somebody_changed_leads_nowhere_else(
    filled: Filled, column: str, value: str, said: str
):
    """Neither another file nor another table is touched, whatever the table `archive` says."""
    filled.retention().archive(MARCH)
    (filled.folder.parent / "notification-2026-03.csv.gz").write_bytes(b"x")
    filled.db(f"UPDATE archive SET {column} = %s WHERE of_table = 'notification'", value)  # noqa: S608 - the test's own
    before = tables(filled.db)
    assert filled.run_command("verify")[0] == 1
    with pytest.raises(FatalError, match=said):
        filled.archive.restore(MARCH)
    assert tables(filled.db) == before


@pytest.mark.parametrize("bomb", ["a line", "rows"])
def test_a_file_that_unpacks_to_gigabytes_costs_neither_memory_nor_time(filled: Filled, bomb: str):
    """One line without an end, or rows without number, whose checksum was recorded too."""
    filled.retention().archive(MARCH)
    path = filled.folder / "notification-2026-03.csv.gz"
    piece = b"0" * 2**20 if bomb == "a line" else b"0\n" * 2**19
    packed = gzip.compress(piece) * 200 if bomb == "a line" else gzip.compress(piece) * 4000
    path.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    filled.db("UPDATE archive SET sha256 = %s WHERE of_table = 'notification'", digest)
    said = "characters or more" if bomb == "a line" else "it has more than"
    tracemalloc.start()
    try:
        with pytest.raises(FatalError, match=said):
            filled.archive.restore(MARCH)
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    finally:
        tracemalloc.stop()


def test_what_the_disk_garbles_is_not_dropped(filled: Filled, monkeypatch: pytest.MonkeyPatch):
    """The file is read back and compared before anything happens."""
    before, write = tables(filled.db), archives.write

    def garbled(path: Path, lines: Any) -> None:
        write(path, lines)
        damage(path, "changed")

    monkeypatch.setattr(archives, "write", garbled)
    with pytest.raises(RetryableError, match="cannot be written"):
        filled.retention().archive(MARCH)
    monkeypatch.setattr(archives, "write", lambda path, lines: write(path, list(lines)[:-1]))
    with pytest.raises(RetryableError, match="not what is stored"):
        filled.retention().archive(MARCH)
    assert tables(filled.db) == before
    assert filled.files() == []


def test_a_full_disk_keeps_the_rows(filled: Filled):
    """The archive's disk is full: nothing leaves the tables; room again is enough."""
    filled.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(filled.folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        before = tables(filled.db)
        ballast = filled.folder / "ballast"
        ballast.write_bytes(bytes(60 * 1024))
        with pytest.raises(RetryableError, match="No space left"):
            filled.retention().archive(MARCH)
        assert tables(filled.db) == before
        assert not [name for name in filled.files() if name.endswith(".part")]
        ballast.unlink()
        assert filled.retention().archive(MARCH) == 22
        assert_all_there(filled)
    finally:
        subprocess.run(["umount", str(filled.folder)], check=True)


def test_a_file_of_somebody_else_is_not_overwritten(filled: Filled):
    """Two databases with one folder: the other one's file stays under another name."""
    filled.folder.mkdir()
    (filled.folder / "notification-2026-03.csv.gz").write_bytes(b"other")
    filled.retention().archive(MARCH)
    assert (filled.folder / "notification-2026-03.csv.gz.d9298a10").read_bytes() == b"other"
    assert_all_there(filled)


def test_what_is_not_committed_yet_is_waited_for(filled: Filled, monkeypatch: pytest.MonkeyPatch):
    """A row whose id is low and whose commit is late is in the file, or the month waits."""
    monkeypatch.setattr(archiving, "LOCK_TRIES", 1)
    insert = OLD_INSERT.replace("(demand", "(time, demand").replace("(%s", "('2026-03-05', %s")
    with closing(filled.db.connect(autocommit=False)) as late:
        run(late, insert, 5, 1, 1, "late", "h")
        filled.db(insert, 6, 1, 1, "later", "h")
        with pytest.raises(RetryableError, match="MySQL is locked"):
            filled.retention().archive(MARCH)
        late.commit()
    assert filled.retention().archive(MARCH) == 24
    assert filled.db("SELECT COUNT(*) FROM instantaneous_demand WHERE hash = 'h'") == ((0,),)


def test_a_reader_of_the_tables_delays_the_archive_and_nobody_else(filled: Filled):
    """An open transaction is waited for a second at a time; who writes waits no longer than that."""
    with closing(filled.db.connect(autocommit=False)) as reader:
        run(reader, "SELECT COUNT(*) FROM notification")
        failed: list[Exception] = []

        def archive() -> None:
            try:
                filled.retention().archive(MARCH)
            except RetryableError as error:
                failed.append(error)

        thread = threading.Thread(target=archive)
        thread.start()
        longest = 0.0
        for seq in count(1000):
            started = time.monotonic()
            assert filled.sink.store(of_every_kind(filled.hash, seq, 6, 1)) == (1, 0)
            longest = max(longest, time.monotonic() - started)
            if not thread.is_alive():
                break
        thread.join()
    (error,) = failed
    assert "MySQL is locked" in str(error)
    assert longest < 5 * archiving.LOCK_WAIT_S
    assert filled.retention().archive(MARCH) == 22


def test_the_files_of_1_0_are_verified_and_restored(filled: Filled):
    """A file without the columns that this version added puts the rows back as they were."""
    before = tables(filled.db), rollups(filled.db)
    filled.retention().archive(MARCH)
    for path in filled.folder.glob("*.csv.gz"):
        names, *lines = archives.read(path)
        kept = [place for place, name in enumerate(names) if name != "claimed_time"]
        part = path.with_suffix(".part")
        archives.write(part, [tuple(line[place] for place in kept) for line in (names, *lines)])
        path.unlink()
        digest = archives.publish(part, path)
        filled.db("UPDATE archive SET sha256 = %s WHERE file = %s", digest, path.name)
    filled.db("DELETE FROM archived_digest")
    assert [fault for _, fault in filled.archive.verify([])] == [None] * 4
    filled.archive.restore(MARCH)
    assert (tables(filled.db), rollups(filled.db)) == before


def test_a_number_used_again_after_its_month_was_archived_is_another_reading(filled: Filled):
    """A redelivery is stored already; another reading under an archived number is poison, each."""
    filled.retention().archive(MARCH)
    assert filled.sink.store(filled.march) == (0, 20)
    for one in (filled.march[0], filled.march[7]):
        later = one.envelope.received + timedelta(milliseconds=1)
        envelope = msgspec.structs.replace(one.envelope, received=later)
        with pytest.raises(PoisonError, match="identity-conflict"):
            filled.sink.store([Reading(envelope, one.notification)])
    filled.archive.restore(MARCH)
    assert filled.db("SELECT COUNT(*) FROM archived_digest") == ((0,),)
    assert filled.sink.store(filled.march) == (0, 20)
    # What an earlier version archived has no digest, and is taken to be the same.
    filled.retention().archive(MARCH)
    filled.db("DELETE FROM archived_digest")
    envelope = msgspec.structs.replace(filled.march[0].envelope, received=T0)
    assert filled.sink.store([Reading(envelope, filled.march[0].notification)]) == (0, 1)


def test_a_writer_stores_while_months_are_archived(filled: Filled):
    """Every reading that comes meanwhile is stored once, late ones too, and none waits long."""
    one, done, late = new_hash(), threading.Event(), threading.Event()
    late.set()
    stored: list[Reading] = []
    longest = 0.0

    def store() -> None:
        nonlocal longest
        with closing(filled.db.sink()) as sink:
            while not done.is_set():
                first = len(stored) + 1
                batch = of_every_kind(one, first, 6, 9)
                batch += of_every_kind(one, first + 9, 3 if late.is_set() else 6, 1)
                started = time.monotonic()
                assert sink.store(batch) == (10, 0)
                longest = max(longest, time.monotonic() - started)
                stored.extend(batch)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        wait_until(lambda: stored, "the writer stores")
        with suppress(RetryableError):
            filled.retention().archive(MARCH)
        late.clear()
        # The batch under way may still hold a late one; the one after it does not.
        under_way = len(stored)
        wait_until(lambda: len(stored) >= under_way + 20, "it stores nothing late")
        for month in (MARCH, APRIL, MAY):
            filled.retention().archive(month)
    finally:
        done.set()
        thread.join()
    assert longest < 20
    assert months(filled.db)[0] == "2026-06"
    assert filled.sink.store(stored) == (0, len(stored))
    query = "SELECT SUM(last_seq - first_seq + 1) FROM archived_run WHERE hash = %s"
    left = sum(map(len, tables(filled.db, f"hash = '{one}'").values()))
    assert filled.db(query, one)[0][0] + left == len(stored)


def test_the_rights_that_are_documented_are_enough(filled: Filled):
    """The account of docs/stores.md archives and restores, and the containers' is the same."""
    db, retention = filled.db, filled.retention()
    page = (stack.ROOT / "docs" / "stores.md").read_text()
    (rights,) = re.findall(r"in its database it needs (.*)\.", page)
    assert set(re.split(", | and ", rights)) == set(WRITER_RIGHTS.split(", "))
    db.admin(f"REVOKE ALL ON {db.name}.* FROM {db.user}@'%'")
    db.admin(f"GRANT {rights.replace(' and ', ', ')} ON {db.name}.* TO {db.user}@'%'")
    assert retention.archive(MARCH) == 22
    assert filled.archive.restore(MARCH) == 22
    db.admin(f"REVOKE LOCK TABLES ON {db.name}.* FROM {db.user}@'%'")
    with pytest.raises(RetryableError, match="MySQL refuses"):
        retention.archive(MARCH)


def test_a_run_is_proved_complete_over_tables_and_archive(filled: Filled):
    """The query of docs/stores.md, whatever has left the tables."""
    page = (stack.ROOT / "docs" / "stores.md").read_text()
    (query,) = re.findall(r"```sql\n(SELECT r\.hash.*?);", page, re.DOTALL)
    for month in (MARCH, APRIL):
        assert filled.db(query) == ((filled.hash, 60, 60),)
        filled.retention().archive(month)
    filled.sink.store(of_every_kind(filled.hash, 70, 3, 1))
    assert filled.db(query) == ((filled.hash, 70, 61),)


class Clock(threading.Event):
    """A stop that comes after so many rounds, none of which takes any time."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout == 300
        self.rounds -= 1
        return self.rounds < 0


def test_the_service_archives_by_itself(filled: Filled, caplog: pytest.LogCaptureFixture):
    """Not within the first hour, then each day; two whole months before this one stay."""
    caplog.set_level("INFO")
    retention = filled.retention(keep=2)
    housekeeping.run(filled.url, retention, Clock(11), lambda: JUNE_15)
    assert months(filled.db)[0] == "2026-03"
    stop = Clock(12)
    housekeeping.run(filled.url, retention, stop, lambda: JUNE_15)
    assert months(filled.db)[0] == "2026-04"
    assert stop.is_set()
    archived = [record for record in caplog.records if record.msg == "archived"]
    assert [(str(record.month), record.rows) for record in archived] == [("2026-03", 22)]
    filled.db(
        "INSERT INTO relay (id, source, node, upstream) VALUES (1, 's', 'n', 'mqtts://upstream:8883')"
    )
    july = Retention(replace(filled.archive, utc=lambda: datetime(2026, 7, 2, tzinfo=UTC)), 1)
    filled.db("UPDATE instantaneous_demand SET relayed = 1 WHERE time > '2026-05-01'")
    archive_due(july)
    put_off = [record for record in caplog.records if record.msg == "archiving postponed"]
    assert [str(record.month) for record in put_off] == ["2026-04", "2026-05"]
    assert "20 rows are not sent" in put_off[0].reason


def test_a_writer_that_archives_stores_and_ends_when_asked(sql: SqlSystem, tmp_path: Path):
    """The thread beside it neither keeps it from storing nor from ending."""
    sql.writer.env |= {"RAVEN_SQL_KEEP_MONTHS": "1", "RAVEN_SQL_ARCHIVE": str(tmp_path / "a")}
    sql.start_writing("--rate", "100", "--count", "50")
    sql.assert_complete()
    sql.writer.send(signal.SIGTERM)
    assert sql.writer.wait() == 0


def test_a_newer_database_ends_the_service(filled: Filled):
    """The thread that looks after the tables stops the others and says why."""
    filled.db("INSERT INTO schema_version (version, name) VALUES (99, 'later')")
    stop = Clock(5)
    with pytest.raises(FatalError, match="at version 99"):
        housekeeping.run(filled.url, None, stop)
    assert stop.is_set()


def test_the_commands_say_what_they_did(filled: Filled):
    """A line each; 0 if all is well, 1 if not, 2 for what is no month, 78 for settings."""
    unset = {"RAVEN_SQL_ARCHIVE": ""}
    status, text = filled.run_command("archive", **unset)
    assert status == 78
    assert text == ["raven-sql-writer: RAVEN_SQL_ARCHIVE is not set: allowed is a path"]
    status, text = filled.run_command("archive")
    assert status == 1
    assert "say which months, or set RAVEN_SQL_KEEP_MONTHS" in text[0]
    this_month = f"{datetime.now(UTC):%Y-%m}"
    status, text = filled.run_command("archive", this_month)
    assert status == 1
    assert f"{this_month} is not over" in text[0]
    status, text = filled.run_command("restore", "2026-13")
    assert status == 2
    assert "'2026-13' is no month as 2026-03" in text[-1]
    passed = Month.of(datetime.now(UTC)).number - APRIL.number
    status, text = filled.run_command("archive", RAVEN_SQL_KEEP_MONTHS=str(passed))
    assert (status, text) == (0, ["2026-03: 22 rows archived"])
    filled.db(
        "INSERT INTO relay (id, source, node, upstream) VALUES (1, 's', 'n', 'mqtts://upstream:8883')"
    )
    status, text = filled.run_command("archive", "2026-03", "2026-04")
    assert status == 1
    assert text[0] == "2026-03: 0 rows archived"
    assert text[1].startswith("2026-04: put off: 20 rows are not sent")
    assert filled.run_command("verify", "2026-03")[0] == 0
    status, text = filled.run_command("verify", "2026-04")
    assert (status, text[0]) == (1, "2026-04: it is not archived")
    assert filled.run_command("restore", "2026-03") == (0, ["2026-03: 22 rows restored"])
    status, text = filled.run_command("restore", "2026-03")
    assert status == 1
    assert "2026-03 is not archived" in text[-1]
