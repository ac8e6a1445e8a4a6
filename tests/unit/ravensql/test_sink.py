"""What the SQL store makes of a batch, and of what the server says to it; no database."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from itertools import count

import msgspec
import pytest
from pymysql import err

from ravenbus import digests
from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravenbus.messages import DeadLetter, Reading, Run
from ravenbus.notifications import Warning as Said
from ravensql import rows, schema
from ravensql import sink as module
from ravensql.sink import MysqlSink
from tests.kinds import METER, T0, every_kind, new_hash, reading
from tests.mysql import from_server, power_cut

HASH = new_hash()
READINGS = [reading(HASH, seq) for seq in (1, 2, 3)]
LETTER = DeadLetter(
    id="a" * 32, service="sql-writer", at=T0, reason="r", detail="d", payload=b"x" * 9, size=9
)
RUN = Run(node="home", run="r", hash=new_hash(), started=T0)
OTHER = msgspec.structs.replace(
    READINGS[0],
    envelope=msgspec.structs.replace(READINGS[0].envelope, received=T0 + timedelta(days=90)),
)
"""Another reading under the first one's identity."""
TABLES = (*rows.COLUMNS, "run_info", "demand_rollup", "dead_letter")


@pytest.fixture
def sink(server):
    with closing(MysqlSink(server.url)) as found:
        yield found


def seqs(server):
    """Return every number stored, of whichever kind."""
    every = " UNION ALL ".join(f"SELECT seq FROM {table}" for table in rows.COLUMNS)  # noqa: S608
    return sorted(seq for (seq,) in server(every))


def everything(server):
    return {
        table: server(f"SELECT * FROM {table}")  # noqa: S608
        for table in TABLES
    }


def counted(server):
    """Return how many readings the roll-up of the day has."""
    return server("SELECT SUM(readings) FROM demand_rollup WHERE period_s = 86400")[0][0]


def refusing(error, statement="INSERT INTO instantaneous_demand"):
    """Return a server's answer of an error to statements that begin so."""

    def before(sql):
        if sql.startswith(statement):
            raise error

    return before


# What the server says

BLAMED = [from_server(code) for code in (1048, 1062, 1264, 1366, 1406, 1690, 3140, 3819, 4025)]
AWAY = [err.OperationalError(code, "") for code in (2006, 2013)] + [err.InterfaceError(0, "")]
SUFFERED = [from_server(code) for code in (1054, 1114, 1142, 1146, 1205, 1213, 1290)]


@pytest.mark.parametrize("error", BLAMED, ids=lambda error: str(error.args[0]))
def test_a_batch_with_a_row_that_is_refused_is_refused_whole(server, sink, error):
    """Nothing of it stays, and the connection serves for the rows that are good."""
    server.before = refusing(error)
    with pytest.raises(PoisonError, match="not-storable"):
        sink.store([*READINGS, RUN, LETTER])
    assert not any(everything(server).values())
    server.before = lambda _: None
    assert sink.store([*READINGS, RUN, LETTER]) == (5, 0)
    assert len(server.connections) == 1


@pytest.mark.parametrize("error", [*AWAY, *SUFFERED], ids=lambda error: str(error.args[0]))
def test_what_the_server_suffers_from_is_no_readings_fault(server, sink, error):
    """Nothing of the batch stays, and what follows has another connection."""
    server.before = refusing(error)
    with pytest.raises(RetryableError):
        sink.store([*READINGS, RUN, LETTER])
    assert server.connections[0].closed
    assert not any(everything(server).values())
    server.before = lambda _: None
    assert sink.store([*READINGS, RUN, LETTER]) == (5, 0)
    assert len(server.connections) == 2


def test_a_table_without_one_of_our_columns_is_waited_for(server, sink):
    """It is no reading's fault, and what it has is not guessed."""
    server("ALTER TABLE instantaneous_demand RENAME COLUMN claimed_time TO mine")
    warning = Reading(READINGS[0].envelope, Said(device=None, meter=None, time=None, text="t"))
    with pytest.raises(
        RetryableError, match=r"the tables are not as they were made: .*claimed_time"
    ):
        sink.store([warning, READINGS[1]])
    assert seqs(server) == []
    assert sink.store([warning]) == (1, 0), "other tables take what is theirs"


