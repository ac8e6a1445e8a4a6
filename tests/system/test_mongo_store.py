"""A database that somebody else set up, and odd messages: nothing that is stored changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from raven_mongo_recorder.sink import MongoSink
from raven_verify.inventory import Accepted, report
from raven_verify.mongo import MongoStore
from ravenbus.messages import Run
from ravenmongo import documents
from ravenmongo.settings import MongoUrl

from .sql import METER, T0, new_hash, reading
from .system import NODE, System


@pytest.fixture
def store(system: System) -> Iterator[MongoSink]:
    if system.mongo:
        system.mongo.start()
    sink = MongoSink(system.mongo_url)
    yield sink
    sink.close()


def test_an_index_of_our_keys_under_another_name_is_left_as_it_is(system: System, store: MongoSink):
    """The start goes on, and so does storing."""
    system.db["instantaneous_demand"].create_index([("meter", 1), ("time", 1)], name="mine")
    store.prepare()
    store.prepare()
    assert store.store([reading(new_hash(), 1)]) == (1, 0)


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
    assert documents.reading(found) == documents.kept(one)
