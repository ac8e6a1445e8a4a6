"""What becomes of each row of the tables as it is read; no database."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from raven_sql_relay import source as module
from raven_sql_relay.claims import SIZE, Block
from raven_sql_relay.source import (
    DEMAND,
    KEPT,
    LEFT_OUT,
    NEW,
    NOBODY,
    PARKED,
    TAKEN,
    Ref,
    RelayMetrics,
    Source,
    mark,
)
from ravenbus.errors import FatalError
from ravenbus.messages import Reading, Run, decode, decode_reading
from ravenbus.notifications import Warning as Said
from ravenbus.topics import Topics
from ravensql.sink import MysqlSink
from tests.kinds import METER, T0, every_kind, new_hash, reading

HASH = new_hash()
BLOCK = Block(DEMAND, 0)
UPSTREAM = "mqtts://up"


class Relay:
    """A source and a connection of its own to a database in which readings are stored."""

    def __init__(self, server, **changes):
        settings = {"upstream": UPSTREAM, "node": "home", "payload_max": 10**6, "first": True}
        settings |= changes
        self.server = server
        self.metrics = RelayMetrics()
        self.cursor = server.connect()
        self.source = Source(Topics(), self.metrics, settings["upstream"], settings["node"])
        self.source.connected(self.cursor, settings["payload_max"], first=settings["first"])

    def store(self, *items):
        with closing(MysqlSink(self.server.url)) as sink:
            sink.store(items)

    def insert(self, demand=1000, *, run="r", hash_="h", time="2026-03-01 12:00:00", scale=1000):
        """Insert a row as python-raven's scripts do; return its id."""
        scale_by = -1 if scale < 0 else 1
        self.server(
            "INSERT INTO instantaneous_demand (time, demand, multiplier, divisor, run, hash) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            *(time, demand, scale_by, scale, run, hash_),
        )
        return self.server("SELECT MAX(id) FROM instantaneous_demand")[0][0]

    def read(self, condition=NEW, block=BLOCK, in_hand=()):
        return self.source.entries(self.cursor, block, condition, in_hand)

    def sent(self, *args, **kwargs):
        """Return the runs and readings that are read, in order."""
        return [
            decode_reading(found.entry.payload) if found.ref else decode(found.entry.payload, Run)
            for found in self.read(*args, **kwargs)
        ]

    def seqs(self, *args, **kwargs):
        sent = self.sent(*args, **kwargs)
        return [one.envelope.seq for one in sent if isinstance(one, Reading)]

    def marks(self, table=DEMAND):
        return [state for (state,) in self.server(f"SELECT relayed FROM {table} ORDER BY id")]  # noqa: S608

    def letters(self):
        return self.server("SELECT id, reason, detail FROM dead_letter ORDER BY detail")


def ref(row):
    """Return the reference of a demand that was stored as the first, second, and so on."""
    return Ref(DEMAND, row, (T0 + timedelta(seconds=8 * row)).replace(microsecond=0))


@pytest.fixture
def relay(server):
    return Relay(server)


# Which rows are read


def test_only_rows_that_meet_the_condition_and_are_not_in_hand_are_read(relay):
    """What was never sent, or what nobody took; what is taken, left out or parked is neither."""
    relay.store(*(reading(HASH, seq) for seq in range(1, 8)))
    states = [None, NOBODY, TAKEN, LEFT_OUT, PARKED, None, NOBODY]
    for row, state in enumerate(states, 1):
        mark(relay.cursor, DEMAND, state, [ref(row)])
    assert relay.marks() == states
    assert relay.seqs(NEW) == [1, 6]
    assert relay.seqs(KEPT) == [2, 7]
    assert relay.seqs(NEW, in_hand={1}) == [6]


def test_a_block_is_read_to_its_borders_in_the_order_of_ids(relay):
    """Rows of the next block are another's, whatever their time."""
    ids = [SIZE, SIZE - 1, 1, 2 * SIZE - 1, 2 * SIZE]
    for seq, row in enumerate(ids, 1):
        relay.store(reading(HASH, seq))
        relay.server("UPDATE instantaneous_demand SET id = %s WHERE seq = %s", row, seq)
    assert relay.seqs(block=Block(DEMAND, 0)) == [3, 2]
    assert relay.seqs(block=Block(DEMAND, 1)) == [1, 4]
    assert relay.seqs(block=Block(DEMAND, 3)) == []


def test_looking_for_rows_finds_the_lowest_and_the_highest(relay):
    """From an id on, of those that meet the condition; a block says whether it has more."""
    relay.store(*(reading(HASH, seq) for seq in range(1, 6)))
    mark(relay.cursor, DEMAND, NOBODY, [ref(2)])
    mark(relay.cursor, DEMAND, TAKEN, [ref(5)])
    cursor, source = relay.cursor, relay.source
    starts = (0, 1, 2, 5)
    assert [source.first(cursor, DEMAND, NEW, start) for start in starts] == [1, 1, 3, None]
    assert [source.first(cursor, DEMAND, KEPT, start) for start in starts] == [2, 2, 2, None]
    assert source.newest(cursor, DEMAND) == 4
    assert source.newest(cursor, "notification") == 0
    assert source.unread(cursor, BLOCK, {1, 3})
    assert not source.unread(cursor, BLOCK, {1, 3, 4})
    assert not source.unread(cursor, Block(DEMAND, 1), ())


