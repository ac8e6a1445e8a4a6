"""Months leave MongoDB for files and come back: nothing is lost and nothing is there twice."""

from __future__ import annotations

import gzip
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bson import Decimal128, Int64, json_util
from pymongo.collection import Collection

from raven_harness import stack
from ravenbus import archives
from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravenbus.messages import Envelope, Reading
from ravenbus.months import Month
from ravenbus.notifications import (
    KINDS,
    CurrentSummationDelivered,
    MessageCluster,
    Notification,
)
from ravenmongo import housekeeping, lease
from ravenmongo.archiving import MongoArchive
from ravenmongo.documents import EXACT
from ravenmongo.history import MongoHistory
from ravenmongo.readback import MongoStore
from ravenmongo.rollups import RollUps
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from tests.kinds import METER, new_hash, reading

from .system import NODE, System

MARCH, APRIL, MAY = (Month.parse(f"2026-0{number}") for number in (3, 4, 5))
JUNE_15 = datetime(2026, 6, 15, tzinfo=UTC)
ODD = 'ü€\U0001f600, "quoted", \\N \\ \r\n\t\0 '
DEMANDS = "instantaneous_demand"


def of_month(hash_: str, first: int, month: int, number: int = 20) -> list[Reading]:
    """Return readings of a month, numbered from ``first`` on, of three kinds."""
    found: list[Reading] = []
    for seq in range(first, first + number):
        at = datetime(2026, month, 2, 3, 4, 5, 678000, tzinfo=UTC) + timedelta(minutes=seq)
        common = {"device": None, "meter": METER, "time": at.replace(microsecond=0)}
        kind: Notification
        match seq % 4:
            case 0:
                kind = CurrentSummationDelivered(
                    **common, multiplier=1, divisor=1000, summation_delivered=seq * seq * 100,
                    summation_received=seq, delivered_kwh=None, received_kwh=None,
                )  # fmt: skip
            case 1:
                kind = MessageCluster(**(common | {"time": None}), text=ODD)
            case _:
                found.append(reading(hash_, seq, time=common["time"], received=at))
                continue
        envelope = Envelope(node=NODE, run=ODD, hash=hash_, seq=seq, received=at)
        found.append(Reading(envelope, kind))
    return found


@dataclass
class Filled:
    """A database with March, April and May of 2026, counted, and its archive."""

    system: System
    sink: MongoSink
    counting: RollUps
    folder: Path

    def __post_init__(self) -> None:
        self.url = MongoUrl(self.system.mongo_url)
        self.db = self.system.db
        self.hash = new_hash()
        self.march = of_month(self.hash, 1, 3)
        self.april = of_month(self.hash, 21, 4)
        self.may = of_month(self.hash, 41, 5)
        self.sink.prepare()
        assert self.sink.store([*self.march, *self.april, *self.may]) == (60, 0)
        self.counting.count_due()
        assert not self.counting.count_before(60)

    @contextmanager
    def archive(self, keep: int | None = None, **more: Any) -> Iterator[MongoArchive]:
        stop = more.pop("stop", threading.Event())
        with closing(MongoArchive(self.url, self.folder, keep, stop, lambda: JUNE_15)) as found:
            yield found

    def leave(self, month: Month) -> int:
        with self.archive() as archive:
            return archive.archive(month)

    def restore(self, month: Month) -> int:
        with self.archive() as archive:
            return archive.restore(month)

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        return {kind: list(self.db[kind].find().sort("_id", 1)) for kind in KINDS}

    def rolled(self) -> dict[str, list[dict[str, Any]]]:
        """Return the roll-ups without what counting leaves in them, after all is counted."""
        self.counting.count_due()
        assert not self.db.rollup_due.find_one()
        hidden = {"revision": 0, "left": 0, "left_in": 0}
        names = ("demand_rollup", "energy_rollup")
        return {name: list(self.db[name].find({}, hidden).sort("_id", 1)) for name in names}

    def run_command(self, *arguments: str, **settings: str) -> tuple[int, list[str]]:
        """Run the command, which has the real clock."""
        env = {"MONGO_URL": self.url.text, "RAVEN_MONGO_ARCHIVE": str(self.folder), **settings}
        command = [str(stack.BIN / "raven-mongo-recorder"), *arguments]
        process = stack.Process(f"command-{new_hash()}", command, self.folder.parent, env)
        process.start()
        status = process.wait()
        return status, [line for line in process.text().splitlines() if "stopped" not in line]

    def assert_each_once(self, readings: list[Reading]) -> None:
        """Each reading is in its collection or in a file, and the numbers that left are known."""
        left = [one["_id"] for found in self.documents().values() for one in found]
        filed = []
        for record in self.db.archive.find():
            for file in record["files"]:
                _, *lines = archives.read(self.folder / file["file"])
                filed += [json_util.loads(text or "")["_id"] for (text,) in lines]
        numbers = [f"{one.envelope.hash}/{one.envelope.seq}" for one in readings]
        assert sorted([*left, *filed]) == sorted(numbers)
        with closing(MongoHistory(self.url)) as store:
            for hash_ in {one.envelope.hash for one in readings}:
                holding = store.holding(hash_)
                every = [one.envelope.seq for one in readings if one.envelope.hash == hash_]
                assert [n for a, b in holding.present for n in range(a, b + 1)] == sorted(every)
                assert not holding.doubled
                archived = [f"{hash_}/{n}" for a, b in holding.archived for n in range(a, b + 1)]
                assert sorted(archived) == sorted(one for one in filed if one.startswith(hash_))

    @property
    def every(self) -> list[Reading]:
        return [*self.march, *self.april, *self.may]


