"""What a reader keeps: numbers without gaps, runs, the last readings, and an outbox."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.outbox import SpoolOutbox
from raven_reader.registers import Baseline
from raven_reader.spool import VERSION, Spool, WaitingFragment
from raven_verify.spool import accepted
from ravenbus import notifications as n
from ravenbus.errors import FatalError, RetryableError
from ravenbus.messages import DeadLetter, decode, decode_reading
from ravenbus.metrics import PublisherMetrics
from ravenbus.topics import Topics

from .fakes import Crowded
from .strategies import steady

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUSE = "0013500100abcdef"


def reading(number, meter=HOUSE):
    found = n.InstantaneousDemand(
        device="d8d5b90000001234",
        meter=meter,
        time=NOON + timedelta(seconds=number),
        multiplier=1,
        divisor=1000,
        demand=number,
        demand_kw=number / 1000,
    )
    return found, NOON + timedelta(seconds=number + 1)


LETTER = DeadLetter(
    id="0" * 32,
    service="reader",
    node="home",
    at=NOON,
    reason="bad-value",
    detail="no number",
    payload=b"<Demand>\xff</Demand>",
    size=17,
)


class Files:
    """A folder with a spool that can be opened again, as after a crash."""

    def __init__(self, folder):
        self.path = folder / "spool.sqlite"
        self._open = []

    def spool(self, run="default", node="home", *, max_mb=16, **how):
        spool = Spool(self.path, Topics(), max_mb=max_mb)
        self._open.append(spool)
        spool.begin(node, run, NOON, **how)
        return spool

    def outbox(self):
        outbox = SpoolOutbox(self.path, metrics=PublisherMetrics())
        self._open.append(outbox)
        return outbox

    def close(self):
        for each in self._open:
            each.close()


@pytest.fixture
def files(tmp_path):
    files = Files(tmp_path)
    yield files
    files.close()


def numbers(outbox):
    """Return the numbers and demands of the readings that wait in an outbox."""
    readings = [decode_reading(entry.payload) for entry in outbox.entries(0, 10_000)]
    return [(r.envelope.seq, r.notification.demand) for r in readings]


def test_readings_wait_in_order_with_their_numbers(files):
    """What was accepted is in the outbox with numbers from 1, on its kind's topic."""
    files.spool().accept([reading(7), reading(8)], [])
    outbox = files.outbox()
    assert numbers(outbox) == [(1, 7), (2, 8)]
    assert {entry.topic for entry in outbox.entries(0, 10)} == {
        "raven/v1/home/reading/instantaneous_demand"
    }
    assert outbox.depth() == (2, reading(7)[1].timestamp())


@steady
@given(
    st.lists(
        st.tuples(st.integers(0, 30), *(st.booleans() for _ in ("full", "restart", "leave"))),
        max_size=12,
    )
)
def test_numbers_have_no_gaps_across_restarts_and_full_disks(tmp_path_factory, story):
    """However readings come, find no room, leave, and the reader restarts: numbers are 1 to n."""
    files = Files(tmp_path_factory.mktemp("spool"))
    outbox, seen, last = files.outbox(), [], 0
    spool = files.spool()
    for count, is_full, restarts, leave in story:
        readings = [reading(last + number + 1) for number in range(count)]
        with Crowded(spool) if is_full else nullcontext(), suppress(RetryableError):
            last += len(spool.accept(readings, []))
        if leave:
            seen += numbers(outbox)
            outbox.taken([entry.key for entry in outbox.entries(0, 10_000)])
        if restarts:
            spool.close()
            spool = files.spool()
    seen += numbers(outbox)
    files.close()
    assert seen == [(number, number) for number in range(1, last + 1)]


def test_the_keys_of_an_outbox_are_never_used_again(files):
    """An entry that comes after everything was taken and removed has a key above them all."""
    spool, outbox = files.spool(), files.outbox()
    spool.accept([reading(1), reading(2)], [])
    keys = [entry.key for entry in outbox.entries(0, 10)]
    outbox.taken(keys)
    assert outbox.depth() == (0, None)
    spool.close()
    files.spool().accept([reading(3)], [])
    (entry,) = outbox.entries(max(keys), 10)
    assert entry.key > max(keys)


