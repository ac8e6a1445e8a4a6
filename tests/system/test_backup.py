"""Everything is backed up while readings come, lost, put back, and compared reading by reading."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raven_harness import stack
from raven_verify import spool
from ravenbus.errors import FatalError, RavenError
from ravenbus.messages import Reading, now
from ravenbus.months import Month
from ravenbus.notifications import KINDS
from ravenbus.ranges import of_numbers
from ravenmongo.archiving import MongoArchive
from ravenmongo.copying import MongoCopying
from ravenmongo.rollups import RollUps
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from ravensql import copying, rows, schema
from ravensql.archiving import Archive
from ravensql.housekeeping import look_after
from ravensql.settings import MysqlUrl
from tests import judge
from tests.kinds import new_hash

from .sql import OLD_INSERT, Db
from .system import NODE, wait_until
from .test_retention import of_every_kind
from .test_sql_relay import RelaySystem
from .test_sql_writer import from_rows
from .test_verify import Done, VerifySystem

MARCH = Month.parse("2026-03")
OWN: dict[str, tuple[str, ...]] = {
    "times": (
        "CREATE TABLE `o'wn` (a DATETIME(3), b TIME(6), c DATE, d TIMESTAMP(6) NULL, e YEAR)",
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
        "SET SESSION time_zone = '+11:00'",
        (
            "INSERT INTO `o'wn` VALUES "
            "('2026-03-01 01:02:03.004', '-838:59:59', '0000-00-00', '2026-10-25 01:30:00.123456', 0), "
            "('2026-02-30', '00:00:00.000001', '2026-02-31', NULL, 1999)"
        ),
    ),
    "numbers": (
        "CREATE TABLE t (a FLOAT, b DOUBLE, c DECIMAL(65, 30), d BIT(64), e BIT(3))",
        (
            "INSERT INTO t VALUES (0.1, 0.30000000000000004, -1e-30, X'80FF00FF00FF00FF', b'101'), "
            "(16777217, 5e-324, 1e34, 0, 0), (-0e0, -0e0, 0, 1, 1), (3.4e38, 1.7976931348623157e308, 0, 2, 2)"
        ),
    ),
    "a number that begins at zero": (
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
        "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "INSERT INTO t VALUES (0, 1), (1, 2), (7, 3)",
    ),
    "texts": (
        (
            "CREATE TABLE t (a TEXT CHARACTER SET utf8mb4, b VARBINARY(9), c VARCHAR(9) CHARACTER SET utf16, "
            "d ENUM('a', 'b,c'), e JSON)"
        ),
        (
            "INSERT INTO t VALUES (CONCAT('\\r\\n', CHAR(0), _utf8mb4 X'F09F9880'), X'00FF5C27', 'x ', 'b,c', "
            "'{\"a\": null}'), ('\\\\N', '', '', NULL, NULL)"
        ),
        "SET SESSION sql_mode = ''",
        "INSERT INTO t (d) VALUES ('none of them')",
    ),
    "large": (
        "CREATE TABLE t (a LONGBLOB, b LONGTEXT)",
        "INSERT INTO t VALUES (REPEAT('x', 1900000), NULL), (NULL, REPEAT('y', 3900000))",
    ),
    "shapes": (
        "CREATE TABLE t (a POINT, b POLYGON)",
        (
            "INSERT INTO t VALUES (ST_GeomFromText('POINT(1.5 -2)'), "
            "ST_GeomFromText('POLYGON((0 0, 0 1, 1 1, 0 0))'))"
        ),
    ),
    "names": (
        "CREATE TABLE `../50%s a``b` (`a%b` INT, `values (%s)` INT, c INT AS (`a%b` + 1) STORED)",
        "INSERT INTO `../50%s a``b` (`a%b`, `values (%s)`) VALUES (1, 2)",
    ),
    "keys": (
        "CREATE TABLE b (id INT PRIMARY KEY)",
        "CREATE TABLE a (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES b (id))",
        "INSERT INTO b VALUES (1)",
        "INSERT INTO a VALUES (1)",
    ),
    "views of views": (
        "CREATE TABLE t (a INT)",
        "CREATE VIEW z AS SELECT a FROM t",
        "CREATE VIEW a AS SELECT a FROM z",
    ),
}
OWN_IN_MARIADB: dict[str, tuple[str, ...]] = {
    "a sequence": (
        "CREATE SEQUENCE z START WITH 5",
        "CREATE TABLE t (id BIGINT DEFAULT NEXTVAL(z), a INT)",
        "INSERT INTO t (a) VALUES (1), (2)",
    ),
    "versions": ("CREATE TABLE t (a INT) WITH SYSTEM VERSIONING", "INSERT INTO t VALUES (1)"),
}


class BackupSystem(VerifySystem):
    """A home with both stores whose databases can be destroyed."""

    def backup(self, *arguments: str, **settings: str) -> Done:
        return self.command("raven-backup", *arguments, str(self.backups), **settings)

    def restore(self, *arguments: str, **settings: str) -> Done:
        return self.command("raven-restore", *arguments, str(self.backups), **settings)

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def newest(self) -> Path:
        return max(self.backups.glob("*Z"))

    def start_again(self) -> None:
        """Start the services that were stopped for the restore."""
        for store in (self.recorder, self.writer):
            if not store.running:
                store.start()
            self.wait_for_log(store, "connected to the broker")

    def destroy_mysql(self) -> None:
        """Leave an empty database, as on another machine."""
        self.sql.admin(f"DROP DATABASE {self.sql.name}")
        self.sql.admin(f"CREATE DATABASE {self.sql.name}")

    def destroy_mongo(self) -> None:
        self.db.client.drop_database(self.db.name)

    def numbers(self) -> tuple[list[int], list[int]]:
        """Return what MySQL and MongoDB have of the reader's run."""
        hash_ = self.accepted()[0]
        return judge.in_sql(self.sql.url, hash_)[1], judge.in_mongo(self.db, hash_)[1]

    def accept_more(self, count: int) -> int:
        """Wait until the reader has accepted so many more and both stores have those; return all."""
        goal = self.accepted()[1] + count
        wait_until(lambda: all(max(found, default=0) >= goal for found in self.numbers()), "more")
        return self.accepted()[1]

    def wait_until_settled(self) -> None:
        """Wait until both stores have confirmed what the reader, which is idle, still had."""
        folder, hash_ = self.folder / f"state-{NODE}", self.accepted()[0]
        wait_until(lambda: not (spool.accepted(folder) or {})[hash_].under_way, "nothing waits")

    def readings(self) -> dict[str, Any]:
        """Return all rows and documents of readings by their identity."""
        every = self.everything()
        documents = {
            ("MongoDB", one["hash"], one["seq"]): one
            for kind in KINDS
            for one in every[f"mongo {kind}"]
        }
        in_rows = {
            ("MySQL", *row[: len(rows.IDENTITY)]): row
            for table in rows.COLUMNS
            for row in every[table]
        }
        return documents | in_rows


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None, db: Db) -> Iterator[BackupSystem]:
    built = BackupSystem(tmp_path, mongo, db)
    yield built
    built.close()


