"""RabbitMQ in Mosquitto's place: every accepted reading is stored once, whatever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raven_harness import stack
from tests.system.sql import SqlSystem
from tests.system.system import System, wait_until

from .rabbitmq import RabbitMq

STANDS_BY = "standing by: the broker has no shared subscriptions"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RabbitMq]:
    with closing(RabbitMq(tmp_path)) as built:
        built.start()
        yield built


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None, broker: RabbitMq) -> Iterator[System]:
    class OnRabbit(System):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder, mongo)
            self.broker = broker
            for process in (self.reader, self.recorder):
                process.env["MQTT_URL"] = broker.url("")

    with closing(OnRabbit(tmp_path)) as built:
        yield built


def test_a_broker_that_is_killed_and_started_again_loses_and_doubles_nothing(
    system: System, broker: RabbitMq
):
    """In the middle of a stream, with readings on both ways."""
    system.recorder.start()
    system.wait_for_log(system.recorder, "connected to the broker")
    system.plug_in("--rate", "100", "--count", "1500")
    system.reader.start()
    system.wait_until_stored(300)
    broker.kill()
    wait_until(lambda: "problem check=broker" in system.reader.text(), "the reader says so")
    broker.start()
    system.assert_complete()


def test_one_recorder_works_and_another_goes_on_when_it_is_killed(system: System):
    """RabbitMQ grants shared subscriptions and sends nothing there: so nobody asks for one."""
    recorders = [
        system.recorder,
        *(
            stack.recorder(system.folder, system.recorder.env["MQTT_URL"], system.mongo_url, name)
            for name in ("recorder-2", "recorder-3")
        ),
    ]
    for recorder in recorders:
        system.run_process(recorder)
    wait_until(
        lambda: sum(STANDS_BY in one.text() for one in recorders) == 2, "two of three stand by"
    )
    (working,) = [one for one in recorders if STANDS_BY not in one.text()]
    system.plug_in("--rate", "100", "--count", "1500")
    system.reader.start()
    system.wait_until_stored(300)
    working.kill()
    system.assert_complete()


def test_the_writer_stores_what_the_recorder_stores(
    tmp_path: Path, broker: RabbitMq, mongo: stack.Mongo | None, db
):
    """Two stores of different kinds each get everything."""

    class OnRabbit(SqlSystem):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder, mongo, db)
            self.broker = broker
            for process in (self.reader, self.writer):
                process.env["MQTT_URL"] = broker.url("")

    with closing(OnRabbit(tmp_path)) as system:
        system.writer.start()
        system.wait_for_log(system.writer, "connected to the broker")
        system.plug_in("--rate", "100", "--count", "600")
        system.reader.start()
        system.wait_until_stored(200)
        system.writer.kill()
        system.writer.start()
        system.assert_complete()
