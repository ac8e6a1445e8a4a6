"""The whole chain over a RabbitMQ cluster, of which nodes are killed, cut off and restarted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest
from pymongo import MongoClient

from raven_harness import stack
from ravenbus.mqtt import Broker
from ravenbus.settings import MqttUrl
from ravenbus.topics import READING, Topics
from ravenmongo.readback import MongoStore
from ravenmongo.settings import MongoUrl
from ravensql.readback import MysqlStore
from ravensql.settings import MysqlUrl
from tests import judge
from tests.system.sql import Db

from .rabbitmq import Cluster

RATE = 50
AWAY_S = 15.0
"""Longer than the other nodes wait for one that says nothing."""
UPSTREAM = "upstream"
"""Where the relays' topics begin, so that one cluster is both brokers."""
GOES_ON_S = 120.0
"""Longest time until services have left a node that does not answer."""
LAST_S = 120.0
"""Longest time until what a node took along is sent again, stored and confirmed."""


class Chain:
    """From a stick over writers' tables and relays to recorders, with two of each but the reader."""

    def __init__(self, folder: Path, cluster: Cluster, db: Db, mongo_url: str) -> None:
        self._folder, self._db, self._mongo_url = folder, db, mongo_url
        device = str(folder / "stick")
        home, upstream = cluster.url("home"), {"RAVEN_TOPIC_PREFIX": UPSTREAM}
        self.writers = [
            stack.sql_writer(folder, cluster.url("sql-writer"), db.url, name, RAVEN_CLIENT_ID=name)
            for name in ("writer-1", "writer-2")
        ]
        relays = [
            stack.sql_relay(folder, db.url, home, name, **upstream)
            for name in ("relay-1", "relay-2")
        ]
        recorders = [
            stack.recorder(folder, cluster.url("mongo-recorder"), mongo_url, name, **upstream)
            for name in ("recorder-1", "recorder-2")
        ]
        self._simulator = stack.simulator(folder, "--pty", device, "--rate", str(RATE))
        reader = stack.reader(folder, device, home, "home")
        self._services = [*recorders, *self.writers, *relays, reader]
        self._stores = MysqlStore(MysqlUrl(db.url)), MongoStore(MongoUrl(mongo_url))

    def start(self) -> None:
        """Start everything, and wait until readings are in both stores."""
        for part in (*self._services, self._simulator):
            part.start()
        stack.wait_until(lambda: self._accepted()[1] > RATE, "readings come")
        self.goes_on()

    def goes_on(self, after_s: float = 0.0) -> None:
        """Wait until both stores have readings that are accepted from now on, after some time."""
        hash_, count = self._accepted()
        count += int((1 + after_s) * RATE)
        stack.wait_until(lambda: self._accepted()[1] > count, "readings come")
        for store in self._stores:
            last = lambda s=store: max((to for _, to in s.holding(hash_).held), default=0)  # noqa: E731
            stack.wait_until(lambda f=last: f() > count, f"{store.name} goes on", GOES_ON_S)

    def assert_complete(self) -> None:
        """Unplug the stick; see that each store has every reading once, and all services run."""
        self._simulator.stop()
        hash_, count = self._accepted()
        for store in self._stores:
            held = lambda s=store: s.holding(hash_).held == [(1, count)]  # noqa: E731
            stack.wait_until(held, f"{store.name} has all {count} readings", LAST_S)
        with MongoClient(self._mongo_url) as client:
            in_mongo = client.get_default_database()
            once = list(range(1, count + 1))
            assert judge.in_mongo(in_mongo, hash_)[1] == once
            assert judge.in_sql(self._db.url, hash_)[1] == once
            assert not in_mongo["dead_letter"].count_documents({})
        assert self._db("SELECT COUNT(*) FROM dead_letter") == ((0,),)
        for part in self._services:
            assert part.running
            assert "critical" not in part.text()

    def close(self) -> None:
        """End everything."""
        for part in (self._simulator, *reversed(self._services)):
            part.stop()
        for store in self._stores:
            store.close()

    def _accepted(self) -> tuple[str, int]:
        return stack.accepted(self._folder, "home")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with closing(Cluster(tmp_path)) as built:
        built.start()
        yield built


@pytest.fixture
def chain(tmp_path: Path, cluster: Cluster, db: Db, mongo: stack.Mongo) -> Iterator[Chain]:
    url = stack.in_database(mongo.url, f"raven_{uuid.uuid4().hex}")
    with closing(Chain(tmp_path, cluster, db, url)) as built:
        built.start()
        yield built


def test_a_session_keeps_what_is_given_to_it_again_and_again(cluster: Cluster):
    """However often a store comes and goes without it: a quorum queue has a limit unless told."""
    store = Broker(MqttUrl(cluster.url("sql-writer")), "store", session_expiry_s=3600)
    came: SimpleQueue = SimpleQueue()
    session = store(came)
    session.subscribe(Topics().stored())
    session.settle()
    home = Broker(MqttUrl(cluster.url("home")), "home")(SimpleQueue())
    home.publish(Topics().of(READING, node="home", kind="warning"), b"reading")
    for _ in range(30):
        assert came.get(timeout=stack.WAIT_S).payload == b"reading"
        session.close()
        came = SimpleQueue()
        session = store(came)
    session.close()
    home.close()


def test_nothing_is_lost_or_stored_twice_when_nodes_are_killed_and_restarted(
    cluster: Cluster, chain: Chain
):
    """One by one, each once all queues can spare it; and all at once."""
    for end in ("kill", "stop"):
        for node in cluster.nodes:
            stack.wait_until(node.can_be_spared, f"{node.name} can be spared")
            getattr(node, end)()
            chain.goes_on()
            node.start()
    for node in cluster.nodes:
        node.kill()
    cluster.start()
    chain.assert_complete()


def test_nothing_is_lost_or_stored_twice_when_a_node_is_cut_off_or_hangs(
    cluster: Cluster, chain: Chain
):
    """All services leave it, though it still answers pings, or still has their connections."""
    first, second, _ = cluster.nodes
    # They begin at the first, and go on to the second.
    for node, away in ((first, first.cut_off()), (second, second.paused())):
        stack.wait_until(node.can_be_spared, f"{node.name} can be spared")
        with away:
            chain.goes_on(after_s=AWAY_S)
    assert all("does not confirm a subscription" in writer.text() for writer in chain.writers)
    chain.assert_complete()
