"""Sending again: what the broker's answers mean; no broker."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

import pytest

from ravenbus.errors import BrokerAwayError
from ravenbus.messages import DeadLetter, encode, now
from ravenbus.mqtt import Events, Lost, Published, Received
from ravenbus.topics import DEAD, Topics
from raventools.bus import WINDOW, Buried, Bus, Publication

MESSAGE = Publication("raven/v1/home/reading/warning", b"x")


class Connection:
    """Answers each message with the next of the reasons, and keeps how many waited at most."""

    receive_maximum = 65535

    def __init__(self, *reasons: int) -> None:
        self.events: Events = SimpleQueue()
        self.reasons = list(reasons)
        self.sent: list[str] = []

    def publish(self, topic: str, _payload: bytes, *, retain: bool = False) -> int:
        assert not retain
        self.sent.append(topic)
        if self.reasons:
            self.events.put(Published(len(self.sent), self.reasons.pop(0)))
        return len(self.sent)

    def acknowledge(self, _messages: Sequence[Received]) -> None:
        pass


@pytest.mark.parametrize(
    ("reason", "said"), [(16, "nobody subscribes"), (0x87, "Not authorized"), (0x97, "Quota")]
)
def test_what_no_subscriber_took_is_an_error(reason, said):
    """It says which topic and why; nothing is taken for sent."""
    connection = Connection(0, reason, 0)
    with pytest.raises(BrokerAwayError, match=said):
        Bus(connection, connection.events).send([MESSAGE] * 3)


def test_no_more_are_under_way_than_the_window():
    """The broker's queue and ours stay short however many there are."""
    connection = Connection(*([0] * 10))
    connection.events.put(Lost("gone", taken_over=False))
    with pytest.raises(BrokerAwayError, match="gone"):
        Bus(connection, connection.events).send([MESSAGE] * (3 * WINDOW))
    assert len(connection.sent) <= 10 + WINDOW


def test_what_a_store_buries_again_is_heard():
    """By the store's service and the letter's id; what is no letter is passed over."""
    connection = Connection()
    letter = DeadLetter(
        id="a" * 32, service="sql-writer", at=now(), reason="r", detail="d", payload=b"", size=0
    )
    topic = Topics().of(DEAD, service="sql-writer")
    connection.events.put(Received(1, topic, b"no letter"))
    connection.events.put(Received(2, topic, encode(letter)))
    bus = Bus(connection, connection.events)
    bus.listen(0.05)
    assert bus.buried == {Buried("sql-writer", "a" * 32): letter}
