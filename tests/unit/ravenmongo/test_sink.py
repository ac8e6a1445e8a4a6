"""What each error of the driver means; no database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from pymongo import errors

from ravenbus.errors import PoisonError, RetryableError
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import InstantaneousDemand
from ravenmongo import sink as module
from ravenmongo.archived import RUNS
from ravenmongo.documents import DUE
from ravenmongo.sink import MongoSink

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
RUN = "11111111-2222-4333-8444-555555555555"
METER = "0013500100abcdef"


def reading(notification, seq: int = 1) -> Reading:
    return Reading(Envelope(node="home", run="r", hash=RUN, seq=seq, received=NOW), notification)


DEMAND = InstantaneousDemand(
    device=None, meter=METER, time=NOW, multiplier=1, divisor=1000, demand=-5, demand_kw=-0.005
)


class Collection:
    """Takes inserts as MongoDB does, or raises what a test wants."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None
        self.unique_time = False

    def insert_many(self, documents, *, ordered: bool) -> None:
        assert not ordered, "one duplicate must not hold up the others"
        if self.error:
            raise self.error
        failures = []
        for index, document in enumerate(documents):
            times = [one["time"] for one in self.documents.values()]
            if self.unique_time and document["time"] in times:
                errmsg = "E11000 duplicate key error collection: raven.x index: my_time"
                failures.append({"index": index, "code": 11000, "errmsg": errmsg})
            elif document["_id"] in self.documents:
                failures.append({"index": index, "code": 11000, "errmsg": "duplicate"})
            else:
                self.documents[document["_id"]] = document
        if failures:
            raise errors.BulkWriteError({"writeErrors": failures, "writeConcernErrors": []})

    def insert_one(self, note) -> None:
        assert note["due"]

    def find(self, query, _projection=None):
        ids = query["_id"]["$in"] if "_id" in query else ()  # nothing is archived
        return [self.documents[one] for one in ids if one in self.documents]


@pytest.fixture
def sink(monkeypatch):
    database: dict[str, Collection] = {name: Collection() for name in (*module.KINDS, DUE, RUNS)}
    built = MongoSink("mongodb://127.0.0.1:1/?connect=false")
    built.close()
    monkeypatch.setattr(built, "_db", database)
    return built


def test_only_a_duplicate_counts_as_stored_already(sink):
    """A batch with old and new readings stores the new ones and counts both."""
    assert sink.store([reading(DEMAND, 1), reading(DEMAND, 2)]) == (2, 0)
    assert sink.store([reading(DEMAND, 2), reading(DEMAND, 3)]) == (1, 1)


def test_another_reading_of_the_same_identity_is_poison(sink):
    """A reader whose state was put back uses numbers again: that reading is not passed over."""
    sink.store([reading(DEMAND, 1)])
    envelope = Envelope(node="home", run="r", hash=RUN, seq=1, received=datetime.now(UTC))
    with pytest.raises(PoisonError, match="identity-conflict"):
        sink.store([Reading(envelope, DEMAND)])


def test_what_an_index_of_somebody_elses_refuses_is_not_stored_already(sink):
    """A duplicate key other than the identity is poison, named; a redelivery stays a duplicate."""
    other = msgspec.structs.replace(DEMAND, time=NOW + timedelta(seconds=8))
    sink.store([reading(DEMAND, 1)])
    sink._db["instantaneous_demand"].unique_time = True
    with pytest.raises(PoisonError, match=r"duplicate-key: .*index: my_time"):
        sink.store([reading(other, 2), reading(DEMAND, 3)])
    assert list(sink._db["instantaneous_demand"].documents) == [f"{RUN}/1", f"{RUN}/2"]
    assert sink.store([reading(DEMAND, 1)]) == (0, 1)


def test_a_redelivery_is_the_same_to_the_millisecond(sink):
    """BSON keeps no microseconds: what it cut of the first is no other reading in the second."""
    envelope = reading(DEMAND).envelope
    fine = msgspec.structs.replace(envelope, received=NOW + timedelta(microseconds=456))
    collection = sink._db["instantaneous_demand"]
    sink.store([Reading(fine, DEMAND)])
    collection.documents[f"{RUN}/1"]["received"] = NOW
    assert sink.store([Reading(fine, DEMAND)]) == (0, 1)


def bulk(*codes: int, concern: bool = False) -> errors.BulkWriteError:
    failures = [{"index": 0, "code": code, "errmsg": f"code {code}"} for code in codes]
    concerns = [{"code": 64, "errmsg": "waiting for replication timed out"}] if concern else []
    return errors.BulkWriteError({"writeErrors": failures, "writeConcernErrors": concerns})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AutoReconnect("connection closed"), RetryableError),
        (errors.NetworkTimeout("timed out"), RetryableError),
        (errors.ServerSelectionTimeoutError("no servers"), RetryableError),
        (errors.NotPrimaryError("stepped down"), RetryableError),
        (errors.OperationFailure("Authentication failed.", 18), RetryableError),
        (errors.OperationFailure("not authorized", 13), RetryableError),
        (errors.OperationFailure("cannot use 'j' without a journal", 2), RetryableError),
        (errors.ExecutionTimeout("operation exceeded time limit", 50), RetryableError),
        (errors.WTimeoutError("waiting for replication timed out", 64), RetryableError),
        (errors.OperationFailure("interrupted at shutdown", 11600), RetryableError),
        (bulk(11000, 14031), RetryableError),
        (bulk(concern=True), RetryableError),
        (bulk(11000, concern=True), RetryableError),
        (bulk(11000, 121), PoisonError),
        (bulk(10334), PoisonError),
        (errors.DocumentTooLarge("too large"), PoisonError),
        (errors.InvalidDocument("cannot encode object"), PoisonError),
        (OverflowError("MongoDB can only handle up to 8-byte ints"), PoisonError),
    ],
)
def test_each_error_of_the_driver_is_retried_or_blamed_on_the_message(sink, error, expected):
    """What the server suffers from is retried; what the document is guilty of is poison."""
    sink._db["instantaneous_demand"].error = error
    with pytest.raises(expected) as caught:
        sink.store([reading(DEMAND)])
    assert caught.value.__cause__ is error