# The whole chain


def test_both_stores_are_lost_and_put_back_while_the_reader_goes_on(system: BackupSystem):
    """What came before the backup and after the restore is there once; the rest is said exactly."""
    begin(system)
    before = system.accept_more(100)
    kept = system.readings()
    done = system.backup()
    assert done.status == 0, done.err
    system.accept_more(50)
    # What is stored is confirmed, and so lost, once a store goes on to what comes after it.
    system.accept_more(50)
    system.writer.kill()
    system.recorder.kill()
    system.destroy_mysql()
    system.destroy_mongo()
    lost_until = system.accepted()[1]

    done = system.restore()
    assert done.status == 0, done.err
    system.start_again()
    system.accept_more(100)
    sent, accepted = finish(system)
    assert accepted == sent, "the reader missed nothing of what the stick sent"
    system.wait_until_settled()
    for numbers in system.numbers():
        missing = sorted(set(range(1, accepted + 1)) - set(numbers))
        assert len(numbers) == len(set(numbers)), "each once"
        assert missing, "the test has to lose something"
        assert before < missing[0], "what was confirmed before the backup is there"
        assert missing[-1] <= lost_until, "and what was accepted after the loss"
    now_there = system.readings()
    assert {identity: now_there[identity] for identity in kept} == kept
    status, run = system.run_report(system.accepted()[0])
    assert status == 1, "what is lost is known"
    for store, numbers in zip(("MySQL", "MongoDB"), system.numbers(), strict=True):
        lacking = set(range(1, accepted + 1)) - set(numbers)
        ranges = [list(one) for one in of_numbers(sorted(lacking))]
        assert run["stores"][store]["lacking"] == ranges
    assert_rolled_up(system)


