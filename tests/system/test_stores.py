"""Each store's package writes and reads back the same: MySQL, MongoDB, and one in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from raven_verify.look import Look, Wanted
from ravenbus.archiving import Retention
from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravenbus.forgetting import LetterSink
from ravenbus.messages import DeadLetter, Reading, Run, dead_letter
from ravenbus.months import Month
from ravenbus.notifications import KINDS, TimeCluster
from ravenbus.readback import Choice, Known, Store, has, in_order
from ravenmongo.archiving import MongoArchive
from ravenmongo.readback import MongoStore
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from ravensql import schema
from ravensql.archiving import Archive
from ravensql.housekeeping import look_after
from ravensql.readback import MysqlStore
from ravensql.retention import Retention as MysqlRetention
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from tests.kinds import METER, T0, every_kind, new_hash, reading
from tests.memory import Memory

from .sql import Db
from .system import NODE, System

FINE = timedelta(microseconds=123456)


class Both(NamedTuple):
    """The two sides of a store."""

    sink: LetterSink
    store: Store


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Both]]:
    with ExitStack() as stack:

        def mysql() -> Both:
            db: Db = request.getfixturevalue("db")
            url = MysqlUrl(db.url)
            return Both(MysqlSink(url), MysqlStore(url))

        def mongo() -> Both:
            server = request.getfixturevalue("mongo")
            system = stack.enter_context(closing(System(tmp_path, server)))
            return Both(MongoSink(system.mongo_url), MongoStore(MongoUrl(system.mongo_url)))

        def memory() -> Both:
            both = Memory()
            return Both(both, both)

        def open_(name: str) -> Both:
            both = {"MySQL": mysql, "MongoDB": mongo, "memory": memory}[name]()
            for side in both:
                stack.enter_context(closing(side))
            both.sink.prepare()
            return both

        yield open_


EACH = pytest.mark.parametrize("name", ["MySQL", "MongoDB", "memory"])


def of_every_kind(hash_: str) -> list[Reading]:
    """Return readings of every kind whose times are finer than a store may keep."""
    found = []
    for seq, notification in enumerate(every_kind(), 1):
        fine: dict[str, Any] = {"time": notification.time and notification.time + FINE}
        if getattr(notification, "start_time", None):
            fine["start_time"] = T0 + FINE
        envelope = reading(hash_, seq, received=T0 + seq * FINE).envelope
        found.append(Reading(envelope, msgspec.structs.replace(notification, **fine)))
    return found


@EACH
def test_a_reading_comes_back_as_the_store_says_that_it_keeps_it(opened, name: str):
    """Of every kind, to the store's precision; what it keeps it keeps as it is."""
    sink, store = opened(name)
    hash_ = new_hash()
    written = of_every_kind(hash_)
    assert sink.store(written) == (len(written), 0)
    found = dict(store.readings(hash_, [one.envelope.seq for one in written]))
    assert found == {one.envelope.seq: store.as_stored(one) for one in written}
    for one in found.values():
        assert one
        assert store.as_stored(one) == one
        assert has(store, one)
    for one in written:
        assert abs(store.as_stored(one).envelope.received - one.envelope.received) < timedelta(
            seconds=1
        )
        assert has(store, one), "a redelivery is known as such"
        other = msgspec.structs.replace(one.envelope, received=T0 - timedelta(days=1))
        assert not has(store, Reading(other, one.notification))


@EACH
def test_the_numbers_of_a_run_come_back_as_ranges(opened, name: str):
    """With their gaps, and however far apart they are."""
    sink, store = opened(name)
    hash_, other = new_hash(), new_hash()
    seqs = [*range(1, 13), 100, 101, 2**62]
    batch = [reading(hash_, seq) for seq in seqs]
    assert sink.store([*batch, reading(other, 7)]) == (len(seqs) + 1, 0)
    assert sink.store(batch) == (0, len(seqs))
    holding = store.holding(hash_)
    assert holding == ([(1, 12), (100, 101), (2**62, 2**62)], [], [])
    assert holding.last == 2**62
    assert store.having(hash_, [(10, 14), (101, 105)]) == [(10, 12), (101, 101)]
    assert store.runs() == dict.fromkeys((hash_, other), Known("r", NODE))
    assert not store.passes_over(hash_)
    assert store.holding(new_hash()) == ([], [], [])
    assert dict(store.readings(hash_, [13, 14])) == {}


