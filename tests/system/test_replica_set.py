"""What the recorder makes of the answers of a replica set, which a double gives as MongoDB words them.

Nothing is acknowledged that a majority does not have, nothing is stored twice, only what can never be
stored is buried, and it goes on by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from pymongo import MongoClient
from tenacity import wait_fixed

from raven_harness.mongodb.answers import (
    Fault,
    answered,
    cut_off,
    in_part,
    refused,
    unconfirmed,
)
from raven_harness.mongodb.replica_set import ReplicaSet
from raven_harness.stack import WAIT_S
from ravenbus.errors import RetryableError
from ravenbus.health import Health
from ravenbus.messages import Reading, Run, encode
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import Events, Received
from ravenbus.retrying import Retry
from ravenbus.slots import Alone
from ravenbus.storing import Intake, Storing
from ravenbus.topics import READING, Topics
from ravenmongo import database, documents
from ravenmongo import sink as module
from ravenmongo.archiving import MongoArchive
from ravenmongo.rollups import Meter
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from tests.kinds import METER, T0, new_hash, reading
from tests.unit.ravenbus.fakes import FakeBroker, FakeConnection

from .system import NODE, System, wait_until

KIND = "instantaneous_demand"
PLAIN = "&authMechanism=PLAIN&authSource=$external&heartbeatFrequencyMS=500"


@pytest.fixture
def servers() -> Iterator[ReplicaSet]:
    found = ReplicaSet()
    found.start()
    yield found
    found.stop()


def ids(readings: Sequence[Reading]) -> set[str]:
    return {f"{one.envelope.hash}/{one.envelope.seq}" for one in readings}


def elect(servers: ReplicaSet, number: int, *, kept: bool) -> None:
    """Have another primary, who has what this one has not replicated, or has not."""
    servers.replicate(kept)
    servers.elect(number)
    servers.replicate()


class Recording:
    """The recorder's store with what one connection brings, and its acknowledgements."""

    def __init__(self, servers: ReplicaSet, url: str) -> None:
        self.servers = servers
        self.sink = MongoSink(url)
        self.health = Health()
        self.stored: set[str] = set()
        """What a majority had when it was last acknowledged."""
        self._stop = threading.Event()
        self.retry = Retry(self.health, self._stop, wait_fixed(0.01))
        self._storing = Storing(
            "mongo-recorder",
            self.sink,
            Topics(),
            self.retry,
            ConsumerMetrics(),
            name="mongo-recorder",
        )
        self._beside = ThreadPoolExecutor(1)

    def take(self, readings: Sequence[Reading]) -> FakeConnection:
        """Store what a connection brings and return that, with what it has acknowledged."""
        patience = threading.Timer(WAIT_S, self._stop.set)
        patience.start()
        topic = Topics().of(READING, node=NODE, kind=KIND)
        events: Events = SimpleQueue()
        connection = FakeConnection(events)
        messages = [Received(n, topic, encode(one)) for n, one in enumerate(readings, 1)]
        connection.acknowledge = partial(self._acknowledge, connection.acknowledge)
        self._storing.flush(Intake(Alone(FakeBroker()), connection, events, messages))
        patience.cancel()
        return connection

    def begin(self, readings: Sequence[Reading], problem: str) -> Callable[[], FakeConnection]:
        """Begin to take readings, and return once a problem is said how to have the end of it."""
        found = self._beside.submit(self.take, readings)
        wait_until(lambda: problem in self.health.problems().get("store", ""), problem)
        assert not found.done()
        return lambda: found.result(WAIT_S)

    def _acknowledge(self, acknowledge: Callable[..., None], taken: Sequence[Received]) -> None:
        self.stored = set(self.servers.majority[f"raven.{KIND}"])
        acknowledge(taken)

    @property
    def letters(self) -> list[dict[str, Any]]:
        """The dead letters that a majority has."""
        return list(self.servers.majority["raven.dead_letter"].values())

    def close(self) -> None:
        self._stop.set()
        self._beside.shutdown()
        self.sink.close()