def test_what_one_store_lost_the_other_gives_back(system: BackupSystem):
    """After a restore of MySQL alone, `raven-verify --repair` leaves both with all that was sent."""
    begin(system)
    system.accept_more(100)
    assert system.backup().status == 0
    system.accept_more(50)
    system.writer.kill()
    system.destroy_mysql()
    done = system.restore(MONGO_URL="")
    assert (done.status, "MongoDB: in the backup, but not set" in done.out) == (0, True), done
    system.start_again()
    system.accept_more(50)
    sent, accepted = finish(system)
    assert accepted == sent
    system.wait_until_settled()
    assert system.verify().status == 1
    done = system.verify("--repair")
    assert done.status == 0, done
    assert system.numbers() == (list(range(1, accepted + 1)),) * 2
    assert judge.in_sql(system.sql.url, system.accepted()[0])[0] == system.sent()


def test_a_reader_on_an_empty_machine_begins_a_run_of_its_own(system: BackupSystem):
    """Its numbers begin at 1 under another hash, so nothing that it says is taken for stored."""
    begin(system)
    system.accept_more(50)
    system.reader.stop()
    old = system.accepted()[0]
    wait_until(lambda: system.numbers()[0] == system.numbers()[1], "both have all")
    assert system.backup().status == 0
    before = system.numbers()
    system.writer.stop()
    system.recorder.stop()
    system.destroy_mysql()
    system.destroy_mongo()
    (system.folder / f"state-{NODE}").rename(system.folder / "lost")
    assert system.restore().status == 0
    system.start_again()
    system.reader.start()
    wait_until(lambda: system.accepted()[1] > 50, "it goes on")
    new = system.accepted()[0]
    assert new != old
    system.accept_more(20)
    system.reader.stop()
    assert (judge.in_sql(system.sql.url, old)[1], judge.in_mongo(system.db, old)[1]) == before
    status, _ = system.run_report(new)
    assert status == 0
    assert system.sql("SELECT COUNT(*) FROM dead_letter") == ((0,),)


def test_rows_that_scripts_insert_after_a_restore_conflict_with_none_upstream(
    tmp_path: Path, mongo: stack.Mongo | None, db: Db
):
    """The relay numbers them anew: upstream gets each, though it has rows that were lost here."""
    system = RelaySystem(tmp_path, mongo, db)
    backups = str(tmp_path / "backups")

    def tool(name: str) -> None:
        env = {"PATH": os.environ["PATH"], "MYSQL_URL": db.url}
        subprocess.run([stack.BIN / name, backups], env=env, check=True, capture_output=True)

    def insert(*demands: int) -> None:
        for demand in demands:
            db(OLD_INSERT, demand, 1, 1000, "r", "a script's")

    def upstream() -> list[int]:
        found = system.db["instantaneous_demand"].find({"run": "r"}, {"demand": 1})
        return sorted(one["demand"] for one in found)

    try:
        with closing(db.sink()) as sink:
            sink.prepare()
        system.start_upstream()
        system.relay.start()
        insert(1, 2)
        system.wait_until_relayed(2)
        tool("raven-backup")
        insert(3, 4)
        system.wait_until_relayed(4)
        system.relay.stop()
        db.admin(f"DROP DATABASE {db.name}")
        db.admin(f"CREATE DATABASE {db.name}")
        tool("raven-restore")
        assert db("SELECT COUNT(*) FROM instantaneous_demand") == ((2,),)
        system.relay.start()
        insert(5, 6)
        system.wait_until_relayed(4)
        wait_until(lambda: upstream() == [1, 2, 3, 4, 5, 6], "each is upstream once")
        assert system.db["dead_letter"].count_documents({}) == 0
    finally:
        system.close()


# What is in it


