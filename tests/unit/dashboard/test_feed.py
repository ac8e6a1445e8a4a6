"""What is heard on the bus, over scripted connections."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from tenacity import wait_none

from raven_dashboard import feed as module
from raven_dashboard.feed import Feed, Home, now
from ravenbus import retrying
from ravenbus.errors import BrokerAwayError
from ravenbus.health import Health
from ravenbus.hearing import SILENT_S
from ravenbus.messages import encode
from ravenbus.mqtt import Received
from ravenbus.retrying import Retry
from ravenbus.topics import LATEST, STATUS, Topics
from tests.kinds import new_hash, reading
from tests.unit.ravenbus.fakes import Clock, FakeBroker, FakeConnection


def test_a_broker_that_is_cut_off_is_noticed_and_left(monkeypatch: pytest.MonkeyPatch):
    """It keeps the connection and grants nothing new; the next one brings what there is."""
    monkeypatch.setattr(module, "TURN_S", 0)
    monkeypatch.setattr(retrying, "LONGEST_PAUSE_S", 0)
    clock, stop, health = Clock(), threading.Event(), Health()
    asked: list[float] = []
    said: list[str] = []
    monkeypatch.setattr(health, "failing", lambda _check, reason: said.append(reason))

    def cut_off(connection: FakeConnection) -> None:
        def turn() -> None:
            clock.now += 1

        def settle() -> None:
            asked.append(clock.now)
            if len(asked) == 2:
                raise BrokerAwayError("the broker does not confirm a subscription")

        connection.on_turn = turn
        monkeypatch.setattr(connection, "settle", settle)

    def at_work(connection: FakeConnection) -> None:
        for node in ("home", "former"):
            message = reading(new_hash(), 1, node=node)
            topic = Topics().of(LATEST, node=node, kind=message.kind)
            connection.events.put(Received(1, topic, encode(message)))
        # What is retained of a home is removed, and with it the home.
        connection.events.put(Received(2, Topics().of(STATUS, node="former"), b""))
        connection.on_turn = stop.set

    feed = Feed(
        FakeBroker(cut_off, at_work, wakes=False), Topics(), Retry(health, stop, wait_none()), clock
    )
    feed.run()
    began, failed = asked[:2]
    assert failed - began == SILENT_S + 1
    assert said == ["the broker does not confirm a subscription"]
    assert list(feed.homes) == ["home"]


def test_a_home_is_heard_when_its_reading_comes_whatever_its_clock_says():
    """A reader whose clock is days off is no silent home; what was retained has its own time."""
    first, home, at = reading(new_hash(), 1), Home("home"), now()
    home.take(first, at, retained=True)
    assert home.heard == first.envelope.received
    home.take(first, at)
    assert home.heard == at
    home.take(first, at, retained=True)
    assert home.heard == at
    early = Home("home")
    early.take(first, first.envelope.received - timedelta(days=1), retained=True)
    assert early.heard == first.envelope.received - timedelta(days=1), "none is heard tomorrow"


def test_a_home_that_was_known_before_is_forgotten_if_the_broker_has_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
):
    """It was removed while nobody heard that."""
    monkeypatch.setattr(module, "TURN_S", 0)
    clock, stop = Clock(), threading.Event()
    message = reading(new_hash(), 1, node="home")
    known: list[set[str]] = []

    def prepare(connection: FakeConnection) -> None:
        topic = Topics().of(LATEST, node="home", kind=message.kind)
        connection.events.put(Received(1, topic, encode(message), retained=True))

        def turn() -> None:
            known.append(set(feed.homes))
            clock.now += module.EXPECTED_S / 2 + 1
            if len(known) == 4:
                stop.set()

        connection.on_turn = turn

    feed = Feed(
        FakeBroker(prepare, wakes=False), Topics(), Retry(Health(), stop, wait_none()), clock
    )
    feed.expect("home", ["raven-sql-writer"])
    feed.expect("former", [])
    feed.run()
    assert known[0] == {"home", "former"}
    assert known[-1] == {"home"}
    assert list(feed.homes["home"].stores) == ["raven-sql-writer"]
