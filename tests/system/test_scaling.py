"""Recorders that come, go and die share the readings: each is stored once."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from queue import SimpleQueue

import pytest
import stack

from ravenbus.mqtt import Broker
from ravenbus.settings import MqttUrl

from .conftest import System, wait_until

GROUP = "raven-mongo-recorder"


class Replicas:
    """The recorders of one system, which come and go."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.all = [system.recorder]

    def start(self, count: int) -> list[stack.Process]:
        """Start more of them and return once they are subscribed."""
        url = self.system.broker.url("mongo-recorder")
        made = [
            stack.recorder(
                self.system.folder, url, self.system.mongo_url, f"recorder-{len(self.all) + number}"
            )
            for number in range(1, count + 1)
        ]
        for one in made:
            self.system.run_process(one)
        for one in made:
            self.system.wait_for_log(one, "connected to the broker")
        self.all += made
        return made

    def stop(self, replicas: Iterable[stack.Process]) -> None:
        """Stop some at once, as `--scale` does; none may take longer than Docker waits."""
        replicas = list(replicas)
        for one in replicas:
            one.send(signal.SIGTERM)
        assert [one.wait() for one in replicas] == [0] * len(replicas)

    def sessions(self) -> list[str]:
        """Return the sessions that the broker still has, and end them."""
        url = MqttUrl(self.system.broker.url("mongo-recorder"))
        found = []
        for name in (GROUP, *(f"{GROUP}-{number}" for number in range(2, 8))):
            connection = Broker(url, name, session_expiry_s=60)(SimpleQueue())
            if connection.session_present:
                found.append(name)
            connection.close(end_session=True)
        return found


@pytest.fixture
def replicas(system: System) -> Replicas:
    return Replicas(system)


def said(process: stack.Process, text: str) -> None:
    wait_until(lambda: text in process.text(), f"{process.name} says {text!r}")


def test_recorders_come_and_go_under_load(system: System, replicas: Replicas):
    """From 1 to 3, to 1 and to 3 again: those that go leave nothing behind."""
    system.start("--rate", "200", "--count", "2400")
    system.wait_until_stored(100)
    others = replicas.start(2)
    system.wait_until_stored(600)
    replicas.stop([system.recorder, others[0]])
    others[1].text()
    system.wait_until_stored(1000)
    replicas.start(2)
    system.wait_until_stored(1500)
    system.assert_complete()
    replicas.stop(one for one in replicas.all if one.running)
    assert len(replicas.sessions()) == 1