def test_every_kind_is_the_reading_that_it_was(relay):
    """On its own topic, with the reference of its row and its identity."""
    envelope = reading(HASH, 1).envelope
    sent = [
        Reading(msgspec.structs.replace(envelope, seq=seq), one)
        for seq, one in enumerate(every_kind(), 1)
    ]
    relay.store(*sent)
    found = [
        one for table in module.rows.COLUMNS for one in relay.read(block=Block(table, 0)) if one.ref
    ]
    by_seq = sorted(found, key=lambda one: one.identity)
    assert [decode_reading(one.entry.payload).notification for one in by_seq] == every_kind()
    assert [one.entry.topic for one in by_seq] == [
        f"raven/v1/home/reading/{one.kind}" for one in sent
    ]
    assert [one.identity for one in by_seq] == [(HASH, seq) for seq in range(1, len(sent) + 1)]
    keys = [one.entry.key for one in found]
    assert keys == sorted(set(keys))


def test_the_oldest_unsent_row_is_said_of_new_rows_alone(relay):
    """What nobody takes is older and would hide how far behind the relay is."""
    relay.store(*(reading(HASH, seq) for seq in (1, 2, 3)))
    mark(relay.cursor, DEMAND, NOBODY, [ref(1)])
    name = "raven_unsent_oldest_timestamp_seconds"
    relay.read(KEPT)
    assert relay.metrics.registry.get_sample_value(name) == 0
    relay.read(NEW)
    assert relay.metrics.registry.get_sample_value(name) == ref(2).time.timestamp()


# Runs


def test_a_run_goes_before_its_first_reading_and_again_with_its_meter(relay):
    """Once in a connection, and another time when it was sent without one."""
    relay.store(*(reading(HASH, seq, meter=None) for seq in (1, 2)))
    kinds = [type(one) for one in relay.sent()]
    assert kinds == [Run, Reading, Reading]
    assert [type(one) for one in relay.sent()] == [Reading, Reading]
    relay.store(reading(HASH, 3), reading(HASH, 4))
    run, last, _ = relay.sent(in_hand={1, 2})
    assert (run.meter, run.hash, last.envelope.seq) == (METER, HASH, 3)
    relay.source.announced.clear()
    assert [type(one) for one in relay.sent(in_hand={1, 2, 3})] == [Run, Reading]


def test_a_run_is_what_the_database_knows_of_it(relay):
    """Its earliest start and its meter; of an unknown one, what its first reading says."""
    relay.store(Run(node="home", run="r", hash=HASH, started=T0 - timedelta(days=1), meter=METER))
    relay.store(Run(node="copy", run="r", hash=HASH, started=T0))
    relay.store(reading(HASH, 1, meter=None))
    run, _ = relay.sent()
    assert run.started == (T0 - timedelta(days=1)).replace(microsecond=0)
    assert (run.node, run.run, run.meter) == ("home", "r", METER)
    relay.source.announced.clear()
    relay.server("DELETE FROM run_info")
    run, first = relay.sent()
    assert (run.started, run.meter) == (first.envelope.received, None)


# Rows that are no readings


def test_a_row_that_is_no_reading_is_buried_once_and_the_rest_goes_on(relay):
    """Its letter names the row, and has the same id however often it is found."""
    warning = Said(device=None, meter=None, time=None, text="t")
    envelope = reading(HASH, 1).envelope
    relay.store(*(Reading(msgspec.structs.replace(envelope, seq=s), warning) for s in (1, 2, 3)))
    relay.server("UPDATE notification SET body = '{' WHERE seq = 1")
    relay.server("UPDATE notification SET node = 'no node' WHERE seq = 3")
    block = Block("notification", 0)
    assert relay.seqs(block=block) == [2]
    letters = relay.letters()
    reasons = [(reason, detail.partition(":")[0]) for _, reason, detail in letters]
    assert reasons == [
        ("not-json", "notification, id 1"),
        ("not-contract", "notification, id 3"),
    ]
    assert relay.marks("notification") == [LEFT_OUT, None, LEFT_OUT]
    relay.server("UPDATE notification SET relayed = NULL")
    assert relay.seqs(block=block) == [2]
    assert relay.letters() == letters