@pytest.fixture
def filled(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setattr(lease, "LOOK_AGAIN_S", 0.02)
    url = MongoUrl(system.mongo_url)
    with closing(MongoSink(url.text)) as sink, closing(RollUps(url, threading.Event())) as counting:
        yield Filled(system, sink, counting, tmp_path / "archive")


def test_a_month_leaves_the_collections_for_files(filled: Filled):
    """Its documents are in files, to the last type; roll-ups and other months stay as they are."""
    before, rolled = filled.documents(), filled.rolled()
    assert filled.leave(MARCH) == 20
    files = sorted(path.name for path in filled.folder.iterdir())
    kinds = (DEMANDS, "current_summation_delivered", "message_cluster")
    ends = ("", ".sha256")
    assert files == sorted(f"{kind}-2026-03.csv.gz{end}" for kind in kinds for end in ends)
    assert filled.rolled() == rolled
    march = {f"{filled.hash}/{seq}" for seq in range(1, 21)}
    for kind, found in filled.documents().items():
        assert found == [one for one in before[kind] if one["_id"] not in march]
    filled.assert_each_once(filled.every)
    assert filled.leave(MARCH) == 20, "it is archived already"
    with filled.archive() as archive:
        assert {fault for _, fault in archive.verify([])} == {None}
        with pytest.raises(FatalError, match="2026-04 is older and still stored"):
            archive.archive(MAY)
        with pytest.raises(FatalError, match="2026-06 is not over"):
            archive.archive(Month.parse("2026-06"))


def test_an_archive_is_read_without_us(filled: Filled):
    """By the lines of docs/retention.md, each document with the types that it had."""
    before = filled.documents()
    filled.leave(MARCH)
    page = (stack.ROOT / "docs" / "retention.md").read_text()
    (script,) = re.findall(r"python3 -c '\n(.*?)' \| mongoimport", page, re.DOTALL)
    for kind in (DEMANDS, "message_cluster"):
        text = gzip.decompress((filled.folder / f"{kind}-2026-03.csv.gz").read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", script], input=text, check=True, capture_output=True
        )
        found = [json_util.loads(line, json_options=EXACT) for line in done.stdout.splitlines()]
        march = {f"{filled.hash}/{seq}" for seq in range(1, 21)}
        assert sorted(found, key=itemgetter("_id")) == [
            one for one in before[kind] if one["_id"] in march
        ]
        assert {type(one["seq"]) for one in found} == {Int64}


def test_archived_months_are_read_as_if_they_had_stayed(filled: Filled):
    """The same readings in the same order, also those that came late or are in both places."""
    start, may, end = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 5, 6))
    every = (list(KINDS), None, start, end)
    some = ([DEMANDS], [NODE], filled.march[7].envelope.received, filled.april[9].envelope.received)
    later = (list(KINDS), None, may, end)
    late = filled.march[5:9]
    with closing(MongoStore(filled.url, filled.folder)) as store:
        before = [list(store.span(*chosen)) for chosen in (every, some, later)]
        assert [len(found) for found in before] == [30, 11, 10]
        for one in late:
            filled.db[one.kind].delete_one({"_id": f"{filled.hash}/{one.envelope.seq}"})
        filled.leave(MARCH)
        assert filled.sink.store(late) == (len(late), 0)
        assert [list(store.span(*chosen)) for chosen in (every, some, later)] == before
        filled.leave(APRIL)
        assert [list(store.span(*chosen)) for chosen in (every, some, later)] == before
        with closing(MongoStore(filled.url)) as blind:
            assert list(blind.span(*later)) == before[2]
            with pytest.raises(FatalError, match="2026-03 is archived: RAVEN_MONGO_ARCHIVE"):
                list(blind.span(*every))
        record = filled.db.archive.find_one({"_id": str(MARCH)})
        found = store.span(*every)
        next(found)
        filled.restore(MARCH)
        with pytest.raises(RetryableError, match="archived or restored meanwhile"):
            list(found)
        filled.db.archive.insert_one(record)
        assert list(store.span(*every)) == before[0]
        filled.db.archive.update_one({}, {"$set": {"files.0.file": "../x"}})
        with pytest.raises(FatalError, match="cannot be a file of the archive"):
            list(store.span(*every))