def test_an_outbox_gives_what_comes_after_a_key(files):
    """Entries are taken a few at a time, from where the last ones ended."""
    files.spool().accept([reading(number) for number in range(5)], [])
    outbox = files.outbox()
    first = outbox.entries(0, 3)
    rest = outbox.entries(first[-1].key, 3)
    assert [len(first), len(rest)] == [3, 2]
    outbox.taken([first[1].key])
    assert outbox.entries(0, 10) == [first[0], first[2], *rest]


def test_a_full_disk_keeps_nothing_of_a_call(files):
    """Without room nothing is kept, no number is used, and the same call works later."""
    spool, outbox = files.spool(), files.outbox()
    spool.accept([reading(1)], [])
    many = [reading(number) for number in range(2, 500)]
    with Crowded(spool), pytest.raises(RetryableError, match="full"):
        spool.accept(many, [LETTER])
    assert numbers(outbox) == [(1, 1)]
    assert spool.latest()[0].notification.demand == 1
    spool.accept(many, [])
    assert numbers(outbox) == [(number, number) for number in range(1, 500)]


def test_an_error_keeps_nothing_of_a_call(files):
    """A call that fails halfway leaves no entry, no number and no transaction behind."""
    spool = files.spool()
    with pytest.raises(AttributeError):
        spool.accept([reading(1), (None, NOON)], [])
    assert spool.latest() == []
    spool.accept([reading(2)], [])
    assert numbers(files.outbox()) == [(1, 2)]


def test_a_full_spool_still_lets_entries_go(files):
    """Entries can be removed from a full disk, which makes room for new ones."""
    spool, outbox = files.spool(max_mb=1), files.outbox()
    hundred = [reading(number) for number in range(100)]
    with suppress(RetryableError):
        for _ in range(100):
            spool.accept(hundred, [])
    full, _ = outbox.depth()
    assert 1000 < full < 10_000
    outbox.taken([entry.key for entry in outbox.entries(0, 1000)])
    spool.accept(hundred, [])
    assert outbox.depth()[0] == full - 900


def test_a_busy_spool_is_tried_again(files):
    """While another program writes to the file nothing is lost: the error says to try again."""
    spool = files.spool()
    spool._db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(files.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableError, match="locked"):
        spool.accept([reading(1)], [])
    other.execute("ROLLBACK")
    other.close()
    assert [accepted.envelope.seq for accepted in spool.accept([reading(1)], [])] == [1]


def test_dead_letters_wait_too(files):
    """A dead letter goes out like a reading, takes no number, and keeps its bytes."""
    files.spool().accept([reading(1)], [LETTER])
    _, entry = files.outbox().entries(0, 10)
    assert entry.topic == "raven/v1/home/dead"
    assert decode(entry.payload, DeadLetter) == LETTER


def test_a_run_goes_on_after_a_restart(files):
    """The same name is the same run: hash, start, meter and numbers go on."""
    spool = files.spool()
    spool.accept([reading(1)], [])
    before = spool.run
    assert before.meter == HOUSE
    spool.close()
    again = files.spool()
    assert again.run == before
    assert again.accept([reading(2)], [])[0].envelope.seq == 2


@pytest.mark.parametrize("how", [{"run": "winter"}, {"new_run": True}])
def test_another_run_counts_from_one(files, how):
    """Another name, or asking for it, begins a run with a hash and numbers of its own."""
    spool = files.spool()
    spool.accept([reading(1)], [])
    spool.close()
    new = files.spool(**how)
    assert new.run.hash != spool.run.hash
    assert (new.run.meter, new.run.run) == (None, how.get("run", "default"))
    assert new.accept([reading(2)], [])[0].envelope.seq == 1
    hashes = [decode_reading(e.payload).envelope.hash for e in files.outbox().entries(0, 10)]
    assert hashes == [spool.run.hash, new.run.hash]


