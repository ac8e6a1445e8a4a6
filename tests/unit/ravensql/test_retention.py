"""Months that leave the tables for files and come back, and those that stay; no database."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from ravenbus import archives
from ravenbus.errors import FatalError, RetryableError
from ravenbus.messages import Reading
from ravenbus.months import Month
from ravenbus.notifications import Warning as Said
from ravensql import rows
from ravensql.archiving import Archive
from ravensql.housekeeping import archive, look_after
from ravensql.retention import Retention
from ravensql.sink import MysqlSink
from tests.kinds import new_hash, reading
from tests.mysql import from_server, power_cut

MARCH, APRIL, MAY, JUNE = (Month.parse(f"2026-0{number}") for number in (3, 4, 5, 6))
JUNE_15 = datetime(2026, 6, 15, tzinfo=UTC)
DEMANDS, OTHERS = "instantaneous_demand", "notification"


class Stop(threading.Event):
    """A stop for which nobody waits; it is set after so many looks at it."""

    def __init__(self, looks=10**9):
        super().__init__()
        self.looks = looks
        self.waited = []

    def is_set(self):
        self.looks -= 1
        return self.looks < 0

    def wait(self, timeout=None):
        self.waited.append(timeout)
        return self.is_set()


class Filled:
    """March, April and May of 2026 in the tables, five readings each, and their archive."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.hash = new_hash()
        look_after(server.url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
        self.store(*(one for number in (3, 4, 5) for one in self.of(number)))
        look_after(server.url, utc=lambda: JUNE_15)

    def of(self, month):
        """Return the readings of a month: three demands and two that say something else."""
        for seq in range(5 * month - 14, 5 * month - 9):
            at = datetime(2026, month, 2, tzinfo=UTC) + timedelta(minutes=seq)
            found = reading(self.hash, seq, time=at, received=at)
            said = Said(device=None, meter=None, time=None, text="ü")
            yield found if seq % 5 < 3 else Reading(found.envelope, said)

    def store(self, *items):
        with closing(MysqlSink(self.server.url)) as sink:
            return sink.store(items)

    @property
    def moving(self):
        return Archive(self.server.url, self.folder, Stop(), lambda: JUNE_15)

    def retention(self, keep=None, stop=None):
        return Retention(replace(self.moving, stop=stop or Stop()), keep)

    def in_tables(self):
        every = " UNION ALL ".join(f"SELECT seq FROM {table}" for table in rows.COLUMNS)  # noqa: S608
        return sorted(seq for (seq,) in self.server(every))

    def in_files(self):
        """Return the numbers in files that have their names, and none that is half written."""
        found = []
        for path in self.folder.glob("*"):
            assert path.suffix != ".part"
            if path.suffix == ".gz":
                names, *lines = archives.read(path)
                found += [int(line[names.index("seq")]) for line in lines]
        return sorted(found)

    def everything(self):
        return {table: self.server(f"SELECT * FROM {table} ORDER BY id") for table in rows.COLUMNS}  # noqa: S608

    def months(self, table):
        query = (
            "SELECT partition_name FROM information_schema.partitions "
            "WHERE table_name = %s AND partition_name <= 'p_2026_05' ORDER BY 1"
        )
        return [name for (name,) in self.server(query, table)]


@pytest.fixture
def filled(server, tmp_path):
    return Filled(server, tmp_path / "archive")


# Which months


@pytest.mark.parametrize(
    ("keep", "months"), [(None, []), (3, []), (2, [MARCH]), (1, [MARCH, APRIL]), (0, [MARCH, APRIL, MAY])]
)  # fmt: skip
def test_whole_months_before_this_one_stay(filled, keep, months):
    """As many as are to be kept; those before them are due, the oldest first."""
    assert filled.retention(keep).due() == months


def test_a_month_is_due_as_long_as_any_table_has_it(filled):
    """What was interrupted between two tables is due again."""
    filled.server("ALTER TABLE instantaneous_demand DROP PARTITION p_2026_03")
    assert filled.retention(2).due() == [MARCH]


@pytest.mark.parametrize("month", [JUNE, JUNE.later(1)])
def test_a_month_that_is_not_over_is_not_archived(filled, month):
    """More of its readings will come."""
    connections = len(filled.server.connections)
    with pytest.raises(FatalError, match="is not over"):
        filled.retention().archive(month)
    assert len(filled.server.connections) == connections


def test_the_oldest_month_goes_first_and_one_that_waits_holds_no_other_up(filled, caplog):
    """A relay has sent all of April and May, and not of March."""
    caplog.set_level("INFO")
    filled.server("UPDATE instantaneous_demand SET relayed = 1 WHERE seq > 5")
    filled.server("UPDATE notification SET relayed = 2 WHERE seq > 5")
    filled.server("INSERT INTO relay VALUES (1, 's', 'home', 'mqtts://up')")
    archive(filled.retention(0))
    said = [(r.message, r.month, getattr(r, "rows", None)) for r in caplog.records]
    assert said[0] == ("archiving postponed", MARCH, None)
    assert said[1:] == [("archived", APRIL, 5), ("archived", MAY, 5)]
    assert "5 rows are not sent to mqtts://up" in caplog.records[0].reason
    assert filled.in_tables() == [1, 2, 3, 4, 5]
    assert filled.in_files() == list(range(6, 16))


@pytest.mark.parametrize("state", [None, 0, 3])
def test_a_month_waits_for_each_row_that_a_relay_has_to_send(filled, state):
    """Never sent, taken by nobody, or parked; where nothing relays, it does not matter."""
    for table in rows.COLUMNS:
        filled.server(f"UPDATE {table} SET relayed = 1")  # noqa: S608
    filled.server("UPDATE notification SET relayed = %s WHERE seq = 4", state)
    filled.server("INSERT INTO relay VALUES (1, 's', 'home', 'mqtts://up')")
    with pytest.raises(RetryableError, match="1 rows are not sent"):
        filled.retention().archive(MARCH)
    assert (filled.in_tables(), list(filled.folder.glob("*"))) == ([*range(1, 16)], [])
    filled.server("DELETE FROM relay")
    assert filled.retention().archive(MARCH) == 5


def test_a_month_without_rows_leaves_no_file(filled):
    """Its partitions are dropped all the same."""
    filled.server("DELETE FROM instantaneous_demand WHERE seq <= 5")
    filled.server("DELETE FROM notification WHERE seq <= 5")
    assert filled.retention().archive(MARCH) == 0
    assert list(filled.folder.glob("*")) == []
    assert {filled.months(table)[0] for table in rows.COLUMNS} == {"p_2026_04"}


# In which order


def test_a_table_is_dropped_when_its_file_and_its_record_are_there(filled):
    """Every file has its checksum, and every record and number is committed, before the first drop."""
    states = []

    def before(sql):
        if "DROP PARTITION" in sql:
            filled.server.end("ROLLBACK")  # what is not committed is gone
            (archived,) = filled.server("SELECT SUM(last_seq - first_seq + 1) FROM archived_run")
            (digested,) = filled.server("SELECT SUM(length(digests)) / 8 FROM archived_digest")
            (recorded,) = filled.server("SELECT SUM(readings) FROM archive")
            states.append((filled.in_files(), *archived, *digested, *recorded))

    filled.server.before = before
    assert filled.retention().archive(MARCH) == 5
    assert states == [([1, 2, 3, 4, 5], 5, 5, 5)] * len(rows.COLUMNS)
    assert filled.in_tables() == list(range(6, 16))


@pytest.mark.parametrize(
    ("change", "archived"),
    [
        (
            "INSERT INTO notification (time, hash, seq) VALUES ('2026-03-09 00:00:00', 'late', 99)",
            [1, 2, 3, 4, 5, 99],
        ),
        ("INSERT INTO relay VALUES (1, 's', 'home', 'mqtts://up')", [1, 2, 3, 4, 5]),
    ],
)
def test_what_comes_before_the_drop_keeps_the_table(filled, change, archived):
    """A late row, or a relay that has to send them: the next time it is in a file, or relayed."""
    changes = iter([change])

    def before(sql):
        if sql == "COMMIT" and filled.folder.exists() and (one := next(changes, None)):
            filled.server(one)

    filled.server.before = before
    with pytest.raises(RetryableError, match="meanwhile"):
        filled.retention().archive(MARCH)
    assert set(filled.in_tables()) >= {3, 4, archived[-1]} - {5}
    filled.server("DELETE FROM relay")
    filled.retention().archive(MARCH)
    assert (filled.in_tables(), filled.in_files()) == ([*range(6, 16)], archived)


def test_a_late_row_is_archived_with_the_month_that_has_it(filled):
    """The partition of its month is gone, so it waits in the oldest that is left."""
    filled.retention().archive(MARCH)
    late = reading(new_hash(), 99, time=datetime(2026, 3, 9, tzinfo=UTC))
    assert filled.store(late) == (1, 0)
    assert filled.retention(2).due() == []
    assert filled.retention().archive(APRIL) == 6
    assert filled.store(late, *filled.of(3), *filled.of(4)) == (0, 11)


# What is in its way


def test_a_stop_is_obeyed_at_every_page_and_nothing_is_lost(filled):
    """However far it came, no half file is left, and the next time it is completed."""
    for looks in count(0):
        try:
            filled.retention(stop=Stop(looks)).archive(MARCH)
            break
        except RetryableError as error:
            assert "it was asked to stop" in str(error)  # noqa: PT017
        assert filled.in_tables() == list(range(1, 16)), "it stops before it drops"
        filled.in_files()
    assert looks > 4
    assert filled.in_tables() == list(range(6, 16))
    assert filled.in_files() == [1, 2, 3, 4, 5]


def test_an_archive_that_is_cut_anywhere_is_completed_the_next_time(filled):
    """Before each statement: each row is in its table or in a file, and a redelivery is known."""
    before, march = filled.everything(), list(filled.of(3))
    for at in count(1):
        with power_cut(filled.server, at) as was_cut:
            filled.retention().archive(MARCH)
        assert {*filled.in_tables(), *filled.in_files()} == set(range(1, 16))
        assert filled.store(*march) == (0, 5)
        filled.retention().archive(MARCH)
        assert (filled.in_tables(), filled.in_files()) == ([*range(6, 16)], [1, 2, 3, 4, 5])
        assert [fault for _, fault in filled.moving.verify([])] == [None, None]
        filled.moving.restore(MARCH)
        assert filled.everything() == before
        if not was_cut():
            break
    assert at > 40


def test_a_restore_that_is_cut_anywhere_is_completed_the_next_time(filled):
    """Before each statement; until it is completed no month is archived over a part of another."""
    before, march = filled.everything(), list(filled.of(3))
    for at in count(1):
        filled.retention().archive(MARCH)
        with power_cut(filled.server, at) as was_cut:
            filled.moving.restore(MARCH)
        assert filled.store(*march) == (0, 5)
        recorded = filled.server("SELECT 1 FROM archive")
        if recorded and filled.in_tables()[0] == 1:
            for month in (MARCH, APRIL):
                with pytest.raises(RetryableError, match="restore of 2026-03 was interrupted"):
                    filled.retention().archive(month)
        if recorded:
            filled.moving.restore(MARCH)
        assert filled.everything() == before
        assert filled.server("SELECT * FROM archived_run") == []
        assert filled.server("SELECT * FROM archived_digest") == []
        if not was_cut():
            break
    assert at > 15


def test_a_table_that_others_use_is_tried_a_few_times(filled):
    """With a pause in between, as whoever writes waits meanwhile; then the month waits."""
    tries = []

    def locked(sql):
        if sql.startswith("LOCK TABLES"):
            tries.append(sql)
            if len(tries) != 3:
                raise from_server(1205)

    filled.server.before = locked
    stop = Stop()
    with pytest.raises(RetryableError, match="MySQL is locked"):
        filled.retention(stop=stop).archive(MARCH)
    assert tries[0] == tries[2] != tries[3], "the first table was locked in the end"
    assert len(tries) == len(stop.waited) + 2, "it pauses between two tries"
    assert min(stop.waited) > 0
    assert filled.in_tables() == list(range(1, 16))


def test_only_one_at_a_time_changes_the_tables(filled):
    """Another writer that would archive meanwhile leaves everything as it is."""
    others = iter([filled.retention(), filled.retention()])
    refused = []

    def before(sql):
        if sql.startswith("LOCK TABLES") and (other := next(others, None)):
            with pytest.raises(RetryableError, match="another writer is changing the tables"):
                other.archive(APRIL)
            refused.append(filled.in_tables())

    filled.server.before = before
    assert filled.retention().archive(MARCH) == 5
    assert refused == [list(range(1, 16))] * 2
    assert filled.in_tables() == list(range(6, 16))


# Files that are not what they were


@pytest.mark.parametrize("damaged", [".gz", ".sha256"])
def test_a_file_whose_checksum_differs_is_named_and_not_restored(filled, damaged):
    """Nor is any other file of its month, however good; other months are."""
    for month in (MARCH, APRIL):
        filled.retention().archive(month)
    name = f"{OTHERS}-2026-03.csv.gz"
    path = filled.folder / (name if damaged == ".gz" else f"{name}.sha256")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    found = dict(filled.moving.verify([]))
    assert len(found) == 4
    assert [file for file, fault in found.items() if fault] == [name]
    assert "checksum" in found[name]
    with pytest.raises(FatalError, match=f"2026-03 cannot be restored: {name}"):
        filled.moving.restore(MARCH)
    assert filled.in_tables() == list(range(11, 16))
    assert filled.server("SELECT COUNT(*) FROM archive WHERE restoring") == [(0,)]
    assert filled.moving.restore(APRIL) == 5
    assert filled.in_tables() == list(range(6, 16))


def test_a_file_of_other_columns_is_not_restored(filled):
    """Somebody dropped a column since: what it held would be lost."""
    filled.retention().archive(MARCH)
    filled.server(
        "DELETE FROM information_schema.columns WHERE (table_name, column_name) = (%s, %s)",
        *(OTHERS, "device"),
    )
    with pytest.raises(FatalError, match=r"has columns that notification has not: \{'device'\}"):
        filled.moving.restore(MARCH)
    assert filled.server("SELECT * FROM notification WHERE seq <= 5") == []


def test_only_what_is_archived_is_restored_or_verified(filled):
    """Of the months that are asked for, or all."""
    with pytest.raises(FatalError, match="2026-03 is not archived"):
        filled.moving.restore(MARCH)
    for month in (MARCH, APRIL):
        filled.retention().archive(month)
    found = list(filled.moving.verify([APRIL, MAY]))
    assert found == [
        ("2026-05", "it is not archived"),
        (f"{DEMANDS}-2026-04.csv.gz", None),
        (f"{OTHERS}-2026-04.csv.gz", None),
    ]


def test_an_archive_that_cannot_be_written_keeps_the_rows(filled):
    """Its folder is no folder: the month waits."""
    filled.folder.write_text("")
    with pytest.raises(RetryableError, match="the archive's folder cannot be used"):
        filled.retention().archive(MARCH)
    assert filled.in_tables() == list(range(1, 16))