def test_a_row_whose_time_is_zero_is_buried(relay):
    """It was written by a session that was not strict; the rows beside it are read."""
    relay.store(reading(HASH, 1), reading(HASH, 2))
    relay.server("UPDATE instantaneous_demand SET time = '0000-00-00 00:00:00' WHERE seq = 1")
    assert relay.seqs() == [2]
    assert [detail for _, _, detail in relay.letters()] == [f"{DEMAND}, id 1: the row has no time"]
    assert relay.marks() == [LEFT_OUT, None]


def test_a_buried_row_is_cut_to_what_the_server_takes(server):
    """Its letter says how long it was."""
    relay = Relay(server, payload_max=10)
    relay.store(reading(HASH, 1, node="home", run="r" * 100))
    server("UPDATE instantaneous_demand SET node = ''")
    assert relay.read() == []
    ((payload, size),) = server("SELECT payload, size FROM dead_letter")
    assert len(payload) == 10 < size


def test_rows_that_a_script_made_up_are_left_out_and_not_buried(relay):
    """They say that the script had nothing to say."""
    relay.insert(-1, scale=-1)
    relay.insert(7)
    assert [one.notification.demand for one in relay.sent()[1:]] == [7]
    assert relay.marks() == [LEFT_OUT, None]
    assert relay.letters() == []


# Rows of other programs


def test_rows_of_another_program_are_numbered_for_good(relay):
    """In the order of their ids, each run for itself; what comes later follows on."""
    for run in ("a", "b", "a"):
        relay.insert(run=run)
    first = {one.ref.id: one.identity for one in relay.read() if one.ref}
    (a, _), (b, _) = first[1], first[2]
    assert a != b
    assert first == {1: (a, 1), 2: (b, 1), 3: (a, 2)}
    relay.insert(run="a")
    later = Relay(relay.server)
    assert {one.ref.id: one.identity for one in later.read() if one.ref} == first | {4: (a, 3)}


def test_a_late_row_is_numbered_after_those_that_have_their_numbers(relay):
    """Its id is lower, its number higher: a number is never given to another row."""
    relay.insert(1)
    relay.insert(2)
    relay.server("UPDATE instantaneous_demand SET id = 9 WHERE id = 1")
    relay.read(in_hand={2})
    found = {one.ref.id: one.identity[1] for one in relay.read() if one.ref}
    assert found == {9: 1, 2: 2}


def test_a_row_of_another_program_becomes_a_reading_of_this_node(relay):
    """Its time is when it was received, and its meter and its run's start are those of its run."""
    run_info = "INSERT INTO run_info (name, hash, meter_id, time) VALUES ('r', 'h', %s, %s)"
    relay.server(run_info, f"0x{METER.upper()}", datetime(2026, 2, 1))  # noqa: DTZ001
    relay.insert(7)
    run, found = relay.sent()
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    envelope, said = found.envelope, found.notification
    assert (envelope.node, envelope.run, envelope.received) == ("home", "r", noon)
    assert (said.demand, said.demand_kw, said.meter, said.time) == (7, 0.007, METER, None)
    assert (run.hash, run.meter) == (envelope.hash, METER)
    assert run.started == datetime(2026, 2, 1, tzinfo=UTC)


# Who relays


def test_a_second_upstream_is_refused_unless_nobody_else_relays(server):
    """Each row goes to one broker; the only relay may be told another one."""
    Relay(server)
    Relay(server, first=False)
    with pytest.raises(FatalError, match="another relay sends this database's rows to mqtts://up"):
        Relay(server, first=False, upstream="mqtts://else")
    assert server("SELECT upstream FROM relay") == [(UPSTREAM,)]
    Relay(server, upstream="mqtts://else")
    assert server("SELECT upstream FROM relay") == [("mqtts://else",)]


def test_a_database_keeps_its_name_and_node(server):
    """What was made at the first start stays; a node that is set takes the place of another."""
    query = "SELECT source, node FROM relay"
    Relay(server, node=None)
    ((source, made),) = server(query)
    assert made.startswith("raven-")
    Relay(server, node=None)
    assert server(query) == [(source, made)]
    Relay(server, node="home")
    assert server(query) == [(source, "home")]
    Relay(server, node=None)
    assert server(query) == [(source, "home")]


# Marks


def test_a_mark_is_on_the_rows_that_are_named(relay):
    """With a time or without one, and on none beside them."""
    relay.store(*(reading(HASH, seq) for seq in range(1, 6)))
    relay.server("UPDATE instantaneous_demand SET time = '0000-00-00 00:00:00' WHERE seq = 5")
    mark(relay.cursor, DEMAND, TAKEN, [ref(1), ref(4)])
    assert relay.marks() == [TAKEN, None, None, TAKEN, None]
    mark(relay.cursor, DEMAND, NOBODY, [Ref(DEMAND, 5, None), ref(1)])
    assert relay.marks() == [NOBODY, None, None, TAKEN, NOBODY]
    mark(relay.cursor, DEMAND, None, [ref(1)])
    assert relay.marks() == [None, None, None, TAKEN, NOBODY]