def test_text_that_no_database_holds_is_refused_before_it_is_sent(server, sink):
    """Half of a surrogate pair is no UTF-8, and the connection is as good as before."""
    server.before = refusing(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"))
    with pytest.raises(PoisonError, match="not-storable"):
        sink.store(READINGS)
    assert not server.connections[0].closed


def test_a_batch_is_whole_or_nothing_wherever_it_is_cut(server, sink):
    """Before each statement: what is stored then, and again, is what one undisturbed batch makes."""
    batch = [*READINGS, RUN, LETTER, *as_readings(every_kind())]
    sink.store(batch)
    whole = everything(server)
    for at in count(1):
        for table in (*TABLES, "energy_meter", "energy_rollup"):
            server(f"DELETE FROM {table}")  # noqa: S608
        server("DELETE FROM sqlite_sequence")
        with power_cut(server, at) as was_cut:
            sink.store(batch)
        assert seqs(server) in ([], sorted([1, 2, 3, *range(1, len(every_kind()) + 1)]))
        sink.store(batch)
        assert everything(server) == whole
        if not was_cut():
            break
    assert at > 12


def test_a_commit_whose_answer_is_lost_is_stored_once(server, sink):
    """The server has it, the sink does not know: stored again, it is known and not counted again."""

    def lost(sql):
        if sql == "COMMIT" and seqs(server):
            server.end("COMMIT")
            raise err.OperationalError(2013, "Lost connection")

    server.before = lost
    with pytest.raises(RetryableError):
        sink.store(READINGS)
    server.before = lambda _: None
    assert sink.store(READINGS) == (0, 3)
    assert (seqs(server), counted(server)) == ([1, 2, 3], 3)


def test_a_connection_that_cannot_be_rolled_back_is_not_used_again(server, sink):
    """A row was refused, and the server went away with the answer."""
    sink.store(READINGS[:1])
    connection = server.connections[0]
    connection.rollback = raising(err.OperationalError(2006, "gone"), connection.rollback)
    server.before = refusing(from_server(1264))
    with pytest.raises(PoisonError):
        sink.store(READINGS)
    server.before = lambda _: None
    assert connection.closed
    assert sink.store(READINGS) == (2, 1)


def test_a_newer_database_is_not_written_to(server, sink):
    """A program that knows no more of it would store into tables that mean something else."""
    newer = (schema.migrations()[-1].number + 1, "later of 9.0.0")
    server("INSERT INTO schema_version VALUES (%s, %s)", *newer)
    with pytest.raises(FatalError, match=r"9\.0\.0 made.*run 9\.0\.0, or restore a backup"):
        sink.store(READINGS)
    assert seqs(server) == []


# What is there already


def test_only_what_is_new_is_stored_and_counted(server, sink):
    """A gap is filled later, a repetition within a batch is one reading."""
    assert sink.store([READINGS[0], READINGS[2], READINGS[2]]) == (2, 1)
    assert sink.store(READINGS) == (1, 2)
    assert sink.store([RUN, LETTER, RUN]) == (2, 1)
    assert sink.store([RUN, LETTER]) == (0, 2)
    assert (seqs(server), counted(server)) == ([1, 2, 3], 3)


@pytest.mark.parametrize("stored", [True, False])
def test_another_reading_of_an_identity_refuses_the_batch(server, sink, stored):
    """In the tables, or in the same batch: neither counts, and the good ones can be stored."""
    batch = [OTHER, READINGS[1]]
    if stored:
        sink.store(READINGS[:1])
    else:
        batch += READINGS[:1]
    with pytest.raises(PoisonError, match=f"identity-conflict: .*{HASH}/1"):
        sink.store(batch)
    assert seqs(server) == ([1] if stored else [])
    assert sink.store(READINGS[:2]) == (1 + (not stored), int(stored))


def test_a_reading_is_the_same_to_the_millisecond(sink):
    """What the tables do not hold of a time makes no other reading of it."""
    fine = reading(HASH, 1, received=T0 + timedelta(microseconds=456))
    assert sink.store([fine]) == (1, 0)
    assert sink.store([fine, reading(HASH, 1, received=T0)]) == (0, 2)


def archive(server, *ranges, of=()):
    """Record numbers as archived, with the digests of some readings."""
    for first, last in ranges:
        server("INSERT INTO archived_run VALUES (%s, %s, %s, '2026-03')", HASH, first, last)
    received = {one.envelope.seq: one.envelope.received for one in of}
    for first, last, packed in digests.pack(received):
        where = (HASH, first, last, "t", "2026-03", packed)
        server("INSERT INTO archived_digest VALUES (%s, %s, %s, %s, %s, %s)", *where)
    server("UPDATE run_info SET last_seq = 9")


def test_what_is_archived_is_neither_stored_nor_counted_again(server, sink):
    """What lies between archived numbers is new."""
    sink.store([reading(HASH, 9)])
    archive(server, (1, 1), (3, 3), of=READINGS)
    assert sink.store(READINGS) == (1, 2)
    assert (seqs(server), counted(server)) == ([2, 9], 2)


def test_another_reading_under_an_archived_number_is_refused(server, sink):
    """An archive without digests, as 1.0 made them, is believed to have the same."""
    sink.store([reading(HASH, 9)])
    archive(server, (1, 3))
    assert sink.store([OTHER]) == (0, 1)
    archive(server, of=READINGS[:1])
    with pytest.raises(PoisonError, match=f"identity-conflict: .*{HASH}/1"):
        sink.store([OTHER, READINGS[1]])
    assert sink.store(READINGS) == (0, 3)


def test_a_run_that_says_less_than_is_stored_costs_no_reading(server, sink):
    """Somebody set it back: everything is looked up, nothing is doubled, and it is right again."""
    sink.store(READINGS)
    server("UPDATE run_info SET last_seq = 1")
    assert sink.store([*READINGS, reading(HASH, 4)]) == (1, 3)
    assert (seqs(server), counted(server)) == ([1, 2, 3, 4], 4)
    assert server("SELECT last_seq FROM run_info") == [(4,)]


def test_what_a_key_of_somebody_elses_keeps_out_is_refused(server, sink):
    """It is not taken for stored, and what the key lets in is stored without it."""
    server("CREATE UNIQUE INDEX mine ON instantaneous_demand (demand)")
    sink.store([reading(HASH, 1, 7)])
    with pytest.raises(PoisonError, match="duplicate-key: a unique key that is not ours"):
        sink.store([reading(HASH, 2, 7), reading(HASH, 3, 8)])
    assert seqs(server) == [1]
    assert sink.store([reading(HASH, 3, 8)]) == (1, 0)


def test_many_are_looked_up_in_parts(server, sink, monkeypatch):
    """The answer is that for all of them."""
    monkeypatch.setattr(module, "LOOKED_UP_AT_ONCE", 2)
    batch = [reading(HASH, seq) for seq in range(1, 8)]
    sink.store(batch[::2])
    statements = []
    server.before = statements.append
    assert sink.store(batch) == (3, 4)
    assert statements.count(module.STORED) == 4


# Runs


def test_a_run_is_what_any_message_of_it_said(server, sink):
    """Its earliest start, its first meter, its highest number; what says less takes nothing back."""
    late, early = (reading(HASH, seq, meter=meter) for seq, meter in ((8, None), (2, METER)))
    sink.store([late])
    sink.store([early, Run(node="home", run="r", hash=HASH, started=T0 + timedelta(days=1))])
    sink.store([Run(node="home", run="r", hash=HASH, started=T0, meter="f" * 16)])
    start = T0.replace(microsecond=0, tzinfo=None)
    found = server("SELECT name, meter_id, time, node, last_seq FROM run_info")
    assert found == [("r", METER, start, "home", 8)]


def test_runs_are_written_in_the_order_of_their_hashes(server, sink):
    """Writers that lock each other's runs would wait for ever."""
    hashes = [new_hash() for _ in range(5)]
    sink.store([reading(hash_, 1) for hash_ in sorted(hashes, reverse=True)])
    assert [hash_ for (hash_,) in server("SELECT hash FROM run_info ORDER BY rowid")] == sorted(
        hashes
    )


@pytest.mark.parametrize(("home", "copy"), [(5, 7), (7, 5)])
def test_a_run_of_two_nodes_hides_no_reading(server, sink, home, copy):
    """A copied state: readings are looked up to the highest number of both, at once."""
    sink.store([reading(HASH, home)])
    sink.store([reading(HASH, copy, node="copy")])
    assert sink.store([reading(HASH, 7), reading(HASH, 6)]) == (1, 1)
    assert len(server.connections) == 1, "nothing was begun again"


# Dead letters


def test_a_letter_is_cut_to_what_the_server_takes_in_a_packet(server, sink, monkeypatch):
    """Its size says how long it was."""
    sink.store([])
    monkeypatch.setattr(type(sink._database), "payload_max", 4)
    sink.store([LETTER])
    assert server("SELECT payload, size FROM dead_letter") == [(b"xxxx", 9)]


def test_old_letters_are_forgotten_a_part_at_a_time(server, sink, monkeypatch):
    """Every one from before the time, and no other."""
    monkeypatch.setattr(module, "FORGOTTEN_AT_ONCE", 2)
    letters = [
        msgspec.structs.replace(LETTER, id=f"{number:032x}", at=T0 + timedelta(hours=number))
        for number in range(7)
    ]
    sink.store(letters)
    assert sink.forget_letters(T0 + timedelta(hours=4)) == 4
    assert [id_[-1] for (id_,) in server("SELECT id FROM dead_letter ORDER BY id")] == list("456")
    assert sink.forget_letters(T0) == 0


def as_readings(notifications):
    """Return notifications as the readings of a run of their own."""
    hash_ = RUN.hash
    return [
        Reading(msgspec.structs.replace(READINGS[0].envelope, hash=hash_, seq=seq), one)
        for seq, one in enumerate(notifications, 1)
    ]


def raising(error, then):
    """Return a call that raises an error once, and then does as before."""
    errors = iter([error])

    def call():
        if found := next(errors, None):
            raise found
        then()

    return call