@pytest.fixture
def recording(
    servers: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Recording]]:
    monkeypatch.setattr(module, "SOCKET_TIMEOUT_MS", 500)
    monkeypatch.setattr(database, "SELECTION_TIMEOUT_MS", 500)
    made: list[Recording] = []

    def new(options: str = "", account: str = "") -> Recording:
        made.append(Recording(servers, servers.url.replace("//", f"//{account}") + options))
        return made[-1]

    yield new
    for one in made:
        one.close()


@pytest.fixture
def archive(servers: ReplicaSet, tmp_path: Path) -> Iterator[MongoArchive]:
    found = MongoArchive(MongoUrl(servers.url), tmp_path, 1, threading.Event())
    yield found
    found.close()


Begin = Callable[[Callable[[], None]], Fault]

FAULTS: dict[str, Begin] = {
    "stepped down before": lambda then: refused(10107, then=then),
    "stepped down, some not": lambda then: in_part(10107, 3, then),
    "stepped down, none of the rest": lambda then: in_part(189, 4, then),
    "interrupted by a stepdown": lambda then: refused(11602, 3, then),
    "interrupted, all applied": lambda then: refused(11602, 6, then),
    "interrupted at shutdown": lambda then: refused(11600, 3, then),
    "shutting down": lambda then: refused(91, then=then),
    "stepped down while waiting": lambda then: unconfirmed(189, then),
    "shut down while waiting": lambda then: unconfirmed(91, then),
    "cut off, in part": lambda then: cut_off(3, then),
    "cut off, all applied": lambda then: cut_off(None, then),
}
OWN: dict[str, Fault] = {
    "majority too slow": unconfirmed(64),
    "majority impossible": unconfirmed(100),
    "disk full": in_part(14031, 3),
    "wrong shard": in_part(13388, 0),
    "wrong shard from then on": in_part(13388, 4),
    "wrong shard, from a router": refused(13388),
    "no time": refused(50, 3),
    "took too long": refused(262, 3),
    "not authorized": refused(13),
    "not authenticated": refused(18),
    "no journal": refused(2),
}


def take_and_judge(one: Recording, fault: Fault, times: int = 1) -> None:
    """Have a batch taken of old, new and impossible readings; each is where it belongs once."""
    run = new_hash()
    batch = [reading(run, seq) for seq in range(1, 7)]
    (poison,) = ids(batch[4:5])
    one.sink.store(batch[:2])
    one.servers.refuses = {poison: 121}
    one.servers.faults["insert"] += times * [fault]
    connection = one.take(batch)
    assert not one.servers.faults["insert"]
    assert connection.acknowledged == [1, 2, 3, 4, 5, 6]
    assert one.stored == ids(batch) - {poison}
    (letter,) = one.letters
    assert (letter["reason"], letter["detail"]) == ("not-storable", "Document failed validation")
    assert b'"seq":5' in letter["payload"]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "rolled-back"])
@pytest.mark.parametrize("begin", FAULTS.values(), ids=FAULTS.keys())
def test_another_primary_in_mid_batch_costs_nothing(
    servers: ReplicaSet, recording: Callable[..., Recording], begin: Begin, kept: bool
):
    """What was applied before it is there or rolled back; all is stored once and then acknowledged."""
    then = partial(elect, servers, 1, kept=kept)
    take_and_judge(recording(), begin(then))


@pytest.mark.parametrize("fault", OWN.values(), ids=OWN.keys())
def test_what_a_server_suffers_from_is_no_fault_of_a_reading(
    recording: Callable[..., Recording], fault: Fault
):
    """The batch is tried again until it is stored; only what is impossible is buried."""
    take_and_judge(recording(), fault, times=8)