def test_a_restored_month_is_what_it_was(filled: Filled):
    """Every field and its type, and one that says since when it is back; it may leave again."""
    before, rolled = filled.documents(), filled.rolled()
    filled.leave(MARCH)
    filled.leave(APRIL)
    assert filled.restore(MARCH) == 20
    march = {f"{filled.hash}/{seq}" for seq in range(1, 21)}
    for kind, found in filled.documents().items():
        marked = [one.pop("restored", None) for one in found]
        assert found == [one for one in before[kind] if one["_id"].split("/")[1] not in
                         {str(seq) for seq in range(21, 41)}]  # fmt: skip
        assert marked == [JUNE_15 if one["_id"] in march else None for one in found]
    assert filled.sink.store(filled.every) == (0, 60)
    assert filled.rolled() == rolled
    filled.assert_each_once(filled.every)
    with pytest.raises(FatalError, match="2026-03 is not archived"):
        filled.restore(MARCH)
    assert filled.leave(MARCH) == 20
    assert filled.sink.store(filled.every) == (0, 60)
    assert filled.rolled() == rolled
    filled.assert_each_once(filled.every)


def test_a_redelivery_of_what_is_archived_is_a_duplicate(filled: Filled):
    """It is neither stored nor counted again; another reading under its number is a conflict."""
    rolled = filled.rolled()
    filled.leave(MARCH)
    assert filled.sink.store(filled.every) == (0, 60)
    assert filled.rolled() == rolled
    filled.assert_each_once(filled.every)
    first = filled.march[0]
    later = first.envelope.received + timedelta(milliseconds=1)
    envelope = msgspec.structs.replace(first.envelope, received=later)
    with pytest.raises(PoisonError, match="identity-conflict"):
        filled.sink.store([Reading(envelope, first.notification)])
    filled.assert_each_once(filled.every)


def test_a_late_reading_of_an_archived_month_is_counted_beside_what_left(filled: Filled):
    """Roll-ups grow by it as if all were there, also after it has left with the next month."""
    late = [
        *of_month(new_hash(), 3, 3, 6),
        *of_month(new_hash(), 1, 3, 1),
        *of_month(new_hash(), 30, 3, 4),
    ]
    filled.sink.store(late)
    expected = filled.rolled()
    for name in ("demand_rollup", "energy_rollup"):
        filled.db[name].delete_many({})
    for one in late:
        for kind in KINDS:
            filled.db[kind].delete_one({"_id": f"{one.envelope.hash}/{one.envelope.seq}"})
    assert filled.sink.store(filled.every) == (0, 60)  # noted again
    filled.rolled()
    filled.leave(MARCH)
    for one in late:
        assert filled.sink.store([one]) == (1, 0)
        filled.rolled()
    assert filled.rolled() == expected
    assert filled.sink.store(late) == (0, len(late))
    assert filled.rolled() == expected
    filled.assert_each_once([*filled.every, *late])
    assert filled.leave(APRIL) == 20 + len(late)
    assert filled.sink.store([*late, *filled.every]) == (0, 60 + len(late))
    assert filled.rolled() == expected
    filled.assert_each_once([*filled.every, *late])
    filled.restore(APRIL)
    filled.sink.store([*late, *filled.every])
    assert filled.rolled() == expected


def demand_or_registers(hash_: str, seq: int, minutes: int) -> Reading:
    """Return what a meter says whose registers grow all the time, at a time from February's end."""
    at = datetime(2026, 2, 28, 22, tzinfo=UTC) + timedelta(minutes=minutes)
    if seq % 2:
        return reading(hash_, seq, time=at, received=at)
    kind = CurrentSummationDelivered(
        device=None, meter=METER, time=at, multiplier=1, divisor=1000,
        summation_delivered=minutes**2, summation_received=minutes if seq % 3 else None,
        delivered_kwh=None, received_kwh=None,
    )  # fmt: skip
    return Reading(Envelope(node=NODE, run="r", hash=hash_, seq=seq, received=at), kind)