def test_a_name_that_comes_back_is_another_run(files):
    """A run ends when the name changes: the first name again does not go on with it."""
    hashes = set()
    for name in ("a", "b", "a"):
        spool = files.spool(name)
        hashes.add(spool.run.hash)
        spool.close()
    assert len(hashes) == 3


def test_a_node_is_made_once(files):
    """A reader without a name makes one that outlasts restarts; a name that is set wins."""
    names = []
    for node in (None, None, "home", None):
        spool = files.spool(node=node)
        names.append(spool.node)
        spool.close()
    assert names[0] == names[1] == names[3]
    assert names[0].startswith("raven-")
    assert names[2] == "home"


def test_the_last_reading_of_each_kind_and_meter_is_kept(files):
    """After a restart the last readings are known, one for each kind and meter."""
    spool = files.spool()
    warning = n.Warning(device=None, meter=None, time=None, text="x")
    spool.accept([reading(1), reading(2), reading(3, "0" * 15 + "1"), (warning, NOON)], [])
    spool.close()
    latest = {(r.kind, r.notification.meter): r for r in files.spool().latest()}
    assert {key: r.envelope.seq for key, r in latest.items()} == {
        ("instantaneous_demand", HOUSE): 2,
        ("instantaneous_demand", "0" * 15 + "1"): 3,
        ("warning", None): 4,
    }


def test_a_file_that_is_no_spool_stops_the_start(files):
    """A damaged file is named, with what can be done; it is not written over."""
    files.path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(FatalError, match=r"spool\.sqlite.*move it away"):
        files.spool()
    assert files.path.read_bytes().startswith(b"not a database")