def test_nothing_is_acknowledged_before_a_majority_has_it(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """All is inserted, and a duplicate when it is tried again: it waits for the majority all the same."""
    one, batch = recording(), [reading(new_hash(), 1)]
    servers.replicate(False)
    end = one.begin(batch, "waiting for replication timed out")
    wait_until(lambda: len(servers.commands("insert")) > 2, "it is tried again")
    assert set(servers.local[f"raven.{KIND}"]) == ids(batch)
    assert not servers.majority[f"raven.{KIND}"]
    servers.replicate()
    assert end().acknowledged == [1]
    assert one.stored == ids(batch)
    assert not one.letters


def test_a_primary_is_waited_for(servers: ReplicaSet, recording: Callable[..., Recording]):
    """Without a primary nothing is stored; with the next one, or back after all were gone, it goes on."""
    one, batch = recording(), [reading(new_hash(), seq) for seq in (1, 2, 3)]
    servers.step_down()
    end = one.begin(batch[:1], "MongoDB is away")
    servers.elect(2)
    assert end().acknowledged == [1]
    servers.stop()
    end = one.begin(batch[1:], "MongoDB is away")
    servers.start()
    assert end().acknowledged == [1, 2]
    assert one.stored == ids(batch)
    assert not one.letters


def test_a_lost_account_is_named_and_waited_for(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """A wrong password, and a right that is missing, are a problem for people, and nothing is buried."""
    servers.account = "recorder:changed"
    one = recording(PLAIN, "recorder:mine@")
    batch = [reading(new_hash(), seq) for seq in (1, 2)]
    end = one.begin(batch[:1], "MongoDB refuses the account")
    servers.account = "recorder:mine"
    assert end().acknowledged == [1]
    servers.always["insert"] = refused(13)
    end = one.begin(batch[1:], "MongoDB refuses the account")
    servers.always.clear()
    assert end().acknowledged == [1]
    assert one.stored == ids(batch)
    assert not one.letters
    assert "mine" not in str(one.health.problems())


def test_a_write_is_repeated_by_the_recorder_alone(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """The driver repeats none whatever the URL says, so that it is asked first if the slot is ours."""
    one = recording("&retryWrites=true")
    servers.faults["insert"].append(refused(10107, then=lambda: servers.elect(1)))
    with pytest.raises(RetryableError, match="not primary"):
        one.sink.store([reading(new_hash(), 1)])
    (command,) = servers.commands("insert")
    assert "txnNumber" not in command
    assert command["writeConcern"] == {"w": "majority", "j": True, "wtimeout": 450}


def test_a_read_is_repeated_by_the_driver(servers: ReplicaSet, recording: Callable[..., Recording]):
    """One that meets a member that is no primary any more goes to the one that is."""
    one = recording()
    servers.faults["find"].append(refused(13435, then=lambda: servers.elect(1)))
    assert one.sink.store([reading(new_hash(), 1)]) == (1, 0)


def test_reads_are_of_the_primary_whatever_the_url_says(recording: Callable[..., Recording]):
    """A member that is behind lacks what is stored already: that would be buried as a duplicate."""
    one, batch = recording("&readPreference=secondary"), [reading(new_hash(), 1)]
    assert one.sink.store(batch) == (1, 0)
    assert one.take(batch).acknowledged == [1]
    assert not one.letters


def test_a_reading_that_leaves_while_it_is_compared_is_no_poison(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """It was there, and left with its month before it was read: it is looked for again."""
    one, batch = recording(), [reading(new_hash(), 1)]
    assert one.sink.store(batch) == (1, 0)

    def leave() -> None:
        for data in (servers.local, servers.majority):
            del data[f"raven.{KIND}"]

    servers.faults["insert"].append(answered(leave))
    assert one.take(batch).acknowledged == [1]
    assert not one.letters


def test_a_document_that_a_server_finds_too_large_is_buried_alone(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """The others of its batch are stored; the letter says why."""
    one, run = recording(), new_hash()
    batch = [reading(run, seq) for seq in range(1, 9)]
    (large,) = ids(batch[2:3])
    servers.refuses = {large: 10334}
    assert one.take(batch).acknowledged == list(range(1, 9))
    assert one.stored == ids(batch) - {large}
    (letter,) = one.letters
    assert letter["detail"] == "object to insert too large"


def test_runs_are_put_once_whoever_is_the_primary(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """A run whose meter is known is put in two steps; a stepdown between them is made good."""
    one = recording()
    run = Run(node=NODE, run="r", hash=new_hash(), started=T0.replace(microsecond=0), meter=METER)
    servers.faults["update"].append(in_part(10107, 1, lambda: servers.elect(1)))
    with pytest.raises(RetryableError, match="not primary"):
        one.sink.store([run])
    one.retry("store", lambda: one.sink.store([run]))
    (found,) = servers.majority["raven.runs"].values()
    assert (found["_id"], found["meter"]) == (run.hash, METER)


def test_what_archived_readings_came_to_is_with_a_majority_before_they_go(
    servers: ReplicaSet, archive: MongoArchive
):
    """A roll-up that is written, but not by a majority, keeps the month from leaving."""
    servers.faults["update"].append(unconfirmed(100))
    leaving = Meter(KIND, NODE, METER), "2026-03", [reading(new_hash(), 1)]
    with pytest.raises(RetryableError, match="Not enough data-bearing"):
        archive._counts.leave(*leaving)
    archive._counts.leave(*leaving)


def test_what_is_restored_is_with_a_majority(servers: ReplicaSet, archive: MongoArchive):
    """Documents that are back, but not with a majority, are no conflict: it may be tried again."""
    servers.faults["update"].append(unconfirmed(64))
    document = documents.of_reading(reading(new_hash(), 1))
    with pytest.raises(RetryableError, match="waiting for replication"), database.sorted_errors():
        archive._put_back(KIND, [document])
    archive._put_back(KIND, [document])
    assert servers.majority[f"raven.{KIND}"] == {document["_id"]: document}


def test_the_driver_repeats_what_the_double_says_it_may(servers: ReplicaSet):
    """A client of whoever else repeats a write once, by the label that comes with a transaction number."""
    servers.faults["insert"].append(refused(189, then=partial(servers.elect, 1)))
    with MongoClient[dict[str, Any]](servers.url) as client:
        client["raven"]["other"].insert_many([{"_id": 1}, {"_id": 2}])
    first, second = servers.commands("insert")
    assert first["txnNumber"] == second["txnNumber"]
    assert set(servers.majority["raven.other"]) == {1, 2}


def test_indexes_are_made_by_the_next_primary(
    servers: ReplicaSet, recording: Callable[..., Recording]
):
    """A start in the middle of an election goes on."""
    one = recording()
    servers.faults["createIndexes"].append(refused(11602, then=lambda: servers.elect(1)))
    with pytest.raises(RetryableError, match="operation was interrupted"):
        one.sink.prepare()
    one.sink.prepare()


@pytest.fixture
def system(servers: ReplicaSet, tmp_path: Path) -> Iterator[System]:
    built = System(tmp_path, servers)
    yield built
    built.close()


def test_the_recorder_lives_through_elections(servers: ReplicaSet, system: System):
    """While readings come, primaries go in every manner: all is stored once, and nothing buried."""
    system.start("--rate", "100")
    for number, begin in enumerate(FAULTS.values(), 1):
        system.wait_until_stored(50 * number)
        then = partial(elect, servers, number % 3, kept=bool(number % 2))
        servers.faults["insert"].append(begin(then))
        wait_until(lambda: not servers.faults["insert"], "it meets the fault")
    system.simulator.stop()
    system.assert_complete()
    assert not servers.majority[f"{system.database}.dead_letter"]
    assert system.recorder.running


def test_a_recorder_that_dies_while_a_majority_is_missing_has_acknowledged_nothing(
    servers: ReplicaSet, system: System
):
    """What only the lost primary had comes again from the broker."""
    system.start("--rate", "100", "--count", "300")
    system.wait_until_stored(100)
    servers.replicate(False)
    before = len(servers.commands("insert"))
    wait_until(lambda: len(servers.commands("insert")) > before, "it waits for the majority")
    system.recorder.kill()
    elect(servers, 1, kept=False)
    system.recorder.start()
    system.assert_complete()


def test_the_recorder_comes_back_from_a_majority_that_was_missing(
    servers: ReplicaSet, system: System
):
    """Its lease is over meanwhile, which needs a majority too; then it goes on by itself."""
    system.start("--rate", "100", "--count", "300")
    system.wait_until_stored(100)
    servers.replicate(False)
    system.wait_for_log(system.recorder, "problem check=slot")
    assert system.recorder.running
    servers.replicate()
    system.assert_complete()
    assert not servers.majority[f"{system.database}.dead_letter"]
