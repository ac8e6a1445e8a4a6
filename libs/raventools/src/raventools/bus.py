"""Sends messages again and hears what the stores buried of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from ravenbus.errors import BrokerAwayError, PoisonError
from ravenbus.messages import DeadLetter, decode
from ravenbus.mqtt import (
    NO_SUBSCRIBERS,
    REFUSED,
    Connect,
    Connection,
    Event,
    Events,
    Lost,
    Published,
    Received,
    puback_name,
)
from ravenbus.topics import DEAD, Topics

ANSWER_S: Final = 30.0
WINDOW: Final = 100
"""Most messages without a PUBACK, as for the services."""


class Publication(NamedTuple):
    """A message to send, and its topic."""

    topic: str
    payload: bytes
    retain: bool = False


class Buried(NamedTuple):
    """A store's service and the id of what it buried."""

    service: str
    id: str


class Bus:
    """One connection; ``buried`` grows with what stores bury while it is there."""

    def __init__(
        self,
        connection: Connection,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buried: dict[Buried, DeadLetter] = {}
        self._connection = connection
        self._events = events
        self._clock = clock
        self._waiting: dict[int, Publication] = {}

    def send(self, messages: Iterable[Publication]) -> None:
        """Send messages and return when a subscriber has taken each, or the broker retains it.

        Raises BrokerAwayError with the reason if one was not.
        """
        for message in messages:
            while len(self._waiting) >= min(WINDOW, self._connection.receive_maximum):
                self._take(ANSWER_S)
            topic, payload, retain = message
            mid = self._connection.publish(topic, payload, retain=retain)
            self._waiting[mid] = message
        while self._waiting:
            self._take(ANSWER_S)

    def listen(self, for_s: float) -> None:
        """Hear for some time what stores bury."""
        end = self._clock() + for_s
        while (left := end - self._clock()) > 0:
            try:
                self._handle(self._events.get(timeout=left))
            except Empty:
                return

    def _take(self, for_s: float) -> None:
        try:
            self._handle(self._events.get(timeout=for_s))
        except Empty:
            raise BrokerAwayError(f"the broker has not answered for {for_s:.0f} s") from None

    def _handle(self, event: Event) -> None:
        match event:
            case Published(mid, reason):
                message = self._waiting.pop(mid, None)
                if message and reason == NO_SUBSCRIBERS and not message.retain:
                    raise BrokerAwayError(
                        f"nobody subscribes to {message.topic}: is the store's service running?"
                    )
                if message and reason >= REFUSED:
                    raise BrokerAwayError(
                        f"the broker refuses what is sent to {message.topic}: {puback_name(reason)}"
                    )
            case Received(topic=topic, payload=payload):
                self._connection.acknowledge([event])
                try:
                    letter = decode(payload, DeadLetter)
                except PoisonError:
                    return
                self.buried[Buried(topic.rpartition("/")[2], letter.id)] = letter
            case Lost(detail):
                raise BrokerAwayError(f"the connection to the broker was lost: {detail}")


@contextmanager
def connected(connect: Connect, topics: Topics, services: Sequence[str]) -> Iterator[Bus]:
    """Lend a connection that hears what services bury; raise BrokerAwayError."""
    events: Events = SimpleQueue()
    connection = connect(events)
    try:
        # Nothing else: a reader forgets what a subscriber took.
        connection.subscribe([topics.of(DEAD, service=service) for service in services])
        connection.settle()
        yield Bus(connection, events)
    finally:
        connection.close()