@pytest.mark.parametrize("name", ["MySQL", "MongoDB"])
def test_an_archived_month_is_held_without_its_readings(
    opened, name: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """Its numbers count as there, a redelivery is known, and what is restored can be read again."""
    month, stop, folder = Month.of(T0), threading.Event(), tmp_path / "archive"
    archive: Any
    if name == "MySQL":
        url = MysqlUrl(request.getfixturevalue("db").url)
        schema.migrate(url)
        look_after(url, utc=lambda: T0)
        archive = Archive(url, folder, stop)
        retention: Retention = MysqlRetention(archive, None)
    sink, store = opened(name)
    if name == "MongoDB":
        retention = archive = MongoArchive(store._url, folder, None, stop)
        request.addfinalizer(archive.close)
    hash_ = new_hash()
    written = [reading(hash_, seq) for seq in range(1, 8)]
    sink.store(written)
    assert retention.archive(month) == 7
    sink.store([reading(hash_, 9)])
    assert store.holding(hash_) == ([(9, 9)], [(1, 7)], [])
    assert store.holding(hash_).last == 9
    assert store.having(hash_, [(5, 12)]) == [(5, 7), (9, 9)]
    assert list(store.runs()) == [hash_]
    assert dict(store.readings(hash_, [1, 2])) == {}
    assert list(in_order(store, hash_)) == [store.as_stored(reading(hash_, 9))]
    assert all(has(store, one) for one in written)
    assert sink.store(written) == (0, 7)
    assert archive.restore(month) == 7
    assert store.holding(hash_) == ([(1, 7), (9, 9)], [], [])
    assert dict(store.readings(hash_, [1])) == {1: store.as_stored(written[0])}


@EACH
@pytest.mark.parametrize("kind", ["instantaneous_demand", "time_cluster"])
def test_a_span_of_time_comes_back_in_its_order(opened, name: str, kind: str, monkeypatch):
    """By the device's time, or the reader's; page by page; of this meter and kind alone."""
    monkeypatch.setattr("ravensql.readback.PAGE", 7)
    sink, store = opened(name)
    written: list[Reading] = []
    for hash_ in (new_hash(), new_hash()):
        for seq in range(1, 41):
            one = reading(hash_, seq)
            at = T0 + timedelta(milliseconds=250 * (seq * 7 % 40 // 2))
            time = at if seq % 3 else None
            meter = None if seq % 11 == 0 else METER
            of = one.notification if seq % 5 else TimeCluster(device=None, meter=METER, time=None)
            if kind == "time_cluster":
                of = TimeCluster(device=None, meter=METER, time=None, local_offset_s=seq)
            said = msgspec.structs.replace(of, time=time, meter=meter)
            envelope = msgspec.structs.replace(one.envelope, received=at + timedelta(seconds=1))
            written.append(Reading(envelope, said))
    sink.store(written)
    reference = Memory()
    reference.store([store.as_stored(one) for one in written])
    start, end = T0 + timedelta(seconds=1), T0 + timedelta(seconds=3.5)
    for meter, span in (
        (METER, (start, end)),
        (None, (start, end)),
        (METER, (T0, end + end.resolution)),
    ):
        expected = list(reference.between(kind, meter, *span))
        assert list(store.between(kind, meter, *span)) == expected
        assert len(expected) > 7 or meter is None
    assert list(store.between(kind, METER, end, end)) == []
    (hash_,) = {written[0].envelope.hash}
    numbers = [one.envelope.seq for one in in_order(store, hash_)]
    assert numbers == list(range(1, 41))


@EACH
@pytest.mark.parametrize("nodes", [None, ["other", "nobody"]])
def test_all_meters_of_a_span_come_back_in_one_order(opened, name: str, nodes, monkeypatch):
    """Some kinds or every one, of some nodes or all; with and without a meter and a clock."""
    monkeypatch.setattr("ravensql.readback.PAGE", 7)
    monkeypatch.setattr("ravenmongo.readback.IN_MEMORY", 40)
    sink, store = opened(name)
    written: list[Reading] = []
    for node in (NODE, "other"):
        hash_ = new_hash()
        for seq, notification in enumerate(every_kind() * 2, 1):
            at = T0 + timedelta(milliseconds=500 * (seq * 7 % 40 // 2))
            said = msgspec.structs.replace(notification, time=notification.time and at)
            envelope = reading(hash_, seq, received=at + timedelta(seconds=1)).envelope
            written.append(Reading(msgspec.structs.replace(envelope, node=node), said))
    sink.store(written)
    reference = Memory()
    reference.store([store.as_stored(one) for one in written])
    for kinds in (list(KINDS), ["time_cluster", "price_cluster", "warning"], ["time_cluster"]):
        chosen = (kinds, nodes, T0 + timedelta(seconds=1), T0 + timedelta(seconds=9))
        expected = list(reference.span(*chosen))
        assert list(store.span(*chosen)) == expected
        assert len(expected) > len(kinds)


def test_archived_months_are_read_as_if_they_had_stayed(db: Db, tmp_path: Path, monkeypatch):
    """The same readings in the same order, also of a month of which a part is in both places."""
    monkeypatch.setattr("ravensql.readback.PAGE", 7)
    url, folder, march = MysqlUrl(db.url), tmp_path / "archive", Month.parse("2026-03")
    schema.migrate(url)
    look_after(url, utc=lambda: T0)
    hash_, written = new_hash(), list[Reading]()
    for seq, notification in enumerate(every_kind() * 3, 1):
        at = T0 + timedelta(days=(seq * 7 % 50), milliseconds=seq)
        said = msgspec.structs.replace(notification, time=notification.time and at)
        written.append(Reading(reading(hash_, seq, received=at).envelope, said))
    every = (list(KINDS), None, T0, T0 + timedelta(days=60))
    prices = (["price_cluster"], [NODE], T0 + timedelta(days=9), T0 + timedelta(days=40))
    later = (list(KINDS), None, datetime(2026, 4, 1, tzinfo=UTC), every[3])
    with closing(db.sink()) as sink, closing(MysqlStore(url, folder)) as store:
        sink.store(written)
        before = [list(store.span(*chosen)) for chosen in (every, prices, later)]
        assert len(before[0]) == len(written)
        archive = Archive(url, folder, threading.Event())
        assert MysqlRetention(archive, None).archive(march) > 50
        assert [list(store.span(*chosen)) for chosen in (every, prices, later)] == before
        sink.store(written)
        (again,) = db("SELECT COUNT(*) FROM instantaneous_demand WHERE time < '2026-04-01'")
        assert again == (0,)
        with closing(MysqlStore(url)) as blind:
            assert list(blind.span(*later)) == before[2]
            with pytest.raises(FatalError, match="2026-03 is archived: RAVEN_SQL_ARCHIVE"):
                list(blind.span(*every))
        db("CREATE TABLE kept AS SELECT * FROM archive")
        found = store.span(*every)
        next(found)
        archive.restore(march)
        with pytest.raises(RetryableError, match="archived or restored meanwhile"):
            list(found)
        db("INSERT INTO archive SELECT * FROM kept")
        assert list(store.span(*every)) == before[0]
        db("UPDATE archive SET sha256 = REPEAT('0', 64)")
        with pytest.raises(FatalError, match="checksum"):
            list(store.span(*every))


@EACH
def test_a_run_and_dead_letters_come_back(opened, name: str):
    """Letters oldest first, by reason, service, time and the beginning of an id."""
    sink, store = opened(name)
    run = Run(node=NODE, run="r", hash=new_hash(), started=T0.replace(microsecond=0), meter=METER)
    letters = [_letter(number) for number in range(4)]
    assert store.run(run.hash) is None
    assert not has(store, run)
    assert sink.store([run, *reversed(letters)]) == (5, 0)
    assert store.run(run.hash) == run
    assert has(store, run)
    assert [one.id for one in store.letters(Choice())] == [one.id for one in letters]
    assert list(store.letters(Choice(reason="even"))) == letters[::2]
    assert list(store.letters(Choice(service="reader"))) == []
    assert list(store.letters(Choice(since=letters[2].at))) == letters[2:]
    assert store.letters_called(letters[1].id[:12]) == [letters[1]]
    assert has(store, letters[1])
    store.remove(letters[1].id)
    assert not has(store, letters[1])
    assert list(store.letters(Choice())) == [letters[0], *letters[2:]]
    assert sink.forget_letters(letters[3].at) == 2
    assert sink.forget_letters(letters[3].at) == 0
    assert list(store.letters(Choice())) == [letters[3]]


def _letter(number: int) -> DeadLetter:
    reason = "odd" if number % 2 else "even"
    at = T0 + timedelta(hours=number)
    return dead_letter("sql-writer", f"t/{number}", b"{}", at, PoisonError(reason, "why"))


def test_a_store_that_nobody_knows_is_compared_like_the_others(opened):
    """Three stores: what one of them lacks, and what it says otherwise, is found by its number."""
    every = [opened(name) for name in ("MySQL", "MongoDB", "memory")]
    stores = [both.store for both in every]
    third = stores[2]
    assert isinstance(third, Memory)
    hash_ = new_hash()
    written = of_every_kind(hash_)
    for sink, _ in every:
        sink.store(written)
    (run,) = Look(stores, None).look(Wanted()).runs
    assert run.complete
    assert list(run.stores) == ["MySQL", "MongoDB", "memory"]
    changed = msgspec.structs.replace(written[3].envelope, run="another")
    third.items[hash_][4] = Reading(changed, written[3].notification)
    del third.items[hash_][9]
    settled = Look(stores, None, clock=iter(range(0, 1000, 10)).__next__, sleep=lambda _: None)
    (run,) = settled.look(Wanted()).runs
    assert run.differing == [(4, 4)]
    assert {name: store.lacking for name, store in run.stores.items()} == {
        "MySQL": [],
        "MongoDB": [],
        "memory": [(9, 9)],
    }
