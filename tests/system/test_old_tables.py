"""Tables and servers that somebody else set up: taken over as they are, or refused with a reason."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from ravenbus.errors import FatalError, PoisonError
from ravenbus.messages import Run
from ravensql import schema
from ravensql.housekeeping import look_after
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from tests.kinds import METER, T0, new_hash, reading

from .sql import OLD_INSERT, Db, SqlSystem, run
from .system import NODE

ZERO = "INSERT INTO instantaneous_demand VALUES ('0000-00-00 00:00:00', 700, 1, 1000, 'r', 'h')"


def with_zero_times(db: Db) -> None:
    """Make an old table with rows of which a session that is not strict wrote the time."""
    db.make_legacy()
    with closing(db.connect(init_command="SET sql_mode = ''")) as lax:
        run(lax, ZERO)
        run(lax, OLD_INSERT, 1437, 1, 1000, "r", "h")
        run(lax, ZERO.replace("700", "701"))


def test_rows_whose_time_is_zero_stop_nothing(db: Db):
    """They are taken over, marked and left out of the roll-ups; readings are stored beside them."""
    with_zero_times(db)
    with closing(db.sink()) as sink:
        for _ in (1, 2):
            sink.prepare()
            sink.store([reading(new_hash(), 1)])
        with closing(db.connect(init_command="SET sql_mode = ''")) as lax:
            run(
                lax,
                "INSERT INTO instantaneous_demand (time, demand, multiplier, divisor, run, hash) "
                "VALUES ('0000-00-00 00:00:00', 702, 1, 1000, 'r', 'h')",
            )
        look_after(MysqlUrl(db.url))
    assert db("SELECT COUNT(*) FROM instantaneous_demand WHERE rolled_up IS NULL") == ((0,),)
    assert db("SELECT SUM(readings) FROM demand_rollup WHERE period_s = 300") == ((3,),)
    assert db("SELECT COUNT(*) FROM instantaneous_demand WHERE time < '1970-01-02'") == ((3,),)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("ADD UNIQUE KEY moment (time)", "moment (time)"),
        ("ADD UNIQUE KEY identity (time)", "identity (time)"),
        ("ADD UNIQUE KEY `my key` (time)", "my key (time)"),
        ("ADD UNIQUE KEY several (run(10), demand)", "several (run(10),demand)"),
        ("ADD PRIMARY KEY (time, hash)", "PRIMARY (time,hash)"),
    ],
)
def test_a_unique_key_of_somebody_elses_is_refused_at_the_start(db: Db, key: str, says: str):
    """It would keep readings out: the start says which it is and how to drop it, then works."""
    db.make_legacy()
    db(f"ALTER TABLE instantaneous_demand {key}")
    with closing(db.sink()) as sink:
        with pytest.raises(FatalError, match="ALTER TABLE instantaneous_demand DROP") as caught:
            sink.prepare()
        assert says in str(caught.value)
        db(str(caught.value).rpartition(": ")[2].partition(",")[0])
        sink.prepare()
        assert sink.store([reading(new_hash(), 1)]) == (1, 0)


def test_a_key_that_keeps_no_reading_out_is_left_as_it_is(db: Db, sink: MysqlSink):
    """Our own identity under another name, and keys of the same columns and more, are no harm."""
    db(
        "ALTER TABLE instantaneous_demand DROP INDEX identity, "
        "ADD UNIQUE KEY mine (seq, hash, time), ADD UNIQUE KEY wider (hash, seq, time, node), "
        "ADD KEY again (meter, time), ADD KEY moment (time)"
    )
    sink.prepare()
    one = reading(new_hash(), 1)
    assert (sink.store([one]), sink.store([one])) == ((1, 0), (0, 1))


def test_a_plain_index_with_a_name_of_ours_is_refused_with_what_to_do(db: Db):
    """The start says which it is, and works once it is gone."""
    db.make_legacy()
    db("ALTER TABLE instantaneous_demand ADD KEY by_time (demand)")
    with closing(db.sink()) as sink:
        with pytest.raises(FatalError, match=r"by_time.*drop or rename the index"):
            sink.prepare()
        db("ALTER TABLE instantaneous_demand DROP INDEX by_time")
        sink.prepare()


def test_a_unique_key_that_comes_later_buries_what_it_keeps_out(db: Db, sink: MysqlSink):
    """Two readings of a second under a key on the time: the second is poison, not stored already."""
    db("ALTER TABLE instantaneous_demand ADD UNIQUE KEY moment (time)")
    one, other = new_hash(), new_hash()
    assert sink.store([reading(one, 1)]) == (1, 0)
    with pytest.raises(PoisonError, match="duplicate-key"):
        sink.store([reading(other, 1), reading(other, 2)])
    assert sink.store([reading(other, 2)]) == (1, 0)
    with pytest.raises(PoisonError, match="duplicate-key"):
        sink.store([reading(other, 1)])
    assert sink.store([reading(one, 1)]) == (0, 1)
    with pytest.raises(FatalError, match="moment"):
        schema.migrate(MysqlUrl(db.url))


def test_odd_times_and_numbers_are_stored_or_refused_and_change_nothing(db: Db, sink: MysqlSink):
    """Microseconds are cut, the largest number and the first days of 1970 are stored."""
    one = new_hash()
    fine = reading(one, 2**63 - 1, received=T0 + timedelta(microseconds=4))
    early = reading(one, 2, received=datetime(1970, 1, 1, 0, 0, 30, tzinfo=UTC), time=None)
    assert sink.store([fine, early]) == (2, 0)
    assert sink.store([fine, early]) == (0, 2)
    assert db("SELECT MAX(last_seq) FROM run_info") == ((2**63 - 1,),)
    for second in (0, -86400):
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        with pytest.raises(PoisonError, match="not-storable"):
            sink.store([reading(new_hash(), 1, received=at, time=None)])


def test_an_older_run_after_a_newer_one_takes_nothing_back(db: Db, sink: MysqlSink):
    """A run that is delivered again from before its meter was known leaves the meter."""
    older = Run(node=NODE, run="r", hash=new_hash(), started=T0.replace(microsecond=0))
    sink.store([older])
    sink.store([msgspec.structs.replace(older, meter=METER)])
    before = db("SELECT name, hash, meter_id, time, node, last_seq FROM run_info")
    for again in (older, msgspec.structs.replace(older, run="another")):
        sink.store([again])
        assert db("SELECT name, hash, meter_id, time, node, last_seq FROM run_info") == before
    assert before[0][:3] == ("r", older.hash, METER)


def test_a_server_that_wants_keys_first_is_told_apart_from_one_that_is_away(db: Db):
    """What the server is set to is said with what to do, and the writer ends."""
    name = "innodb_force_primary_key" if db.is_mariadb else "sql_require_primary_key"
    db.admin(f"SET GLOBAL {name} = ON")
    try:
        with closing(db.sink()) as sink, pytest.raises(FatalError, match=f"{name} = ON"):
            sink.prepare()
    finally:
        db.admin(f"SET GLOBAL {name} = OFF")


def test_the_writer_ends_with_a_sentence_for_a_table_it_cannot_take(sql: SqlSystem):
    """No loop of crashes: one line that says what to do, and an exit status that is not 0."""
    sql.sql.make_legacy()
    sql.sql("ALTER TABLE instantaneous_demand ADD UNIQUE KEY moment (time)")
    sql.broker.start()
    sql.writer.start()
    assert sql.writer.wait() != 0
    assert "ALTER TABLE instantaneous_demand DROP INDEX `moment`" in sql.writer.text()
    assert "Traceback" not in sql.writer.text()