def test_a_newer_spool_stops_the_start(files):
    """A file of a later version is left alone: an older program would not understand it."""
    files.spool().close()
    db = sqlite3.connect(files.path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.execute("UPDATE program SET version = '9.0.0'")
    db.commit()
    db.close()
    with pytest.raises(FatalError, match=r"9\.0\.0 made, and this program.*: run 9\.0\.0 until"):
        files.spool()


def test_what_waits_is_kept_until_it_is_decided(files):
    """A fragment that waits is there after a restart, until it is accepted or rejected."""
    waiting = [WaitingFragment(f"{number:032x}", NOON, b"\xff<x>") for number in range(3)]
    files.spool().accept([], [], waiting)
    spool = files.spool()
    assert spool.waiting() == waiting
    spool.accept([reading(1)], [], decided=[waiting[1].id])
    assert files.spool().waiting() == [waiting[0], waiting[2]]


def test_a_spool_of_1_0_is_taken_over(files):
    """What the last release left is read on, with a place for what waits."""
    registers = n.CurrentSummationDelivered(
        device=None, meter=HOUSE, time=None, multiplier=1, divisor=1000,
        summation_delivered=601001, summation_received=None,
        delivered_kwh=601.001, received_kwh=None,
    )  # fmt: skip
    spool = files.spool()
    spool.accept([reading(1), (registers, NOON)], [])
    spool.close()
    db = sqlite3.connect(files.path)
    db.executescript(
        "DROP TABLE waiting; DROP TABLE register; DROP TABLE backfill; DROP TABLE identity; "
        "DROP TABLE program; ALTER TABLE run DROP COLUMN for_stores; ALTER TABLE node DROP COLUMN retained; "
        "ALTER TABLE outbox DROP COLUMN first; ALTER TABLE store DROP COLUMN heard; "
        "PRAGMA user_version = 3;"
    )
    db.close()
    spool = files.spool()
    assert spool.waiting() == []
    assert spool.registers() == [Baseline(HOUSE, "delivered_kwh", 601.001, NOON)]
    assert [one.envelope.seq for one in spool.accept([reading(3)], [])] == [3]


def test_an_installation_of_1_0_is_known_by_its_stick(files):
    """The stick that was heard before the upgrade stays what Home Assistant knows."""
    spool = files.spool()
    spool.accept([reading(1)], [])
    spool.close()
    with closing(sqlite3.connect(files.path)) as db:
        db.executescript(
            "DROP TABLE identity; DROP TABLE program; ALTER TABLE run DROP COLUMN for_stores; "
            "ALTER TABLE node DROP COLUMN retained; PRAGMA user_version = 7;"
        )
    spool = files.spool()
    assert spool.identity == "d8d5b90000001234"
    spool.accept([reading(3)], [])
    assert spool.identity == "d8d5b90000001234"


def test_a_home_is_known_from_the_first_id_on(files):
    """A reading that names neither meter nor stick is accepted; the next one's meter is the identity."""
    spool = files.spool()
    nameless, at = reading(1)
    spool.accept([(msgspec.structs.replace(nameless, meter=None, device=None), at)], [])
    assert spool.identity is None
    spool.accept([reading(2)], [])
    assert spool.identity == nameless.meter


def test_a_former_name_is_one_until_it_was_left(files):
    """A name that is used again is none, whoever used it meanwhile."""
    files.spool(node="home")
    assert files.spool(node="cabin").former == ["home"]
    files.outbox().left_node("home")
    assert files.spool(node="cabin").former == []
    assert files.spool(node="home").former == ["cabin"]


def test_without_a_store_nothing_waits(files):
    """Readings are numbered and known, and the disk has no more of them however long it takes."""
    with closing(Spool(files.path, Topics(), max_mb=1, for_stores=False)) as spool:
        spool.begin("home", "default", NOON)
        assert [one.envelope.seq for one in spool.accept([reading(1), reading(2)], [])] == [1, 2]
        assert len(spool.latest()) == 1
        unkept = spool.run.hash
        assert not spool.store_came_or_went()
    assert files.outbox().entries(0, 10) == []
    spool = files.spool()
    assert spool.store_came_or_went(), "a run that begins in the middle is no whole one"
    spool.begin("home", "default", NOON, new_run=True)
    assert [one.envelope.seq for one in spool.accept([reading(3)], [])] == [1]
    assert not spool.store_came_or_went()
    looked_at = accepted(files.path.parent)
    assert unkept not in looked_at
    assert looked_at[spool.run.hash].seq == 1


@pytest.mark.parametrize("of", ["nobody", "the version before"])
def test_a_start_on_a_full_disk_says_so(tmp_path, of):
    """A disk without room is no damaged spool: nobody is told to move it away."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        if of == "the version before":
            Spool(tmp_path / "spool.sqlite", Topics(), max_mb=1).close()
            with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as db:
                db.executescript(
                    "ALTER TABLE outbox DROP COLUMN first; ALTER TABLE store DROP COLUMN heard; "
                    "DROP TABLE backfill; DROP TABLE identity; DROP TABLE program; "
                    "ALTER TABLE run DROP COLUMN for_stores; "
                    "ALTER TABLE node DROP COLUMN retained; PRAGMA user_version = 4;"
                )
        with (tmp_path / "other").open("wb", buffering=0) as other, suppress(OSError):
            while other.write(bytes(4096)):
                pass
        with pytest.raises(FatalError, match=r"full|has no room") as error:
            Spool(tmp_path / "spool.sqlite", Topics(), max_mb=1)
        assert "move it away" not in str(error.value)
        (tmp_path / "other").unlink()
        Spool(tmp_path / "spool.sqlite", Topics(), max_mb=1).close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_dead_letter_is_replayed_once_and_is_not_the_last_reading(files):
    """However often it comes, over restarts too; it takes the next number of the run."""
    spool = files.spool()
    spool.accept([reading(1), reading(2)], [])
    (again,) = spool.replay("a" * 32, [reading(0)])
    assert again.envelope.seq == 3
    assert spool.replay("a" * 32, [reading(0)]) == []
    assert files.spool().replay("a" * 32, [reading(0)]) == []
    assert [one.envelope.seq for one in spool.latest()] == [2]
    assert [one.envelope.seq for one in spool.accept([reading(3)], [])] == [4]
