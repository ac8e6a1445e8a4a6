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
"""Longer than a node is waited for before the others go on without it."""
UPSTREAM = "upstream"
"""The relays' part of the topics, so that one cluster is both brokers."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with closing(Cluster(tmp_path)) as built:
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


def test_nothing_is_lost_or_stored_twice_while_nodes_go_and_come(
    cluster: Cluster, db: Db, mongo: stack.Mongo, tmp_path: Path
):
    """Each is killed, one is cut off, all are restarted in turn; both stores get every reading.

    The recorders get them from the relays, which get them from the writers' tables.
    """
    link, mongo_url = tmp_path / "stick", stack.in_database(mongo.url, f"raven_{uuid.uuid4().hex}")
    simulator = stack.simulator(tmp_path, "--pty", str(link), "--rate", str(RATE))
    reader = stack.reader(tmp_path, str(link), cluster.url("home"), "home")
    writers = [
        stack.sql_writer(tmp_path, cluster.url("sql-writer"), db.url, name, RAVEN_CLIENT_ID=name)
        for name in ("writer-1", "writer-2")
    ]
    relays = [
        stack.sql_relay(tmp_path, db.url, cluster.url("home"), name, RAVEN_TOPIC_PREFIX=UPSTREAM)
        for name in ("relay-1", "relay-2")
    ]
    recorders = [
        stack.recorder(
            tmp_path, cluster.url("mongo-recorder"), mongo_url, name, RAVEN_TOPIC_PREFIX=UPSTREAM
        )
        for name in ("recorder-1", "recorder-2")
    ]
    parts = [*recorders, *writers, *relays, simulator, reader]
    stores = MysqlStore(MysqlUrl(db.url)), MongoStore(MongoUrl(mongo_url))

    def accepted() -> tuple[str, int]:
        return stack.accepted(tmp_path, "home")

    def goes_on() -> None:
        """Wait until what is accepted from now on is in both stores."""
        hash_, count = accepted()
        for store in stores:
            last = lambda s=store: max((to for _, to in s.holding(hash_).held), default=0)  # noqa: E731
            stack.wait_until(lambda f=last: f() > count + RATE, f"{store} goes on", 180)

    try:
        for part in parts:
            part.start()
        stack.wait_until(lambda: accepted()[1] > RATE, "readings come")
        goes_on()
        for node in cluster.nodes:
            stack.wait_until(node.can_be_spared, f"{node.name} can be spared")
            node.kill()
            goes_on()
            node.start()
        # All went from the one to the next, and are back at the first.
        node = cluster.nodes[0]
        stack.wait_until(node.can_be_spared, f"{node.name} can be spared")
        with node.cut_off():
            count = accepted()[1] + AWAY_S * RATE
            stack.wait_until(lambda: accepted()[1] > count, f"{node.name} is away")
            goes_on()
        assert all("does not confirm a subscription" in writer.text() for writer in writers)
        for node in cluster.nodes:
            stack.wait_until(node.can_be_spared, f"{node.name} can be spared")
            node.stop()
            goes_on()
            node.start()
        simulator.stop()
        hash_, count = accepted()
        for store in stores:
            held = lambda s=store: s.holding(hash_).held == [(1, count)]  # noqa: E731
            stack.wait_until(held, f"{store} has all {count} readings", 180)
        for part in (reader, *writers, *relays, *recorders):
            assert part.running
            assert "critical" not in part.text()
        with MongoClient(mongo_url) as client:
            in_mongo = client.get_default_database()
            once = list(range(1, count + 1))
            assert judge.in_mongo(in_mongo, hash_)[1] == judge.in_sql(db.url, hash_)[1] == once
            assert not in_mongo["dead_letter"].count_documents({})
        assert db("SELECT COUNT(*) FROM dead_letter") == ((0,),)
    finally:
        for part in reversed(parts):
            part.stop()
        for store in stores:
            store.close()
