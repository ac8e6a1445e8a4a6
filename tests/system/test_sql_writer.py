"""What the stick sent is in MariaDB once, and python-raven's old tables are taken over as they are.

The server's own time zone is not UTC, so that a time that depends on a session's zone is noticed.
MYSQL_ADMIN_URL runs the tests on another server, as a MySQL, with an account that may make others.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pymysql
import pytest

from raven_harness import stack
from raven_harness.certificates import Authority
from ravenbus.consumer import Consumer
from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import DeadLetter, Envelope, Reading, Run, encode
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import Broker, Published
from ravenbus.notifications import CurrentSummationDelivered, PriceCluster
from ravenbus.retrying import Retry
from ravenbus.settings import MqttUrl
from ravenbus.slots import Alone
from ravenbus.storing import Storing
from ravenbus.topics import Topics
from ravensql import rows, schema
from ravensql.housekeeping import look_after
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from tests import judge
from tests.kinds import METER, T0, new_hash, reading

from .sql import DATA, OLD_INSERT, Db, SqlSystem, run
from .system import NODE, WAIT_S, patiently, wait_until

# From the stick to the tables


@pytest.mark.parametrize("model", ["raven", "emu2"])
def test_every_report_is_stored_once(sql: SqlSystem, model: str):
    """A RAVEn's and an EMU-2's reports arrive complete, exact, and with one row for their run."""
    sql.start_writing("--model", model, "--rate", "100", "--count", "400")
    sql.assert_complete()
    hash_, accepted = sql.accepted()
    query = "SELECT name, hash, node, last_seq, meter_id FROM run_info"
    ((name, stored, node, last_seq, meter),) = sql.sql(query)
    assert (name, stored, node, last_seq) == ("default", hash_, NODE, accepted)
    demands = sql.sql("SELECT demand, divisor, demand_kw, meter FROM instantaneous_demand")
    assert demands
    for demand, divisor, demand_kw, its_meter in demands:
        assert demand_kw == Decimal(demand) / divisor
        assert its_meter == meter


def test_a_writer_that_is_killed_in_mid_batch_loses_and_doubles_nothing(sql: SqlSystem):
    """Kill -9 of the writer at any moment: the broker gives the batch to the next one."""
    sql.start_writing("--rate", "200", "--count", "1600")
    for count in range(100, 1300, 200):
        sql.wait_until_stored(count)
        sql.writer.kill()
        sql.writer.start()
    sql.assert_complete()


def test_what_waits_in_the_session_of_an_older_version_is_stored(sql: SqlSystem):
    """Before 1.1 its name was the client id alone; what it holds is stored, and it is ended."""
    sql.broker.start()
    old = Broker(
        MqttUrl(sql.broker.url("sql-writer")), "sql-writer", session_expiry_s=3600, secret=False
    )

    def session_present() -> bool:
        connection = patiently(lambda: old(SimpleQueue()))
        connection.subscribe(["raven/v1/+/reading/+", "raven/v1/+/run", "raven/v1/dead/reader"])
        patiently(connection.settle)
        connection.close()
        return connection.session_present

    assert not session_present()
    home, hash_ = sql.client(NODE), new_hash()
    for seq in range(1, 101):
        home.publish(f"raven/v1/{NODE}/reading/instantaneous_demand", encode(reading(hash_, seq)))
    answered = 0
    while answered < 100:
        answered += isinstance(home.events.get(timeout=30), Published)
    sql.writer.start()
    sql.wait_for_log(sql.writer, "connected to the broker")
    wait_until(lambda: len(judge.in_sql(sql.sql.url, hash_)[1]) == 100, "all is stored")
    sql.wait_for_log(sql.writer, "session drained and ended")
    assert sql.writer.stop() == 0
    assert not session_present()


def test_a_database_that_is_away_is_waited_for(sql: SqlSystem, mariadb: stack.MariaDb | None):
    """The server is killed in mid-commit and comes back later: all is stored once."""
    if not mariadb:
        pytest.skip("MYSQL_ADMIN_URL names a server that is not ours to kill")
    sql.start_writing("--rate", "100", "--count", "900")
    for count in (100, 500):
        sql.wait_until_stored(count)
        sql.outage(mariadb, sql.writer)
    sql.assert_complete()
    assert sql.writer.text().count("problem check=store") < 10


class AtOnce(threading.Event):
    """A stop whose waits take no time and move a clock; after an hour of it ``then`` happens."""

    def __init__(self, then: Callable[[], Any]) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._then = then

    def wait(self, timeout: float | None = None) -> bool:
        before = sum(self.waits)
        self.waits.append(timeout or 0)
        if before < 3600 <= sum(self.waits):
            self._then()
        return self.is_set()


def test_a_database_that_is_away_for_an_hour_is_asked_now_and_then(
    sql: SqlSystem, mariadb: stack.MariaDb | None, caplog: pytest.LogCaptureFixture
):
    """What came meanwhile is stored when it is back; the log has a line for the start and the end."""
    if not mariadb:
        pytest.skip("MYSQL_ADMIN_URL names a server that is not ours to kill")
    caplog.set_level("INFO")
    sql.broker.start()
    back = threading.Event()
    stop = AtOnce(lambda: (mariadb.start(), back.set()))
    broker = Broker(MqttUrl(sql.broker.url("sql-writer")), "w", session_expiry_s=60)
    with closing(sql.sql.sink()) as sink:
        topics, retry, metrics = Topics(), Retry(Health(), stop), ConsumerMetrics()
        storing = Storing("sql-writer", sink, topics, retry, metrics, name="w")
        consumer = Consumer(Alone(broker), storing, topics, retry, metrics, name="w")
        thread = threading.Thread(target=consumer.run)
        thread.start()
        wait_until(lambda: "connected to the broker" in caplog.text, "it is connected")
        mariadb.kill()
        home, hash_ = sql.client(NODE), new_hash()
        for seq in range(1, 51):
            topic = f"raven/v1/{NODE}/reading/instantaneous_demand"
            home.publish(topic, encode(reading(hash_, seq)))
        assert back.wait(60), "an hour has passed"
        wait_until(lambda: len(judge.in_sql(sql.sql.url, hash_)[1]) == 50, "all is stored")
        stop.set()
        thread.join(30)
    assert judge.in_sql(sql.sql.url, hash_)[1] == list(range(1, 51))
    assert 120 < len(stop.waits) < 1000, "at least every 30 s, and not all the time"
    store = [record for record in caplog.records if getattr(record, "check", "") == "store"]
    assert len(store) <= 4, [record.reason for record in store]


def test_a_flood_with_qos_0_fills_no_memory(sql: SqlSystem, mariadb: stack.MariaDb | None):
    """While the database is away it is dropped and counted; what came with QoS 1 is stored once."""
    if not mariadb:
        pytest.skip("MYSQL_ADMIN_URL names a server that is not ours to kill")
    port = stack.free_port()
    sql.writer.env["RAVEN_METRICS_PORT"] = str(port)
    sql.broker.start()
    sql.writer.start()
    sql.wait_for_log(sql.writer, "connected to the broker")
    mariadb.kill()
    home, hash_ = sql.client(NODE), new_hash()
    topic = f"raven/v1/{NODE}/reading/instantaneous_demand"
    before, last = resident(sql.writer), 0
    while (stack.metric(port, "raven_dropped_total") or 0) < 12_500:
        last += 1
        for _ in range(1000):
            home.publish(topic, encode(reading(hash_, last)) + b" " * 16384, qos=0)
        home.publish(topic, encode(reading(hash_, last)))
        while not isinstance(home.events.get(timeout=WAIT_S), Published):
            pass
    assert resident(sql.writer) - before < 80 * 2**20, "200 MB were dropped"
    assert sql.writer.text().count("message dropped") == 1
    mariadb.start()
    numbers = list(range(1, last + 1))
    wait_until(lambda: judge.in_sql(sql.sql.url, hash_)[1] == numbers, "all is stored once")


def resident(process: stack.Process) -> int:
    """Return the bytes of a process that are in memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def test_the_database_is_trusted_by_its_certificate_only(tmp_path: Path):
    """`ssl_ca` asks for TLS: the right certificate is stored through, another is said."""
    right, wrong = (Authority(tmp_path, name) for name in ("right", "wrong"))
    shown = right.server()
    server = stack.MariaDb(tmp_path, f"--ssl-cert={shown}", f"--ssl-key={shown}")
    try:
        server.start()
        url = server.database()
        with closing(MysqlSink(MysqlUrl(f"{url}?ssl_ca={right.file}"))) as sink:
            sink.prepare()
            assert sink.store([reading(new_hash(), 1)]) == (1, 0)
            with sink._database.transaction() as cursor:
                cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
                assert cursor.fetchall()[0][1].startswith("TLS")
        with (
            closing(MysqlSink(MysqlUrl(f"{url}?ssl_ca={wrong.file}"))) as sink,
            pytest.raises(RetryableError, match="certificate verify failed"),
        ):
            sink.prepare()
    finally:
        if server.running:
            server.kill()