def test_archived_months_leave_with_the_backup_and_can_still_be_restored(system: BackupSystem):
    """Files, their checksums, the numbers that left: redeliveries are known, rows come back."""
    archives = {name: system.folder / name for name in ("sql-archive", "mongo-archive")}
    settings = {
        "RAVEN_SQL_ARCHIVE": str(archives["sql-archive"]),
        "RAVEN_MONGO_ARCHIVE": str(archives["mongo-archive"]),
    }
    hash_ = new_hash()
    readings = of_every_kind(hash_, 1, 3) + of_every_kind(hash_, 21, 4)
    fill(system, readings)
    archive_march(system, archives["sql-archive"], archives["mongo-archive"])
    before = system.everything()
    refused = system.backup()
    assert refused.status == 1
    assert "nothing says where their files are" in refused.err
    assert not list(system.backups.glob("*Z"))
    done = system.backup(**settings)
    assert done.status == 0, done.err
    assert done.out.count("4 files of archived months") == 2

    system.destroy_mysql()
    system.destroy_mongo()
    for folder in archives.values():
        folder.rename(folder.with_name(f"{folder.name}-lost"))
    assert system.restore(**settings).status == 0
    assert system.everything() == before
    url, mongo_url = MysqlUrl(system.sql.url), MongoUrl(system.mongo_url)
    archive = Archive(url, archives["sql-archive"], threading.Event())
    assert {wrong for _, wrong in archive.verify([])} == {None}
    with closing(system.sql.sink()) as sink, closing(MongoSink(system.mongo_url)) as mongo:
        for store in (sink, mongo):
            store.prepare()
            assert store.store(readings) == (0, 40), "all are known"
    assert archive.restore(MARCH) == 20
    in_mongo = MongoArchive(mongo_url, archives["mongo-archive"], None, threading.Event())
    with closing(in_mongo):
        assert in_mongo.restore(MARCH) == 20
    for numbers in (judge.in_sql(system.sql.url, hash_), judge.in_mongo(system.db, hash_)):
        assert numbers[1] == list(range(1, 41))


def test_a_damaged_file_of_the_archive_is_told_and_the_rest_is_kept(system: BackupSystem):
    """Status 1 and the name of the file; older backups, which may have it, are not removed."""
    archives = system.folder / "sql-archive", system.folder / "mongo-archive"
    fill(system, of_every_kind(new_hash(), 1, 3))
    archive_march(system, *archives)
    damaged = archives[0] / "notification-2026-03.csv.gz"
    settings = {"RAVEN_SQL_ARCHIVE": str(archives[0]), "RAVEN_MONGO_ARCHIVE": str(archives[1])}
    assert system.backup("--keep", "1", **settings).status == 0
    damaged.write_bytes(damaged.read_bytes()[:-1])
    first = system.newest
    wait_until(lambda: f"{now():%S}" != first.name[-3:-1], "the next second")
    done = system.backup("--keep", "1", **settings)
    assert done.status == 1
    assert f"not kept: {damaged.name}: its checksum" in done.err
    assert len(list(system.backups.glob("*Z"))) == 2
    assert (system.newest / "mysql" / "instantaneous_demand.csv.gz").exists()


def test_tables_of_others_and_what_rows_hold_come_back_to_the_last_bit(system: BackupSystem):
    """Every column of every row, binary ones and times too; views, partitions and numbering."""
    fill(system, of_every_kind(new_hash(), 1, 4))
    system.sql("CREATE TABLE `o'wn` (a INT)")
    system.sql("INSERT INTO `o'wn` VALUES (1)")
    system.sql("INSERT INTO dead_letter (id, service, at, reason, detail, payload, size) VALUES "
               "('x', 's', NOW(6), 'r', 'd', X'000AFF0D5C4E', 6)")  # fmt: skip
    before, made = everything(system.sql), shapes(system.sql)
    assert system.backup(MONGO_URL="").status == 0
    system.destroy_mysql()
    assert system.restore(MONGO_URL="").status == 0
    assert everything(system.sql) == before
    assert shapes(system.sql) == made


@pytest.mark.parametrize("which", [*OWN, *OWN_IN_MARIADB])
def test_what_others_have_in_the_database_comes_back(db: Db, tmp_path: Path, which: str):
    """Whatever types, names and values; no file is made but in the backup's folder."""
    if which in OWN_IN_MARIADB and not db.is_mariadb:
        pytest.skip("MariaDB's own")
    with closing(db.connect()) as connection, connection.cursor() as cursor:
        for statement in (OWN | OWN_IN_MARIADB)[which]:
            cursor.execute(statement)
    before, made = everything(db), shapes(db)
    folder = tmp_path / "a" / "backup"
    folder.mkdir(parents=True)
    one = copying.MysqlCopying(MysqlUrl(db.url))
    one.save(folder)
    assert [file for file in tmp_path.rglob("*") if file.is_file() and file.parent != folder] == []
    db.admin(f"DROP DATABASE {db.name}")
    db.admin(f"CREATE DATABASE {db.name}")
    for _ in range(2):
        one.load(folder)
        found, found_made = everything(db), shapes(db)
        assert found.pop(copying.VERSIONS) == []
        assert found_made.pop(copying.VERSIONS)
        assert (found, found_made) == (before, made)


