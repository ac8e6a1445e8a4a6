"""What one home may have the broker keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stack

from ravenbus.mqtt import Published, Received
from ravenbus.notifications import KINDS
from tests.system.system import Client


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
    watcher.connection.subscribe(["raven/v1/neighbour/latest/+"])
    watcher.connection.settle()
    neighbour.publish("raven/v1/neighbour/latest/warning", b"here")
    while not isinstance(event := watcher.events.get(timeout=30), Received):
        pass
    assert event.payload == b"here"
    watcher.connection.close()
    neighbour.connection.close()
