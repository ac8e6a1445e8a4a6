"""Stores confirm end to end, so that not even a broker that forgets everything loses a reading."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from raven_harness import stack
from raven_reader.outbox import SpoolOutbox
from raven_reader.spool import Spool
from ravenbus import notifications as n
from ravenbus import resending
from ravenbus.health import Health
from ravenbus.messages import Confirmation, DeadLetter, decode, encode
from ravenbus.metrics import PublisherMetrics
from ravenbus.mqtt import PACKET_MIN, PACKET_RESERVE, Broker
from ravenbus.publisher import Publisher
from ravenbus.settings import MqttUrl
from ravenbus.topics import Topics
from tests import judge
from tests.kinds import new_hash, reading

from . import system as parts
from .system import NODE, System, patiently, wait_until

FASTER = 30
"""How much faster the outbox's clock goes: a minute is two seconds."""


class Home:
    """The publishing half of a reader."""

    def __init__(self, system: System) -> None:
        topics, path = Topics(), system.folder / "spool.sqlite"
        self.metrics = PublisherMetrics()
        self.spool = Spool(path, topics, max_mb=16)
        self.run = self.spool.begin(NODE, "default", datetime.now(UTC))
        self.outbox = SpoolOutbox(
            path, metrics=self.metrics, clock=lambda: FASTER * time.monotonic()
        )
        broker = Broker(MqttUrl(system.broker.url(NODE)), "home")
        self.publisher = Publisher(broker, self.outbox, Health(), self.metrics)
        self.publisher.hear_stores(topics, [NODE])
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.publisher.run, args=(self.stop,))
        self.thread.start()

    def accept(self, count: int) -> None:
        at = datetime.now(UTC)
        self.spool.accept(
            [(n.Warning(device="d8d5b90000001234", meter=None, time=None, text="no"), at)] * count,
            [],
        )
        self.publisher.wake()

    def waiting(self) -> tuple[int, int]:
        """Return how many readings were not taken, and how many not confirmed."""
        return self.outbox.depth()[0], self.outbox.unconfirmed()

    def close(self) -> None:
        self.stop.set()
        self.publisher.wake()
        self.thread.join(parts.WAIT_S)
        self.outbox.close()
        self.spool.close()


def test_a_broker_whose_data_is_deleted_loses_nothing(system: System):
    """What only the broker had when it lost its disk is sent again, and stored once."""
    system.start(recorder=False, reader=False)
    system.recorder.env["RAVEN_FLUSH_AFTER_S"] = "0.1"
    system.recorder.start()
    system.wait_for_log(system.recorder, "connected to the broker")
    with closing(Home(system)) as home:
        home.accept(10)
        wait_until(lambda: home.metrics.confirmed._value.get() == 10, "the store has confirmed")
        system.recorder.kill()
        home.accept(200)
        wait_until(lambda: home.waiting() == (0, 200), "the broker has taken all")
        system.broker.kill()
        for file in (system.folder / "broker").rglob("*.db*"):
            file.unlink()
        system.broker.start()
        system.recorder.start()
        system.wait_for_log(system.recorder, "connected to the broker")
        home.accept(1)
        numbers = list(range(1, 212))
        stored = lambda: judge.in_mongo(system.db, home.run.hash)[1]  # noqa: E731
        wait_until(lambda: stored() == numbers, "everything is stored")
        wait_until(lambda: home.waiting() == (0, 0), "everything is confirmed")
        assert home.metrics.sent_again._value.get() >= 200


def test_a_store_that_is_said_to_be_gone_is_forgotten_until_it_starts(
    system: System, monkeypatch: pytest.MonkeyPatch
):
    """One command for all homes; whoever starts again is waited for again."""
    monkeypatch.setattr(resending, "DAY_TURNS", 4)
    store = "raven-mongo-recorder"
    system.start(reader=False)
    system.wait_for_log(system.recorder, "connected to the broker")
    with closing(Home(system)) as home:
        home.accept(1)
        wait_until(lambda: home.outbox._required, "the store speaks")
        wait_until(lambda: home.waiting() == (0, 0), "it has confirmed")
        assert system.recorder.stop() == 0
        home.accept(1)
        wait_until(lambda: home.waiting() == (0, 1), "the second reading waits for the store")
        command = [stack.BIN / "raven-verify", "--gone", store]
        env = {"MQTT_URL": system.broker.url("verify"), "MONGO_URL": system.mongo_url}
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert f"said that {store} is gone" in said.stdout
        wait_until(lambda: home.waiting() == (0, 0), "nothing waits for it any longer")

        looker = system.watch("raven/v1/gone/+")
        found: list[bytes] = []

        def heard() -> list[bytes]:
            found.extend(message.payload for message in looker.messages())
            return found

        wait_until(lambda: len(heard()) == 1, "it is retained for other homes")
        system.recorder.start()
        wait_until(lambda: heard()[1:] == [b""], "the store takes it back")
        wait_until(lambda: home.outbox._required, "and is waited for again")
        late = system.watch("raven/v1/gone/+")
        late.connection.subscribe(["raven/v1/gone"])
        patiently(late.connection.settle)  # what was retained came before this answer
        assert list(late.messages()) == []


LARGEST = PACKET_MIN - PACKET_RESERVE


def bounded(system: System, max_packet_size: int) -> None:
    """Have the broker take packets of at most so many bytes."""
    config = system.folder / "broker" / "mosquitto.conf"
    config.write_text(f"max_packet_size {max_packet_size}\n{config.read_text()}")


def test_confirmations_and_dead_letters_fit_what_the_broker_takes(system: System):
    """Nine hundred ranges are said in many messages, and a dead letter is cut; all arrives."""
    bounded(system, PACKET_MIN)
    system.start(reader=False)
    heard = system.watch(f"raven/v1/{NODE}/stored/+", "raven/v1/dead/+")
    heard.connection.settle()
    home, hash_ = system.client(NODE), new_hash()
    numbers = list(range(1, 1800, 2))
    for seq in numbers:
        home.publish(f"raven/v1/{NODE}/reading/instantaneous_demand", encode(reading(hash_, seq)))
    home.publish(f"raven/v1/{NODE}/reading/warning", b"x" * LARGEST)
    confirmed: list[int] = []
    letters: list[DeadLetter] = []

    def all_heard() -> bool:
        for message in heard.messages():
            assert len(message.payload) <= LARGEST
            if "stored" in message.topic:
                found = decode(message.payload, Confirmation).runs
                confirmed.extend(first for first, _ in found.get(hash_, []))
            else:
                letters.append(decode(message.payload, DeadLetter))
        return len(confirmed) == len(numbers) and bool(letters)

    wait_until(all_heard, "everything is confirmed")
    assert sorted(confirmed) == numbers
    assert [(letter.size, bool(letter.payload)) for letter in letters] == [(LARGEST, True)]
    assert "connection lost" not in system.recorder.text()


def test_a_broker_that_takes_too_little_is_refused(system: System):
    """The recorder says how much it takes, and how much is needed."""
    bounded(system, PACKET_MIN - 1)
    system.broker.start()
    system.recorder.start()
    system.wait_for_log(system.recorder, f"it takes {PACKET_MIN - 1} bytes at once: needed are")
