"""What one home may have the broker keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from raven_harness import stack
from ravenbus.mqtt import Broker, Lost, Published, Received
from ravenbus.notifications import KINDS
from ravenbus.settings import MqttUrl
from ravenbus.topics import Topics
from tests.system.system import Client

from .test_bus import peak_bytes


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[stack.Broker]:
    built = stack.Broker(tmp_path, ["home", "neighbour", "watcher"])
    built.start()
    yield built
    built.kill()


def test_the_access_list_names_every_kind():
    """A reader may write each kind that there is, and no topic of its own making."""
    lines = stack.ACL.read_text().splitlines()
    for leaf in ("reading", "latest"):
        start = f"pattern write raven/v1/%u/{leaf}/"
        assert [line.removeprefix(start) for line in lines if line.startswith(start)] == [*KINDS]


def test_one_home_cannot_have_the_broker_retain_without_end(broker: stack.Broker):
    """Messages on topics of a home's own making are refused, and the neighbour's pass."""
    home = Client(broker.url("home"))
    waiting: set[int] = set()
    accepted = 0
    for number in range(500):
        leaf = ("latest", "reading")[number % 2]
        topic = f"raven/v1/home/{leaf}/k{number}"
        waiting.add(home.connection.publish(topic, bytes(60_000), retain=True))
        while len(waiting) >= 20:
            event = home.events.get(timeout=30)
            if isinstance(event, Published):
                waiting.discard(event.mid)
                accepted += event.reason < 0x80
    home.connection.close()
    assert accepted == 0
    watcher, neighbour = Client(broker.url("watcher")), Client(broker.url("neighbour"))
    watcher.subscribe("raven/v1/neighbour/latest/+")
    neighbour.publish("raven/v1/neighbour/latest/warning", b"here")
    while not isinstance(event := watcher.events.get(timeout=30), Received):
        pass
    assert event.payload == b"here"
    watcher.connection.close()
    neighbour.connection.close()


def test_who_floods_is_cut_off_and_the_others_go_on(tmp_path: Path):
    """A queue that a store left behind grows to the broker's limit; the neighbour does not notice."""
    deployed = (stack.ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
    limit = int(deployed.partition("\nmemory_limit ")[2].split()[0])
    compose = (stack.ROOT / "docker-compose.yml").read_text().partition("  broker:\n")[2]
    assert limit < int(compose.partition("mem_limit: ")[2].partition("m")[0]) * 2**20 * 0.9

    broker = stack.Broker(tmp_path, ["home", "neighbour", "sql-writer"])
    with Path(broker.command[-1]).open("a") as config:
        config.write(f"memory_limit {40 * 2**20}\nmax_packet_size 65536\n")
    broker.start()
    try:
        url = MqttUrl(broker.url("sql-writer"))
        store = Broker(url, "raven-sql-writer", session_expiry_s=3600)(SimpleQueue())
        store.subscribe(Topics().stored())
        store.settle()
        store.close()
        neighbour = Client(broker.url("neighbour"))
        assert _flooded(broker.url("home"))
        neighbour.publish("raven/v1/neighbour/reading/warning", b"here")
        while not isinstance(event := neighbour.events.get(timeout=30), Published):
            assert not isinstance(event, Lost)
        assert event.reason == 0
        assert peak_bytes(broker.pid) < 80 * 2**20
        neighbour.connection.close()
        broker.stop()
        broker.start()
    finally:
        broker.kill()


def _flooded(url: str) -> bool:
    """Send until the broker ends the connection; say whether it did."""
    home = Client(url)
    under_way = 0
    for _ in range(2000):
        home.publish("raven/v1/home/reading/warning", bytes(60_000))
        under_way += 1
        while under_way >= 20:
            event = home.events.get(timeout=30)
            if isinstance(event, Lost):
                return True
            under_way -= isinstance(event, Published)
    return False
