"""Writers and relays on a Galera cluster, of which nodes are killed, cut off and restarted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from raven_harness import stack
from ravensql import schema
from ravensql.readback import MysqlStore
from ravensql.settings import MysqlUrl

from .galera import Galera, Node

RATE = 50
AWAY = 12.0
"""Seconds: longer than a node is waited for before the others go on without it."""


@pytest.fixture
def galera() -> Iterator[Galera]:
    # Its servers do not run as root, who alone may enter pytest's folders.
    with TemporaryDirectory(prefix="raven-galera-") as folder:
        found = Galera(Path(folder))
        try:
            found.start()
            yield found
        finally:
            found.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[stack.Broker]:
    found = stack.Broker(tmp_path, ["home", "sql-writer", "upstream"])
    found.start()
    yield found
    found.stop()


def test_two_writers_may_begin_at_once_at_two_nodes(
    galera: Galera, broker: stack.Broker, tmp_path: Path
):
    """A lock of one node is none of another's: both change the tables, and both get there."""
    database = galera.database()
    writers = [
        stack.sql_writer(
            tmp_path,
            broker.url("sql-writer"),
            galera.url(database, n, 1),
            f"writer{n}",
            RAVEN_CLIENT_ID=f"writer{n}",
        )
        for n in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        stack.wait_until(lambda w=writer: "connected to the broker" in w.text(), writer.name, 120)
        writer.stop()
        assert "critical" not in writer.text()
    (name,) = {database.rpartition("/")[2]}
    newest = len(schema.migrations())
    for node in galera.nodes:
        query = f"SELECT COUNT(*), MAX(version) FROM {name}.schema_version"  # noqa: S608 - our name
        assert node.ask(query) == ((newest, newest),)


def test_nothing_is_lost_or_stored_twice_while_nodes_go_and_come(
    galera: Galera, broker: stack.Broker, tmp_path: Path
):
    """Each is killed, one is cut off, all are restarted in turn; two writers store every reading."""
    database, link = galera.database(), tmp_path / "stick"
    simulator = stack.simulator(tmp_path, "--pty", str(link), "--rate", str(RATE))
    reader = stack.reader(tmp_path, str(link), broker.url("home"), "home")
    writers = [
        stack.sql_writer(
            tmp_path,
            broker.url("sql-writer"),
            galera.url(database, n),
            f"writer{n}",
            RAVEN_CLIENT_ID=f"writer{n}",
        )
        for n in range(2)
    ]
    parts = [*writers, simulator, reader]
    for part in parts:
        part.start()

    def accepted() -> int:
        return stack.accepted(tmp_path, "home")[1]

    def goes_on(of: Node) -> None:
        """Wait until what is accepted from now on is in a node."""
        count = accepted() + RATE
        stack.wait_until(lambda: stored(of) >= count, f"{of.name} has {count} readings", 180)

    def stored(of: Node) -> int:
        found = of.ask(f"SELECT last_seq FROM {name}.run_info")  # noqa: S608 - our name
        return int(found[0][0]) if found else 0

    name = database.rpartition("/")[2]
    try:
        stack.wait_until(lambda: "connected to the broker" in writers[0].text(), "a writer", 120)
        stack.wait_until(lambda: accepted() > RATE, "readings come", 60)
        for number, node in enumerate(galera.nodes):
            other = galera.nodes[number - 1]
            node.kill()
            goes_on(other)
            galera.start_one(node)
            goes_on(node)
        with galera.nodes[1].paused():
            count = accepted() + AWAY * RATE
            stack.wait_until(lambda: accepted() > count, "a node is away", 60)
            goes_on(galera.nodes[0])
        for number, node in enumerate(galera.nodes):
            node.stop()
            goes_on(galera.nodes[number - 1])
            galera.start_one(node)
        simulator.stop()
        hash_, count = stack.accepted(tmp_path, "home")
        for number in range(3):
            with closing(MysqlStore(MysqlUrl(galera.url(database, number, 1)))) as store:
                held = lambda s=store: s.holding(hash_).held == [(1, count)]  # noqa: E731
                stack.wait_until(held, f"node {number} has all {count} readings", 300)
        tables = ("instantaneous_demand", "current_summation_delivered", "price_cluster")
        for node in galera.nodes:
            rows = [
                node.ask(f"SELECT COUNT(*), COUNT(DISTINCT hash, seq) FROM {name}.{table}")  # noqa: S608 - ours
                for table in (*tables, "notification")
            ]
            assert all(count == distinct for ((count, distinct),) in rows)
            assert sum(count for ((count, _),) in rows) == count
            assert not node.ask(f"SELECT id FROM {name}.dead_letter")  # noqa: S608 - our name
    finally:
        for part in reversed(parts):
            part.stop()
    for writer in writers:
        assert "critical" not in writer.text()


def test_a_relay_uses_one_node(galera: Galera, broker: stack.Broker, tmp_path: Path):
    """Whichever, on which it finds all that others wrote; its claims are locks of one server."""
    database = galera.database()
    schema.migrate(MysqlUrl(galera.url(database, 0, 1)))
    upstream = broker.url("sql-writer")
    relay = stack.sql_relay(tmp_path, galera.url(database, 2, 1), upstream)
    relay.start()
    stack.wait_until(lambda: "connected to the broker" in relay.text(), "the relay", 60)
    relay.stop()