def test_a_backup_that_breaks_off_says_one_sentence(db: Db, tmp_path: Path):
    """On a full disk as at a stop: it does not read the rest of the table, and no trace is left."""
    db("CREATE TABLE t (a VARCHAR(64))")
    db("INSERT INTO t VALUES ('0')")
    for _ in range(17):
        db("INSERT INTO t SELECT SHA2(UUID(), 256) FROM t")
    env = {"PATH": os.environ["PATH"], "MYSQL_URL": db.url}
    command = ["prlimit", "--fsize=100000", stack.BIN / "raven-backup", tmp_path / "b"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"raven-backup: {tmp_path}/b: File too large\n")
    assert [file.name for file in (tmp_path / "b").iterdir()] == [".lock"]


def test_a_view_of_what_is_gone_keeps_nothing_else_from_coming_back(db: Db, tmp_path: Path):
    """The rest is there for the services; status 1 says which view and why."""
    for statement in ("CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)", "CREATE TABLE gone (a INT)",
                      "CREATE VIEW a AS SELECT a FROM gone", "CREATE VIEW b AS SELECT a FROM t",
                      "DROP TABLE gone"):  # fmt: skip
        db(statement)
    one = copying.MysqlCopying(MysqlUrl(db.url))
    one.save(tmp_path)
    with pytest.raises(FatalError, match=r"back but for the view a: .*gone"):
        one.load(tmp_path)
    assert db("SELECT a FROM b") == ((1,),)
    assert db("SELECT * FROM schema_version") == ()


def test_a_database_of_1_0_is_backed_up_before_it_is_upgraded(db: Db, tmp_path: Path):
    """Tables that python-raven itself made, and no writer ever touched, are kept and come back."""
    db.make_legacy()
    db(OLD_INSERT, 5, 1, 1000, "r", "h")
    before = everything(db)
    env = {"PATH": os.environ["PATH"], "MYSQL_URL": db.url}
    subprocess.run([stack.BIN / "raven-backup", tmp_path / "b"], env=env, check=True)
    db.admin(f"DROP DATABASE {db.name}")
    db.admin(f"CREATE DATABASE {db.name}")
    subprocess.run([stack.BIN / "raven-restore", tmp_path / "b"], env=env, check=True)
    found = everything(db)
    assert found.pop("schema_version") == []
    assert found == before
    with closing(db.sink()) as sink:
        sink.prepare()
    assert db("SELECT demand FROM instantaneous_demand") == ((5,),)


# What is refused


def test_a_store_that_has_something_is_left_as_it_is(system: BackupSystem):
    """Without --replace nothing is written over; with it the store is what the backup has."""
    fill(system, of_every_kind(new_hash(), 1, 4))
    before = system.everything()
    assert system.backup().status == 0
    fill(system, of_every_kind(new_hash(), 1, 4))
    after = system.everything()
    done = system.restore()
    assert done.status == 1
    assert done.err.count(": --replace removes everything there first") == 2
    assert "has rows in its table current_summation_delivered" in done.err
    assert system.everything() == after
    assert system.restore("--replace").status == 0
    assert system.everything() == before


