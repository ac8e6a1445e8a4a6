"""A database that somebody else set up, and odd messages: nothing that is stored changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from raven_verify.inventory import Accepted, report
from ravenbus.errors import PoisonError
from ravenbus.messages import Run
from ravenmongo import documents
from ravenmongo.readback import MongoStore
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from tests.kinds import METER, T0, new_hash, reading

from .system import NODE, System


@pytest.fixture
def store(system: System) -> Iterator[MongoSink]:
    sink = MongoSink(system.mongo_url)
    yield sink
    sink.close()


def test_an_index_of_our_keys_under_another_name_is_left_as_it_is(system: System, store: MongoSink):
    """The start goes on, and so does storing."""
    system.db["instantaneous_demand"].create_index([("meter", 1), ("time", 1)], name="mine")
    store.prepare()
    store.prepare()
    assert store.store([reading(new_hash(), 1)]) == (1, 0)


def test_a_unique_index_of_somebody_elses_makes_dead_letters(system: System, store: MongoSink):
    """A reading or run that it keeps out is poison, named; what is there is a duplicate, and stays."""
    one = new_hash()
    first = Run(node=NODE, run="r", hash=one, started=T0.replace(microsecond=0))
    batch = [reading(one, seq) for seq in (1, 2)]
    assert store.store([first, *batch]) == (3, 0)
    system.db["instantaneous_demand"].create_index("time", unique=True, name="moment")
    system.db["runs"].create_index("node", unique=True, name="one")
    same_time = reading(one, 3, time=batch[0].notification.time)
    with pytest.raises(PoisonError, match=r"duplicate-key: .*moment"):
        store.store([*batch, same_time])
    with pytest.raises(PoisonError, match=r"duplicate-key: .*one"):
        store.store([msgspec.structs.replace(first, hash=new_hash())])
    assert store.store([first, *batch]) == (0, 3)
    system.db["runs"].create_index("meter", unique=True, sparse=True, name="its")
    system.db["runs"].drop_index("one")
    other = msgspec.structs.replace(first, hash=new_hash(), meter=METER)
    store.store([msgspec.structs.replace(first, meter=METER)])
    with pytest.raises(PoisonError, match=r"duplicate-key: .*its"):
        store.store([other])


def test_a_dead_letter_that_the_store_refuses_ends_nothing(system: System):
    """With an index that takes one letter alone the recorder goes on, and says what it cannot keep."""
    system.start()
    system.db["dead_letter"].create_index("reason", unique=True, name="mine")
    home = system.client(NODE)
    for number in range(3):
        home.publish(f"raven/v1/{NODE}/reading/warning", b"poison %d" % number)
    system.wait_for_log(system.recorder, "dead letter refused")
    before = len(system.stored()[1])
    system.wait_until_stored(before + 5)
    assert system.recorder.running


def test_an_older_run_after_a_newer_one_takes_nothing_back(system: System, store: MongoSink):
    """A run that is delivered again from before its meter was known leaves the meter."""
    older = Run(node=NODE, run="r", hash=new_hash(), started=T0.replace(microsecond=0))
    newer = msgspec.structs.replace(older, meter=METER)
    assert store.store([older, newer]) == (1, 1)
    store.store([older])
    (found,) = system.db["runs"].find()
    assert documents.run(found) == newer


def test_odd_times_and_numbers_are_stored_once(system: System, store: MongoSink):
    """Microseconds, the largest number and times before 1970 are stored, and known again."""
    one = new_hash()
    batch = [
        reading(one, 2**63 - 1, received=T0 + timedelta(microseconds=4)),
        reading(one, 2, received=datetime(1970, 1, 1, tzinfo=UTC)),
        reading(one, 3, received=datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ]
    assert store.store(batch) == (3, 0)
    assert store.store(batch) == (0, 3)
    assert system.db["instantaneous_demand"].count_documents({}) == 3


def test_a_number_without_end_is_one_number(system: System, store: MongoSink):
    """What is held is walked, never counted through: the gap is one range, and is said."""
    one = new_hash()
    store.store([reading(one, 1), reading(one, 2**63 - 1)])
    mongo = MongoStore(MongoUrl(system.mongo_url))
    try:
        holding, known = mongo.holding(one), mongo.runs()[one]
    finally:
        mongo.close()
    assert holding.held == [(1, 1), (2**63 - 1, 2**63 - 1)]
    found = report(one, known, Accepted("r", 2, []), {mongo.name: holding}, {})
    assert found.stores[mongo.name].lacking == [(2, 2**63 - 2)]


def test_documents_of_1_0_are_read_and_known_again(system: System, store: MongoSink):
    """A document without what this version added is the same reading."""
    one = reading(new_hash(), 1)
    document = documents.of_reading(one)
    del document["claimed_time"]
    system.db["instantaneous_demand"].insert_one(document)
    assert store.store([one]) == (0, 1)
    (found,) = system.db["instantaneous_demand"].find()
    assert documents.reading(found) == documents.as_stored(one)