def test_two_writers_that_start_together_make_the_tables_once_and_store_once(sql: SqlSystem):
    """Each has every message from its own session; on an empty database both want to migrate."""
    sql.broker.start()
    other = sql.another_writer("sql-writer-2")
    for writer in (sql.writer, other):
        writer.start()
    for writer in (sql.writer, other):
        sql.wait_for_log(writer, "connected to the broker")
    text = sql.writer.text() + other.text()
    assert text.count("migrating") == len(schema.migrations())
    sql.plug_in("--rate", "200", "--count", "600")
    sql.reader.start()
    sql.assert_complete()
    assert sql.sql("SELECT COUNT(*) FROM run_info") == ((1,),)


def test_a_poison_row_is_a_dead_letter_and_its_batch_is_stored(sql: SqlSystem):
    """What the server or we refuse is kept with its reason; its neighbours are stored."""
    sql.writer.env["RAVEN_FLUSH_AFTER_S"] = "2"
    sql.start_writing("--rate", "100", "--count", "20", reader=False)
    copies = sql.watch(f"raven/v1/{NODE}/reading/instantaneous_demand")
    sql.reader.start()
    sql.assert_complete()
    message = next(copies.messages())
    good, topic = json.loads(message.payload), message.topic
    accepted = sql.accepted()[1]
    poison = {
        # Beyond what a TIMESTAMP of MariaDB 10.11 and of MySQL can hold.
        json.dumps({**good, "seq": accepted + 2, "time": "2105-01-01T00:00:00Z"}): "not-storable",
        json.dumps({**good, "received": "2026-01-01T00:00:00.000Z"}): "identity-conflict",
        json.dumps(
            {**good, "received": "2026-01-01T00:00:00Z", "time": "2026-01-01T00:00:00Z"}
        ): "identity-conflict",
        "x" * 3_000_000: "not-json",
    }
    home = sql.client(NODE)
    for number, payload in enumerate(poison):
        home.publish(topic, payload.encode())
        neighbour = {**good, "seq": accepted + 3 + number}
        home.publish(topic, json.dumps(neighbour).encode())
    sql.wait_until_stored(accepted + len(poison))
    wait_until(
        lambda: sql.sql("SELECT COUNT(*) FROM dead_letter") == ((len(poison),),), "all are buried"
    )
    letters = sql.sql("SELECT payload, reason, size FROM dead_letter")
    for payload, reason, size in letters:
        (whole,) = [one for one in poison if one.encode().startswith(payload)]
        assert (reason, size) == (poison[whole], len(whole))
    ((packet,),) = sql.sql("SELECT @@max_allowed_packet")
    longest = max(len(payload) for payload, _, _ in letters)
    assert longest == min(3_000_000, (packet - 2**16) // 2), "as much as a packet carries"


def test_a_wrong_password_is_said_clearly_and_waited_for(sql: SqlSystem):
    """The log names MYSQL_URL and no password; once the server takes it, all is stored."""
    sql.sql.set_password("other")
    sql.broker.start()
    sql.writer.start()
    text = sql.wait_for_log(sql.writer, "see MYSQL_URL")
    assert f"MySQL refuses mysql://{sql.sql.user}@" in text
    sql.sql.set_password(sql.sql.password)
    sql.wait_for_log(sql.writer, "connected to the broker")
    sql.plug_in("--rate", "100", "--count", "50")
    sql.reader.start()
    sql.assert_complete()
    assert sql.sql.password not in sql.writer.text()


def test_a_read_only_database_is_waited_for(sql: SqlSystem):
    """As after a failover to a replica: nothing is lost, nothing becomes a dead letter."""
    sql.start_writing("--rate", "100")
    sql.wait_until_stored(50)
    sql.sql.admin("SET GLOBAL read_only = 1")
    try:
        sql.wait_for_log(sql.writer, "MySQL is read-only")
    finally:
        sql.sql.admin("SET GLOBAL read_only = 0")
    sql.simulator.stop()
    sql.assert_complete()
    assert sql.sql("SELECT COUNT(*) FROM dead_letter") == ((0,),)


def test_a_lock_that_another_holds_is_outlived(sql: SqlSystem):
    """A transaction that nobody ends blocks the writer, which says so and goes on afterwards."""
    sql.start_writing("--rate", "100")
    sql.wait_until_stored(50)
    with closing(sql.sql.connect(autocommit=False)) as other:
        run(other, "SELECT * FROM run_info FOR UPDATE")
        sql.wait_for_log(sql.writer, "MySQL is locked")
    sql.simulator.stop()
    sql.assert_complete()
    assert sql.sql("SELECT COUNT(*) FROM dead_letter") == ((0,),)


def test_a_newer_database_ends_the_writer_and_so_does_a_migration_beneath_it(sql: SqlSystem):
    """An old container that starts again after an upgrade must not write into newer tables."""
    sql.start_writing("--rate", "100")
    sql.wait_until_stored(50)
    sql.sql("INSERT INTO schema_version (version, name) VALUES (99, 'later')")
    # A running writer looks when it connects again.
    query = "SELECT id FROM information_schema.processlist WHERE user = %s"
    for (one,) in sql.sql(query, sql.sql.user):
        with suppress(pymysql.err.OperationalError):  # it was this very session
            sql.sql.admin(f"KILL {one}")
    assert sql.writer.wait() == 1
    sql.simulator.stop()
    assert (
        "the database is at version 99, which a newer release made, and this program"
        in sql.writer.text()
    )
    sql.writer.start()
    assert sql.writer.wait() == 1
    sql.sql("DELETE FROM schema_version WHERE version = 99")
    sql.writer.start()
    sql.assert_complete()


# The sink alone


def test_a_batch_is_one_statement_for_each_table(db: Db, sink: MysqlSink):
    """500 readings, new or known, are not sent row by row: the server counts its INSERTs."""

    def inserts() -> int:
        ((_, count),) = db.admin("SHOW GLOBAL STATUS LIKE 'Com_insert'")
        return int(count)

    batch = [reading(new_hash(), 1)]
    batch += [reading(batch[0].envelope.hash, seq) for seq in range(2, 501)]
    before = inserts()
    assert sink.store(batch) == (500, 0)
    assert inserts() - before == 4, "the readings, their periods, and the run twice"
    assert sink.store(batch) == (0, 500)
    assert inserts() - before == 5, "the run, and no reading"


def test_only_what_is_new_is_stored_and_the_rest_is_counted(db: Db, sink: MysqlSink):
    """Old and new readings, runs and letters in one batch; a gap is filled later."""
    one = new_hash()
    started = Run(node=NODE, run="r", hash=one, started=T0)
    letter = DeadLetter(
        id="a" * 32, service="reader", at=T0, reason="r", detail="d", payload=b"\0'\\", size=3
    )
    assert sink.store([reading(one, 1), reading(one, 3), started, letter]) == (4, 0)
    assert sink.store([reading(one, 2), reading(one, 3), reading(one, 4), reading(one, 4)]) == (
        2,
        2,
    )
    assert sink.store([started, letter]) == (0, 2)
    assert [seq for (seq,) in db("SELECT seq FROM instantaneous_demand ORDER BY seq")] == [
        1,
        2,
        3,
        4,
    ]
    ((hash_, meter, time, last),) = db("SELECT hash, meter_id, time, last_seq FROM run_info")
    assert (hash_, meter, last) == (one, METER, 4)
    assert time == T0.replace(microsecond=0, tzinfo=None)
    assert db("SELECT payload FROM dead_letter") == ((b"\0'\\",),)


def test_a_run_has_its_meter_as_soon_as_it_is_known(db: Db, sink: MysqlSink):
    """First nothing is known, later a reading or the run says it, and it stays."""
    one, two = new_hash(), new_hash()
    sink.store([Run(node=NODE, run="r", hash=one, started=T0), reading(two, 1, meter=None)])
    assert set(db("SELECT meter_id FROM run_info")) == {(None,)}
    sink.store([reading(one, 1), Run(node=NODE, run="r", hash=two, started=T0, meter=METER)])
    sink.store([Run(node=NODE, run="r", hash=one, started=T0), reading(two, 2, meter=None)])
    assert db("SELECT meter_id FROM run_info") == ((METER,), (METER,))


def test_another_reading_of_the_same_identity_is_poison_whatever_its_time(db: Db, sink: MysqlSink):
    """The unique key holds the partition's column, so it cannot find this; the sink does."""
    one = new_hash()
    sink.store([reading(one, 1), reading(one, 2)])
    other = {"received": datetime(2026, 5, 1, tzinfo=UTC)}
    for changed in (other, other | {"time": datetime(2026, 5, 1, tzinfo=UTC)}):
        with pytest.raises(PoisonError, match="identity-conflict"):
            sink.store([reading(one, 3), reading(one, 2, **changed)])
    with pytest.raises(PoisonError, match="identity-conflict"):
        sink.store([reading(one, 3), reading(one, 3, **other)])
    assert db("SELECT COUNT(*) FROM instantaneous_demand") == ((2,),)
    assert sink.store([reading(one, 3)]) == (1, 0)


def test_a_copied_state_cannot_pass_for_the_same_run(db: Db, sink: MysqlSink):
    """Two nodes with one run's hash: the second one's readings are no duplicates of the first's."""
    one = new_hash()
    sink.store([reading(one, seq) for seq in range(1, 10)])
    changes = {"received": datetime(2026, 5, 1, tzinfo=UTC), "time": None}
    copied = reading(one, 10, **changes)
    other_node = Envelope(node="copy", run="r", hash=one, seq=10, received=T0)
    assert sink.store([Reading(other_node, copied.notification)]) == (1, 0)
    with pytest.raises(PoisonError, match="identity-conflict"):
        sink.store([reading(one, 10)])
    with pytest.raises(PoisonError, match="identity-conflict"):
        sink.store([reading(one, 9, **changes)])
    assert db("SELECT COUNT(*) FROM run_info") == ((2,),)


def test_a_run_that_somebody_removed_is_made_again(db: Db, sink: MysqlSink):
    """The rows are still there: they are neither doubled nor rolled up twice."""
    one = new_hash()
    batch = [reading(one, seq) for seq in range(1, 10)]
    sink.store(batch)
    before = rolled_up(db, 300)
    db("DELETE FROM run_info")
    assert sink.store([*batch, reading(one, 1000)]) == (1, 9)
    assert rolled_up(db, 300)[:-1] == before
    assert db("SELECT last_seq FROM run_info") == ((1000,),)


def test_numbers_are_exact_to_the_limits_of_the_contract(db: Db, sink: MysqlSink):
    """48-bit registers, 32-bit scales, zero as one, nothing as NULL; no binary fraction."""
    one = new_hash()
    scales = [(1, 1000), (0, 0), (2**32 - 1, 1), (1, 10**9), (None, 1), (7, 3)]
    batch = [
        Reading(
            Envelope(node=NODE, run="ü€", hash=one, seq=number, received=T0),
            CurrentSummationDelivered(
                device=None,
                meter=METER,
                time=None,
                multiplier=multiplier,
                divisor=divisor,
                summation_delivered=2**48 - 1,
                summation_received=None,
                delivered_kwh=None,
                received_kwh=None,
            ),
        )
        for number, (multiplier, divisor) in enumerate(scales, 1)
    ]
    price = PriceCluster(
        device=None, meter=None, time=None, price=14764, trailing_digits=5, price_per_kwh=0.14764
    )
    envelope = Envelope(node=NODE, run="ü€", hash=one, seq=99, received=T0)
    sink.store([*batch, Reading(envelope, price), reading(one, 100, demand=-(2**31), divisor=0)])
    found = [kwh for (kwh,) in db("SELECT delivered_kwh FROM energy ORDER BY seq")]
    top = Decimal(2**48 - 1)
    assert found[:5] == [top / 1000, top, top * (2**32 - 1), top / 10**9, None]
    assert abs(found[5] - top * 7 / 3) < Decimal("1e-9")
    assert db("SELECT received_kwh FROM energy LIMIT 1") == ((None,),)
    assert db("SELECT price_per_kwh FROM price_cluster") == ((Decimal("0.14764"),),)
    assert db("SELECT DISTINCT run FROM energy") == (("ü€",),)
    assert db("SELECT demand_kw FROM demand") == ((Decimal(-(2**31)),),)


def test_a_deadlock_is_retryable_and_leaves_nothing_behind(db: Db, sink: MysqlSink):
    """InnoDB rolls the smaller transaction back, which is the sink's; again, it is stored."""
    first, second = sorted([new_hash(), new_hash()])
    sink.store([reading(first, 1), reading(second, 1)])
    batch = [reading(first, 2), reading(second, 2)]
    caught: list[Exception] = []

    def store() -> None:
        try:
            sink.store(batch)
        except RetryableError as error:
            caught.append(error)

    def waits() -> bool:
        # Of the tables that list who waits, InnoDB has no news for who looks again within 100 ms.
        ((_, count),) = db.admin("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        return int(count) > 0

    with closing(db.connect(autocommit=False)) as other:
        run(other, "UPDATE run_info SET name = 'x' WHERE hash = %s", second)
        run(other, "CREATE TEMPORARY TABLE t (a INT)")
        for _ in range(20):
            run(other, OLD_INSERT, 1, 1, 1, "heavy", "h")
        thread = threading.Thread(target=store)
        thread.start()
        wait_until(waits, "the sink waits for the second run")
        run(other, "SELECT * FROM run_info WHERE hash = %s FOR UPDATE", first)
        thread.join(30)
        other.rollback()
    (error,) = caught
    assert "MySQL is locked: Deadlock" in str(error)
    assert sink.store(batch) == (2, 0)


def test_a_full_disk_is_waited_for(tmp_path: Path):
    """Nothing is lost or doubled around the moment when the disk is full; room again is enough."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256M", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    server = stack.MariaDb(disk)
    try:
        server.start()
        db, one = Db(server.admin_url), new_hash()
        with closing(db.sink()) as sink:
            sink.prepare()
            ballast = disk / "ballast"
            with ballast.open("wb") as file, suppress(OSError):
                while True:
                    file.write(bytes(2**16))
            start = 1
            with pytest.raises(RetryableError, match="disk is full"):  # noqa: PT012 - until it is
                while True:
                    batch = [reading(one, seq) for seq in range(start, start + 500)]
                    assert sink.store(batch) == (500, 0)
                    start += 500
            ballast.unlink()
            assert sink.store(batch) == (500, 0)
        assert db("SELECT COUNT(*), MAX(seq) FROM instantaneous_demand") == ((start + 499,) * 2,)
        assert rolled_up(db, 3600) == from_rows(db, 3600)
    finally:
        if server.running:
            server.kill()
        subprocess.run(["umount", str(disk)], check=True)


# Migrations and the old database


def shape(db: Db) -> list[str]:
    with closing(db.connect()) as connection:
        tables = sorted(name for (name,) in run(connection, "SHOW TABLES"))
        created = [run(connection, f"SHOW CREATE TABLE {name}")[0][1] for name in tables]
    return [text.replace(db.name, "").replace(db.user, "") for text in created]


class CrashError(BaseException):
    """Ends a migration where nothing expects it."""


def test_a_migration_that_was_interrupted_is_taken_up_again(
    new_db: Callable[[], Db], monkeypatch: pytest.MonkeyPatch
):
    """After whichever statement it crashes, the same steps go on from there to the same tables."""
    whole, cut = new_db(), new_db()
    run_long, after = schema.run_long, {}

    def noted(cursor: Any, sql: str, beat: Callable[[], None]) -> None:
        run_long(cursor, sql, beat)
        after[sql] = shape(whole)

    monkeypatch.setattr(schema, "run_long", noted)
    schema.migrate(MysqlUrl(whole.url))
    crashed: set[str] = set()

    def crashing(cursor: Any, sql: str, beat: Callable[[], None]) -> None:
        run_long(cursor, sql, beat)
        if sql not in crashed:
            crashed.add(sql)
            raise CrashError

    monkeypatch.setattr(schema, "run_long", crashing)
    for statements in range(1, len(after) + 1):
        with pytest.raises(CrashError):
            schema.migrate(MysqlUrl(cut.url))
        assert len(crashed) == statements
        assert shape(cut) == list(after.values())[statements - 1]
    assert schema.migrate(MysqlUrl(cut.url)) == [schema.migrations()[-1]]
    assert shape(cut) == shape(whole)
    assert schema.migrate(MysqlUrl(cut.url)) == []


def test_tables_of_readings_are_compressed_on_the_disk(db: Db):
    """By the words that each server has for it; an old database's too, which takes the same steps."""
    schema.migrate(MysqlUrl(db.url))
    options = (
        "SELECT create_options FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = %s"
    )
    for table in rows.COLUMNS:
        ((said,),) = db(options, table)
        assert "compress" in said.lower()


def test_a_server_that_cannot_compress_keeps_its_tables(tmp_path: Path):
    """One whose tables share a file refuses the option, and everything else is done."""
    server = stack.MariaDb(tmp_path, "--innodb-file-per-table=OFF")
    server.start()
    try:
        url = server.database()
        assert schema.migrate(MysqlUrl(url)) == list(schema.migrations())
    finally:
        server.stop()


def test_the_command_migrates_alone_and_says_what_is_wrong(db: Db, tmp_path: Path):
    """Exit 0 when it is done, 1 for a server that refuses, 78 for a URL that is none."""

    def migrate(url: str) -> tuple[int, str]:
        env = {"MYSQL_URL": url}
        command = [str(stack.BIN / "raven-sql-writer"), "migrate"]
        process = stack.Process(uuid.uuid4().hex, command, tmp_path, env)
        process.start()
        return process.wait(), process.text()

    assert migrate(db.url)[0] == 0
    assert db("SELECT MAX(version) FROM schema_version") == ((len(schema.migrations()),),)
    status, text = migrate(db.url.replace(db.password, "hunter2"))
    assert status == 1
    assert "see MYSQL_URL" in text
    assert "hunter2" not in text
    assert migrate("mysql://nobody")[0] == 78


def legacy_rows(db: Db, query: str = "FROM instantaneous_demand") -> list[tuple[Any, ...]]:
    columns = "UNIX_TIMESTAMP(time), demand, multiplier, divisor, run, hash"
    return sorted(db(f"SELECT {columns} {query}"))


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_an_old_database_is_adopted_in_place(db: Db, engine: str):
    """No row is lost or changed, made-up rows stay out of the view, old scripts keep working."""
    db.make_legacy(engine)
    # A session in local time, as the scripts had it; the hour that came twice in 2016 included.
    for time in ("2016-03-13 12:00:00", "2016-11-06 01:30:00", "2016-11-06 01:30:00"):
        query = "INSERT INTO instantaneous_demand VALUES (%s, 1437, 1, 1000, 'Küche', 'h1')"
        db(query, time, zone="-08:00")
    db(OLD_INSERT, -1, -1, -1, "Küche", "h1", zone="-08:00")
    db(OLD_INSERT, -1, 1, 1000, "Küche", "h1", zone="-08:00")
    for _ in range(2):  # the same run twice: nothing forbade it
        db("INSERT INTO run_info (name, hash, meter_id) VALUES ('Küche', 'h1', '0x0013')")
    before, runs = legacy_rows(db), db("SELECT name, hash, meter_id, time FROM run_info")

    with closing(db.sink()) as sink:
        sink.prepare()
        assert legacy_rows(db) == before
        assert db("SELECT name, hash, meter_id, time FROM run_info") == runs
        assert db("SELECT COUNT(*) FROM demand") == ((4,),)
        assert db("SELECT COUNT(*) FROM demand WHERE demand_kw = -0.001") == ((1,),)

        one = new_hash()
        at = datetime.now(UTC).replace(microsecond=0)
        sink.store([reading(one, 1, time=at, received=at)])
        db(OLD_INSERT, 2500, 1, 1000, "Küche", "h1", zone="-08:00")
        db(OLD_INSERT, -1, -1, -1, "Küche", "h1", zone="-08:00")
        assert sink.store([reading(one, 1, time=at, received=at)]) == (0, 1)
    fresh = db(
        "SELECT demand_kw, meter, run, time FROM demand "
        "WHERE time > NOW() - INTERVAL 5 MINUTE AND demand_kw > 1.437 - 0.0005 "
        "AND (seq = 1 OR demand_kw = 2.5) ORDER BY demand_kw",
        zone="+05:30",
    )
    assert [row[:3] for row in fresh] == [
        (Decimal("1.437"), METER, "r"),
        (Decimal("2.5"), "0x0013", "Küche"),
    ]
    assert abs(fresh[0][3] - fresh[1][3]) < timedelta(minutes=1), "whatever zone either had"
    assert len(legacy_rows(db)) == len(before) + 3
    assert db("SELECT COUNT(*) FROM instantaneous_demand WHERE placeholder") == ((2,),)


def test_the_real_old_table_is_adopted_with_every_row(db: Db):
    """28,901 rows of October 2016, 756 of them made up."""
    file = DATA / "legacy-instantaneous_demand.csv"
    if not file.exists():
        pytest.skip("the old table is not here: RAVEN_DATA names its folder")
    db.make_legacy()
    db.insert_legacy(file)
    before = legacy_rows(db)
    assert len(before) == 28_901
    with closing(db.sink()) as sink:
        sink.prepare()
    assert legacy_rows(db) == before
    assert db("SELECT COUNT(*) FROM demand") == ((28_901 - 756,),)
    assert rolled_up(db, 3600) == from_rows(db, 3600)
    assert db("SELECT COUNT(*) FROM demand WHERE demand_kw IS NULL OR demand_kw < 0") == ((0,),)


def test_a_database_that_is_something_else_is_left_alone(db: Db):
    """A table of the same name with other columns stops the start with a reason."""
    db("CREATE TABLE instantaneous_demand (seq INT, something INT)")
    with pytest.raises(FatalError, match="cannot be migrated"):
        schema.migrate(MysqlUrl(db.url))
    assert db("SHOW COLUMNS FROM instantaneous_demand")[1][0] == "something"


def partitions(db: Db) -> list[tuple[str, int]]:
    return list(
        db(
            "SELECT partition_name, table_rows FROM information_schema.partitions WHERE "
            "table_schema = DATABASE() AND table_name = 'instantaneous_demand' "
            "ORDER BY partition_ordinal_position"
        )
    )


def test_months_are_partitions_made_ahead(db: Db):
    """A range of times touches its months only; after half a year away the rows are sorted in."""
    today = datetime(2026, 3, 20, tzinfo=UTC)
    one = new_hash()
    schema.migrate(MysqlUrl(db.url))
    look_after(MysqlUrl(db.url), utc=lambda: today)
    with closing(db.sink()) as sink:
        months = ["p_2026_03", "p_2026_04", "p_2026_05", "p_2026_06", "p_rest"]
        assert [name for name, _ in partitions(db)] == months
        for number, month in enumerate(range(2, 12), 1):
            at = datetime(2026, month, 1, tzinfo=UTC)
            sink.store([reading(one, number, time=at, received=at)])
        sink.store([reading(one, 11)])
    look_after(MysqlUrl(db.url), utc=lambda: datetime(2026, 12, 1, tzinfo=UTC))
    assert [name for name, _ in partitions(db)][-2:] == ["p_2027_03", "p_rest"]
    query = "SELECT COUNT(*) FROM instantaneous_demand"
    assert db(f"{query} PARTITION (p_2026_11)") == ((1,),)
    assert db(f"{query} PARTITION (p_rest)") == ((0,),)
    assert db(query) == ((11,),)
    explain = "EXPLAIN PARTITIONS" if db.is_mariadb else "EXPLAIN FORMAT=TRADITIONAL"
    explained = db(f"{explain} {query} WHERE time >= '2026-08-01' AND time < '2026-09-01'")
    assert "p_2026_08" in explained[0]


def test_partitions_that_cannot_be_made_hold_no_reading_up(
    db: Db, sink: MysqlSink, caplog: pytest.LogCaptureFixture
):
    """An account that may not alter the tables any more stores on, and the log says why."""
    later = datetime.now(UTC) + timedelta(days=200)
    before = partitions(db)
    db.admin(f"REVOKE ALTER ON {db.name}.* FROM {db.user}@'%'")
    look_after(MysqlUrl(db.url), utc=lambda: later)
    assert "ALTER command denied" in caplog.records[-1].reason
    assert sink.store([reading(new_hash(), 1)]) == (1, 0)
    assert [name for name, _ in partitions(db)] == [name for name, _ in before]


def rolled_up(db: Db, period_s: int) -> list[tuple[Any, ...]]:
    query = "SELECT start, readings, sum_kw, min_kw, max_kw FROM demand_rollup WHERE period_s = %s"
    return sorted(db(query, period_s))


def from_rows(db: Db, period_s: int) -> list[tuple[Any, ...]]:
    """Return what the roll-up has to be, from the rows themselves."""
    start = f"FROM_UNIXTIME(UNIX_TIMESTAMP(time) DIV {period_s} * {period_s})"
    query = (
        f"SELECT {start}, COUNT(*), SUM(demand_kw), MIN(demand_kw), MAX(demand_kw) FROM demand "  # noqa: S608
        f"WHERE demand_kw IS NOT NULL GROUP BY {start}"
    )
    return sorted(db(query))


@pytest.mark.parametrize("period_s", [300, 3600, 86400])
def test_rollups_are_what_the_rows_say(db: Db, sink: MysqlSink, period_s: int):
    """Late and repeated readings, thirds, missing values, refused batches: the sums agree."""
    one = new_hash()
    batch = [
        reading(one, seq, demand=seq * 7 - 900, divisor=[1000, 0, 3][seq % 3])
        for seq in range(1, 400)
    ]
    batch[5] = reading(one, 6, divisor=None)
    sink.store(batch[200:])
    sink.store(batch[150:250])
    with pytest.raises(PoisonError):
        sink.store([*batch[:10], reading(one, 300, received=datetime(2026, 5, 1, tzinfo=UTC))])
    sink.store(list(reversed(batch[:160])))
    assert rolled_up(db, period_s) == from_rows(db, period_s)
    assert sum(row[1] for row in rolled_up(db, period_s)) == 398


def test_rows_of_other_programs_are_rolled_up_once(db: Db):
    """Rows from before the adoption and after it, also one that commits late; made-up rows not."""
    db.make_legacy()
    db("INSERT INTO run_info (name, hash, meter_id) VALUES ('r', 'h', 'Zähler')")
    for demand in (1437, -1, 250):
        db(OLD_INSERT, demand, 1, 1000, "r", "h")
    db(OLD_INSERT, -1, -1, -1, "r", "h")
    with closing(db.sink()) as sink:
        sink.prepare()
        with closing(db.connect(autocommit=False)) as late:
            run(late, OLD_INSERT, 5000, 1, 1000, "r", "h")
            db(OLD_INSERT, 2500, 1, 1000, "r", "h")
            for seq in (1, 2):
                look_after(MysqlUrl(db.url))
                sink.store([reading(new_hash(), seq)])
            late.commit()
        look_after(MysqlUrl(db.url))
    assert rolled_up(db, 86400) == from_rows(db, 86400)
    query = "SELECT SUM(readings), MAX(meter) FROM demand_rollup WHERE period_s = 300 AND node = ''"
    assert db(query) == ((5, "Zähler"),)


def test_registers_are_rolled_up_to_their_first_and_last(db: Db, sink: MysqlSink):
    """Whatever the order of arrival; what was never heard stays NULL."""
    one = new_hash()
    for seq in (2, 1, 3):
        summation = CurrentSummationDelivered(
            device=None,
            meter=METER,
            time=T0,
            multiplier=1,
            divisor=1000,
            summation_delivered=None if seq == 2 else 1000 + seq,
            summation_received=None,
            delivered_kwh=None,
            received_kwh=None,
        )
        envelope = Envelope(node=NODE, run="r", hash=one, seq=seq, received=T0)
        sink.store([Reading(envelope, summation)])
    query = (
        "SELECT readings, delivered_kwh_min, delivered_kwh_max, received_kwh_max FROM energy_rollup"
    )
    assert set(db(query)) == {(3, Decimal("1.001"), Decimal("1.003"), None)}


def test_a_stop_during_an_outage_ends_the_writer_soon(sql: SqlSystem):
    """SIGTERM while the database is away: exit 0 at once, the broker keeps what was not stored."""
    sql.sql.set_password("other")
    sql.broker.start()
    sql.writer.start()
    sql.wait_for_log(sql.writer, "see MYSQL_URL")
    sql.writer.send(signal.SIGTERM)
    assert sql.writer.wait() == 0