def test_an_interrupted_restore_is_refused_by_services_and_begun_again(
    system: BackupSystem, monkeypatch: pytest.MonkeyPatch
):
    """Half of a database is never taken for one: writer and recorder end with a sentence."""
    fill(system, of_every_kind(new_hash(), 1, 4))
    before = system.everything()
    assert system.backup().status == 0
    folder = system.newest / "mysql"
    one = copying.MysqlCopying(MysqlUrl(system.sql.url))

    def broken(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(copying, "_filled", broken)
    with pytest.raises(KeyboardInterrupt):
        one.load(folder)
    system.db["schema"].update_one({}, {"$set": {"version": schema.RESTORING}})
    system.broker.start()
    for store in (system.writer, system.recorder):
        store.start()
        assert store.wait() == 1
        assert "the database is being restored, or that was interrupted" in store.text()
    assert system.restore().status == 0, "no --replace is needed"
    assert system.everything() == before


def test_a_writer_that_was_not_stopped_is_refused_while_tables_are_filled(
    db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What it would count meanwhile would keep the roll-ups of the backup out."""
    url = MysqlUrl(db.url)
    with closing(db.sink()) as sink:
        sink.prepare()
        look_after(url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
        sink.store(of_every_kind(new_hash(), 1, 3))
        before = everything(db)
        one = copying.MysqlCopying(url)
        one.save(tmp_path)
        filled, refusals = copying._filled, []

        def meanwhile(*arguments: Any) -> int:
            with pytest.raises(RavenError) as refusal:
                sink.store(of_every_kind(new_hash(), 1, 3))
            refusals.append(str(refusal.value))
            return filled(*arguments)

        monkeypatch.setattr(copying, "_filled", meanwhile)
        one.load(tmp_path)
        assert everything(db) == before
    assert "being restored" in refusals[-1]


def test_what_a_recorder_counted_that_was_not_stopped_is_counted_again(
    system: BackupSystem, monkeypatch: pytest.MonkeyPatch
):
    """It may have been through before the first reading was back."""
    fill(system, of_every_kind(new_hash(), 1, 3))
    url, folder = MongoUrl(system.mongo_url), system.folder / "copy"
    folder.mkdir()
    filled = MongoCopying._filled

    def meanwhile(one: MongoCopying, *arguments: Any) -> int:
        with closing(RollUps(url, threading.Event())) as counting:
            assert not counting.count_before(60)
        return filled(one, *arguments)

    with closing(MongoCopying(url)) as one:
        one.save(folder)
        monkeypatch.setattr(MongoCopying, "_filled", meanwhile)
        one.load(folder)
    assert_rolled_up(system)


def test_a_newer_recorder_s_database_ends_an_older_one(system: BackupSystem):
    """It says which release made the database and what to do."""
    fill(system, [])
    newer = {"version": 2, "program": "9.0.0"}
    system.db["schema"].update_one({}, {"$set": newer})
    system.broker.start()
    system.recorder.start()
    assert system.recorder.wait() == 1
    assert "which 9.0.0 made" in system.recorder.text()
    assert "run 9.0.0, or restore a backup that was made before" in system.recorder.text()


def begin(system: BackupSystem) -> None:
    """Start everything, the stick sending all the time."""
    system.start_stores()
    system.plug_in("--rate", "50")
    system.reader.start()


def finish(system: BackupSystem) -> tuple[int, int]:
    """End the stick; return how many readings it sent and the reader accepted."""
    system.simulator.stop()
    system.wait_for_log(system.reader, "problem check=device")
    return system.sent().total(), system.accepted()[1]


def fill(system: BackupSystem, readings: list[Reading]) -> None:
    """Have both stores hold readings; tables have the months from March on."""
    url = MysqlUrl(system.sql.url)
    schema.migrate(url)
    look_after(url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    with closing(system.sql.sink()) as sink, closing(MongoSink(system.mongo_url)) as mongo:
        for store in (sink, mongo):
            store.prepare()
            store.store(readings)


def archive_march(system: BackupSystem, in_sql: Path, in_mongo: Path) -> None:
    for service, settings in (
        (system.writer, {"RAVEN_SQL_ARCHIVE": str(in_sql)}),
        (system.recorder, {"RAVEN_MONGO_ARCHIVE": str(in_mongo)}),
    ):
        command = [*service.command, "archive", "2026-03"]
        env = {"PATH": os.environ["PATH"], **service.env, **settings}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("2026-03: 20 "), done


def everything(db: Db) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, a FLOAT with all of its digits."""
    found = {}
    for name, kind in db("SHOW FULL TABLES"):
        if kind != "VIEW":
            columns = ", ".join(
                f"{quoted(column)}{' * 1e0' if kind == 'float' else ''}"
                for column, kind in db(
                    "SELECT column_name, data_type FROM information_schema.columns WHERE "
                    "table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
                    name,
                )
            )
            found[name] = sorted(db(f"SELECT {columns} FROM {quoted(name)}"), key=repr)  # noqa: S608
    return found


def shapes(db: Db) -> dict[str, str]:
    """Return how all tables and views are made."""
    names = [name for name, _ in db("SHOW FULL TABLES")]
    return {name: db(f"SHOW CREATE TABLE {quoted(name)}")[0][1] for name in names}


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def assert_rolled_up(system: BackupSystem) -> None:
    """Both stores' roll-ups are what their readings come to."""
    rolled_up = (
        "SELECT start, SUM(readings), SUM(sum_kw), MIN(min_kw), MAX(max_kw) FROM demand_rollup "
        "WHERE period_s = 300 GROUP BY start"
    )
    assert sorted(system.sql(rolled_up)) == from_rows(system.sql, 300)
    with closing(RollUps(MongoUrl(system.mongo_url), threading.Event())) as counting:
        counting.count_due()
        assert not counting.count_before(60)
    counted = sum(one["readings"] for one in system.db["demand_rollup"].find({"period_s": 300}))
    assert counted == system.db["instantaneous_demand"].count_documents({})
