"""Every accepted reading is stored once on each of the brokers, whatever that can do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from raven_harness import stack
from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import NO_SUBSCRIBERS, Broker, Connection, Published
from ravenbus.settings import MqttUrl
from tests import judge
from tests.system.sql import Db
from tests.system.system import NODE, WAIT_S, System, wait_until

from .brokers import BROKERS, Inside, Mosquitto20

STANDS_BY = "standing by: the broker has no shared subscriptions for a second replica"
RUN = f"raven/v1/{NODE}/run"
STATUS = f"raven/v1/{NODE}/status"
READING = f"raven/v1/{NODE}/reading/warning"
AGAIN_S = 180.0
"""Longest time until what a broker has forgotten is sent again, stored and confirmed."""


@pytest.fixture(params=BROKERS, ids=lambda kind: kind.__name__)
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mosquitto20 | Inside]:
    with closing(request.param(tmp_path)) as built:
        yield built


@pytest.fixture
def system(
    tmp_path: Path, mongo: stack.Mongo | None, broker: Mosquitto20 | Inside
) -> Iterator[System]:
    with closing(System(tmp_path, mongo, broker=broker)) as built:
        built.reader.env["RAVEN_METRICS_PORT"] = str(stack.free_port())
        yield built


def start_recorder(system: System) -> None:
    system.recorder.start()
    system.wait_for_log(system.recorder, "connected to the broker")


def start_reader(system: System, count: int) -> None:
    """Have a stick send so many readings, 100 a second."""
    system.plug_in("--rate", "100", "--count", str(count))
    system.reader.start()


def assert_delivered(system: System) -> None:
    """Wait until the reader knows that the store has everything; then see that it has, once."""
    system.simulator.wait(AGAIN_S)
    sent = system.sent().total()
    wait_until(lambda: system.accepted()[1] == sent, "the reader has accepted everything")
    port = int(system.reader.env["RAVEN_METRICS_PORT"])

    def left() -> tuple[float | None, ...]:
        names = ("raven_spooled", "raven_unconfirmed")
        return tuple(stack.metric(port, name) for name in names)

    confirmed = lambda: stack.metric(port, "raven_confirmed_total") or 0  # noqa: E731
    wait_until(lambda: confirmed() >= sent and left() == (0, 0), "all is confirmed", AGAIN_S)
    system.assert_complete()


def test_a_broker_has_and_keeps_what_its_class_says(broker: Mosquitto20 | Inside):
    """Shared subscriptions, reason 16, what is retained for whom, and sessions after a kill."""
    broker.start()
    home, store = MqttUrl(broker.url(NODE)), MqttUrl(broker.url("mongo-recorder"))
    answers: SimpleQueue = SimpleQueue()
    sender = Broker(home, "sender")(answers)
    nobody = [sender.publish(RUN, b"retained", retain=True), sender.publish(READING, b"reading")]
    for mid in nobody:
        assert answers.get(timeout=WAIT_S) == Published(mid, NO_SUBSCRIBERS)

    came: SimpleQueue = SimpleQueue()
    session = Broker(store, "receiver", session_expiry_s=3600)
    receiver = session(came)
    assert receiver.can_share == broker.shares
    receiver.subscribe(["raven/v1/+/run"])
    receiver.settle()
    sender.publish(RUN, b"live")
    found = [came.get(timeout=WAIT_S)]
    receiver.acknowledge([found[0]])
    if broker.retained_for_all:
        found.append(came.get(timeout=WAIT_S))
        receiver.acknowledge([found[1]])
    assert [one.payload for one in found] == [b"retained", b"live"][-len(found) :]
    receiver.close()
    sender.close()

    broker.kill()
    broker.start()

    def connect() -> Connection | None:
        # RabbitMQ listens before it is ready.
        with suppress(BrokerAwayError):
            return session(came)

    receiver = wait_until(connect, "the broker takes connections")
    assert receiver.session_present == broker.survives_kill
    receiver.close(end_session=True)


def test_a_broker_that_is_away_at_the_start_and_killed_later_loses_and_doubles_nothing(
    system: System, broker: Mosquitto20 | Inside
):
    """The spool is empty in the end; whoever looks later sees that the reader runs, and its end."""
    system.recorder.start()
    start_reader(system, 1200)
    for process in (system.recorder, system.reader):
        system.wait_for_log(process, "cannot reach mqtt://")
    broker.start()
    system.wait_until_stored(200)
    system.outage(broker, system.reader)
    assert_delivered(system)
    status = system.watch(STATUS)

    def services() -> list[str]:
        return [json.loads(message.payload)["service"] for message in status.messages()]

    wait_until(lambda: "online" in services(), "somebody who comes later sees the status")
    system.reader.kill()
    wait_until(lambda: "offline" in services(), "the broker says that the reader is gone")


def test_recorders_share_or_stand_by_and_go_on_when_one_is_killed(
    system: System, broker: Mosquitto20 | Inside
):
    """Three recorders share where the broker can; otherwise one works, and two say that they wait."""
    broker.start()
    recorders = [
        system.recorder,
        *(
            stack.recorder(system.folder, system.recorder.env["MQTT_URL"], system.mongo_url, name)
            for name in ("recorder-2", "recorder-3")
        ),
    ]
    for recorder in recorders:
        system.run_process(recorder)
    for recorder in recorders:
        system.wait_for_log(recorder, "connected to the broker" if broker.shares else "slot taken")
    if not broker.shares:
        wait_until(lambda: sum(STANDS_BY in one.text() for one in recorders) == 2, "two stand by")
    working = [one for one in recorders if STANDS_BY not in one.text()]
    assert len(working) == (3 if broker.shares else 1)
    start_reader(system, 1000)
    system.wait_until_stored(200)
    working[0].kill()
    system.assert_complete()


def test_what_cannot_be_stored_is_buried_in_the_store_and_on_the_bus(system: System):
    """With its bytes and the reason, and what comes after it is stored."""
    system.broker.start()
    start_recorder(system)
    letters = system.watch("raven/v1/dead/+")
    letters.connection.settle()
    start_reader(system, 20)
    assert_delivered(system)
    home = system.client(NODE)
    home.publish(READING, b"no json")
    (said,) = wait_until(lambda: list(letters.messages()), "a dead letter is on the bus")
    assert json.loads(said.payload)["reason"] == "not-json"
    (letter,) = system.db["dead_letter"].find()
    assert (letter["payload"], letter["topic"]) == (b"no json", READING)
    home.publish(READING, b"no json either")
    wait_until(lambda: system.db["dead_letter"].count_documents({}) == 2, "what follows is buried")


def test_a_second_store_that_comes_later_and_is_killed_has_the_run_and_every_reading(
    system: System, db: Db
):
    """Though the run was said before it came; two stores of different kinds have the same."""
    system.broker.start()
    url = system.broker.url("sql-writer")
    writer = system.run_process(stack.sql_writer(system.folder, url, db.url))
    system.wait_for_log(writer, "connected to the broker")
    system.reader.start()
    wait_until(lambda: db("SELECT name FROM run_info"), "the first store has the run")
    start_recorder(system)
    wait_until(system.db["runs"].find_one, "the second store has the run")
    system.plug_in("--rate", "100", "--count", "600")
    system.wait_until_stored(200)
    system.recorder.kill()
    system.recorder.start()
    system.assert_complete()
    wait_until(lambda: judge.in_sql(db.url, system.accepted()[0]) == system.stored(), "both agree")
