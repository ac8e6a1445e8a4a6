"""How homes and stores are, in a table for people and an object for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ravenbus.messages import Status, encode
from ravenbus.mqtt import Broker
from ravenbus.settings import MqttUrl
from ravenbus.topics import STATUS, Topics
from raventools import bus
from raventools.bus import Publication
from tests.kinds import T0

from .system import NODE, wait_until
from .test_verify import VerifySystem
from .test_verify import system as system  # noqa: PLC0414 - the fixture

HOMES = 300
"""More than may be under way to anybody."""


def states(system: VerifySystem) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and what is said of the home."""
    done = system.command("raven-status", "--json")
    homes = json.loads(done.out)["homes"]
    return done.status, homes[0] if homes else {}


def test_homes_and_stores_are_said_as_they_are(system: VerifySystem):
    """A home that is well, a store that is behind, one that is away, a reader that is gone."""
    system.start_stores()
    done = system.command("raven-status")
    assert (done.status, done.out) == (1, "The broker retains nothing that a home has said.\n")

    system.reader.start()
    system.simulator.command[1:] = ["--pty", system.device, "--rate", "20"]
    system.simulator.start()
    wait_until(lambda: states(system)[0] == 0, "the home is well")
    _, home = states(system)
    assert home | {"heard": None, "release": None} == {
        "node": NODE,
        "well": True,
        "heard": None,
        "stick": "connected",
        "clock": "right",
        "release": None,
        "behind": {"MySQL": 0, "MongoDB": 0},
        "buried": 0,
    }
    head, line = system.command("raven-status").out.splitlines()
    assert " ".join(head.split()) == "node heard stick clock release MySQL MongoDB buried, 24 h"
    assert line.startswith(NODE)
    assert line.split()[-3:] == ["all", "all", "0"]

    system.writer.stop()
    _, before = system.accepted()
    wait_until(lambda: system.accepted()[1] > before + 20, "more is said")
    status, home = states(system)
    assert status == 1
    assert home["behind"]["MySQL"] > 0
    assert home["behind"]["MongoDB"] == 0

    done = system.command("raven-status", MYSQL_URL="mysql://nobody:x@127.0.0.1:1/raven")
    assert done.status == 1
    assert done.out.splitlines()[1].split()[-3:] == ["away", "all", "0"]

    system.reader.stop()
    assert states(system)[1]["stick"] == "reader away"
    done = system.command("raven-status", MQTT_URL="mqtt://127.0.0.1:1")
    assert done.status == 69
    assert "127.0.0.1:1" in done.err


def test_a_fleet_is_said_whole(system: VerifySystem):
    """A broker hands over no more than some messages before they are acknowledged."""
    system.start_stores()
    topics = Topics()
    homes = [f"home-{number:03}" for number in range(HOMES)]

    def states() -> Iterator[Publication]:
        for node in homes:
            said = Status(node=node, service="online", device="connected", since=T0)
            yield Publication(topics.of(STATUS, node=node), encode(said), retain=True)

    broker = Broker(MqttUrl(system.broker.url("verify")), "fleet")
    with bus.connected(broker, topics, ["sql-writer"]) as connection:
        connection.send(states())
    done = system.command("raven-status", "--json")
    assert [home["node"] for home in json.loads(done.out)["homes"]] == homes
