"""Groups of stores, each for the homes that publish under its prefix, and a home that moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raven_harness import stack

from .sql import Db
from .system import NODE, wait_until

SOUTH = "sql-writer-south"
RATE = 20


def two_groups(folder: Path) -> stack.Broker:
    """Return a broker with the access list for two prefixes, and a writer's account for each."""
    broker = stack.Broker(folder, [NODE, "sql-writer", SOUTH])
    north = stack.ACL.read_text()
    south = north.replace("raven/v1", "south/v1").replace("user sql-writer", f"user {SOUTH}")
    acl = folder / "acl"
    acl.write_text(f"{north}\n{south}")
    acl.chmod(0o600)
    config = folder / broker.name / "mosquitto.conf"
    config.write_text(config.read_text().replace(str(stack.ACL), str(acl)))
    return broker


def test_a_home_moves_to_another_group_of_stores(new_db: Callable[[], Db], tmp_path: Path):
    """No reading is in two groups and none in none, whatever waited for which when it moved."""
    broker, north, south = two_groups(tmp_path), new_db(), new_db()
    link, port = tmp_path / "stick", stack.free_port()
    moved = {"RAVEN_TOPIC_PREFIX": "south"}
    simulator = stack.simulator(tmp_path, "--pty", str(link), "--rate", str(RATE))
    in_north = stack.sql_writer(tmp_path, broker.url("sql-writer"), north.url, "north")
    in_south = stack.sql_writer(tmp_path, broker.url(SOUTH), south.url, "south", **moved)
    reader = stack.reader(tmp_path, str(link), broker.url(NODE), NODE)

    def accepted() -> int:
        return stack.accepted(tmp_path, NODE)[1]

    def more() -> None:
        count = accepted() + RATE
        wait_until(lambda: accepted() > count, "more readings come")

    for part in (broker, in_north, in_south, simulator, reader):
        part.start()
    try:
        wait_until(lambda: accepted() > RATE, "readings come")
        wait_until(lambda: numbers(north), "the first group has some")
        in_north.stop()
        more()  # in the queue of the first group
        broker.stop()
        more()  # in the reader's spool, for the first group
        reader.stop()
        reader.env |= moved | {"RAVEN_METRICS_PORT": str(port)}
        reader.start()
        more()
        broker.start()
        wait_until(lambda: numbers(south), "the second group has some")
        in_north.start()
        simulator.stop()
        wait_until(lambda: stack.metric(port, "raven_spooled") == 0, "all is sent")
        wait_until(lambda: stack.metric(port, "raven_unconfirmed") == 0, "all is confirmed")
        first, second = numbers(north), numbers(south)
        assert sorted(first + second) == list(range(1, accepted() + 1))
        assert min(first) == 1
        assert max(first) < min(second)
        assert not north("SELECT id FROM dead_letter")
        assert not south("SELECT id FROM dead_letter")
    finally:
        for part in (reader, simulator, in_south, in_north, broker):
            part.stop()


def numbers(db: Db) -> list[int]:
    """Return the number of each row, of all kinds; none while there are no tables."""
    tables = ("instantaneous_demand", "current_summation_delivered", "price_cluster")
    if not db("SHOW TABLES LIKE 'schema_version'"):
        return []
    queries = (f"SELECT seq FROM {table}" for table in (*tables, "notification"))  # noqa: S608 - ours
    return [seq for (seq,) in db(" UNION ALL ".join(queries))]