@pytest.mark.parametrize("seed", [5, 17])
def test_roll_ups_are_as_if_nothing_had_left(system: System, tmp_path: Path, seed: int):
    """Whatever leaves, comes late, comes again or comes back in between."""
    chance, hash_, numbers = random.Random(seed), new_hash(), count(1)
    url = MongoUrl(system.mongo_url)
    archive = MongoArchive(url, tmp_path / "archive", 1, threading.Event(), lambda: JUNE_15)
    stored: list[Reading] = []
    with closing(MongoSink(url.text)) as sink, closing(RollUps(url, threading.Event())) as counting:
        with closing(archive):
            sink.prepare()
            for _ in range(14):
                match chance.choice(
                    ["new", "new", "new", "count", "leave", "leave", "back", "again"]
                ):
                    case "new":
                        minutes = [
                            chance.randint(0, chance.choice([300, 40_000, 90_000]))
                            for _ in range(5)
                        ]
                        new = [demand_or_registers(hash_, next(numbers), one) for one in minutes]
                        assert sink.store(new) == (5, 0)
                        stored += new
                    case "again":
                        some = chance.sample(stored, len(stored) // 2)
                        assert sink.store(some) == (0, len(some))
                    case "count":
                        counting.count_due()
                    case "leave":
                        for month in archive.due()[:1]:
                            archive.archive(month)
                    case "back":
                        for record in system.db.archive.find()[:1]:
                            archive.restore(Month.parse(record["_id"]))
        counting.count_due()
        found = [_plain_rollups(system.db)]
        for name in (*KINDS, "demand_rollup", "energy_rollup", "archived_run", "archived_digest"):
            system.db[name].delete_many({})
        sink.store(stored)
        counting.count_due()
        found.append(_plain_rollups(system.db))
    assert found[0] == found[1]


def _plain_rollups(db: Any) -> dict[tuple[str, str], Any]:
    return {
        (name, one["_id"]): [
            value.to_decimal() if isinstance(value, Decimal128) else value
            for field, value in sorted(one.items())
            if field not in ("revision", "left", "left_in")
        ]
        for name in ("demand_rollup", "energy_rollup")
        for one in db[name].find()
    }


class KilledError(Exception):
    """The process is gone at this step."""


CHANGES = ("insert_one", "bulk_write", "delete_one", "update_one", "replace_one", "delete_many")


def killed_before(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be changed from the change of that number on; publishing a file is one too."""
    numbers = count(1)

    def stopping(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **more: Any) -> Any:
            if next(numbers) >= number:
                raise KilledError
            return change(*arguments, **more)

        return changed

    for name in CHANGES:
        monkeypatch.setattr(Collection, name, stopping(getattr(Collection, name)))
    monkeypatch.setattr(archives, "publish", stopping(archives.publish))


@pytest.mark.parametrize("what", ["leave", "restore"])
def test_whoever_is_killed_between_two_steps_loses_nothing(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, what: str
):
    """At each change in turn: what is there is there once, redelivered or not, and it goes on."""
    monkeypatch.setattr("ravenmongo.archiving.AT_ONCE", 8)
    monkeypatch.setattr(lease, "LEASE_S", 0.1)
    rolled = filled.rolled()
    late = of_month(new_hash(), 5, 3, 3)
    for number in count(1):
        if what == "restore":
            filled.leave(MARCH)
        with monkeypatch.context() as patched:
            killed_before(number, patched)
            try:
                getattr(filled, what)(MARCH)
                finished = True
            except KilledError:
                finished = False
        if finished:
            break
        assert filled.sink.store(filled.march) == (0, 20)
        if what == "leave" or filled.db.archive.find_one():
            assert getattr(filled, what)(MARCH) == 20
        assert filled.sink.store(filled.every) == (0, 60)
        assert filled.rolled() == rolled
        filled.assert_each_once(filled.every)
        if what == "leave":
            filled.restore(MARCH)
    assert number > 8
    assert filled.sink.store(late) == (3, 0)
    filled.rolled()
    filled.assert_each_once([*filled.every, *late])


def test_two_that_archive_at_once_do_it_once(filled: Filled):
    """The other one puts it off while the holder moves, and finds it done afterwards."""
    inside, go_on = threading.Event(), threading.Event()
    with filled.archive() as one, filled.archive() as other:
        keep = one._keep_rollups

        def slowly(file: Any) -> None:
            inside.set()
            while not go_on.wait(0.01):
                one._db.archive_lease.update_one({}, {"$inc": {"beat": 1}})
            keep(file)

        one._keep_rollups = slowly  # type: ignore[method-assign]
        thread = threading.Thread(target=one.archive, args=(MARCH,))
        thread.start()
        assert inside.wait(60)
        with pytest.raises(RetryableError, match="another one is archiving"):
            other.archive(MARCH)
        rolled_before = filled.db.rollup_due.count_documents({})
        filled.sink.store(filled.march[:3])
        filled.counting.count_due()
        assert filled.db.rollup_due.count_documents({}) > rolled_before, "it waits"
        go_on.set()
        thread.join()
        assert other.archive(MARCH) == 20
    filled.assert_each_once(filled.every)


def test_a_copy_that_comes_while_its_month_leaves_is_removed(filled: Filled, monkeypatch):
    """A recorder that looked before the month left stores no second one, whenever it goes on."""
    rolled = filled.rolled()
    insert = MongoSink._insert
    left = []

    def late(sink: MongoSink, name: str, documents: Any) -> int:
        if not left:
            left.append(filled.leave(MARCH))
        return insert(sink, name, documents)

    monkeypatch.setattr(MongoSink, "_insert", late)
    assert filled.sink.store(filled.march) == (0, 20)
    assert left == [20]
    assert filled.rolled() == rolled
    filled.assert_each_once(filled.every)


def test_a_file_that_is_gone_or_changed_keeps_all_as_it_is(filled: Filled):
    """Nothing is removed by it, nothing restored from it, and `verify` says so."""
    filled.leave(MARCH)
    path = filled.folder / f"{DEMANDS}-2026-03.csv.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    before = filled.documents()
    with pytest.raises(FatalError, match=r"2026-03 cannot be restored: .*checksum"):
        filled.restore(MARCH)
    with filled.archive() as archive:
        faults = {name: fault for name, fault in archive.verify([MARCH]) if fault}
    assert list(faults) == [path.name]
    filled.db.archive.update_one({}, {"$set": {"state": "leaving"}})
    with pytest.raises(RetryableError, match=r"2026-03 cannot go on leaving"):
        filled.leave(APRIL)
    assert filled.documents() == before
    path.write_bytes(good)
    assert filled.leave(APRIL) == 20


def test_the_service_archives_by_itself(filled: Filled, caplog: pytest.LogCaptureFixture):
    """Not within the first hour, then each day; two whole months before this one stay."""
    caplog.set_level("INFO")
    times = iter([0.0, 3599.0, 3600.0, 3600.0, 3601.0])
    stop = threading.Event()

    class Rounds(threading.Event):
        left = 3

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout in (0, housekeeping.EVERY_S)
            self.left -= 1
            return self.left < 0

    with filled.archive(keep=2, stop=stop) as archive:
        housekeeping.run(filled.url, archive, Rounds(), lambda: next(times))
    (record,) = [one for one in caplog.records if one.msg == "archived"]
    assert (str(record.month), record.rows) == ("2026-03", 20)  # type: ignore[attr-defined]
    filled.assert_each_once(filled.every)


def test_the_commands_say_what_they_did(filled: Filled):
    """A line each; 0 if all is well, 1 if not, 2 for what is no month, 78 for settings."""
    status, text = filled.run_command("archive", RAVEN_MONGO_ARCHIVE="")
    assert status == 78
    assert text == ["raven-mongo-recorder: RAVEN_MONGO_ARCHIVE is not set: allowed is a path"]
    status, text = filled.run_command("archive")
    assert status == 1
    assert "say which months, or set RAVEN_MONGO_KEEP_MONTHS" in text[0]
    assert filled.run_command("restore", "2026-13")[0] == 2
    passed = Month.of(datetime.now(UTC)).number - APRIL.number
    status, text = filled.run_command("archive", RAVEN_MONGO_KEEP_MONTHS=str(passed))
    assert (status, text) == (0, ["2026-03: 20 documents archived"])
    assert filled.run_command("verify", "2026-03")[0] == 0
    status, text = filled.run_command("verify", "2026-04")
    assert (status, text[0]) == (1, "2026-04: it is not archived")
    assert filled.run_command("restore", "2026-03") == (0, ["2026-03: 20 documents restored"])


def test_the_index_of_1_0_is_dropped_if_it_is_as_it_was_made(filled: Filled):
    """One that somebody changed stays."""
    summations = "current_summation_delivered"
    filled.db[DEMANDS].create_index([("meter", 1), ("time", 1)])
    filled.db[summations].create_index([("meter", 1), ("time", 1)], sparse=True)
    filled.sink.prepare()
    assert "meter_1_time_1" not in filled.db[DEMANDS].index_information()
    assert "meter_1_time_1" in filled.db[summations].index_information()
    assert "meter_1_time_1" in filled.db["message_cluster"].index_information()
