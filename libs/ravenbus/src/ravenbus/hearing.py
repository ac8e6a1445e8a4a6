"""Whether a broker that brings nothing still can: it is asked to change something."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ravenbus.mqtt import Connection
from ravenbus.topics import RUN, Topics

SILENT_S: Final = 30.0
"""A broker that brings nothing for so long is asked whether it still can."""
NO_NODE: Final = "health"
"""A name that no home can have."""


class Hearing:
    """What a connection brings, followed for as long as it lasts; used by one thread.

    A node of RabbitMQ (4.3) that is cut off from its cluster keeps its connections, brings
    nothing, and can change nothing.
    """

    def __init__(
        self, connection: Connection, topics: Topics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._topic = topics.of(RUN, node=NO_NODE)
        self._clock = clock
        self._heard_at = clock()

    def heard(self) -> None:
        """Note that something came."""
        self._heard_at = self._clock()

    def ask_if_silent(self) -> None:
        """Have a broker that was silent for too long change something; raise BrokerAwayError if it does not."""
        if self._clock() <= self._heard_at + SILENT_S:
            return
        for change in (self._connection.subscribe, self._connection.unsubscribe):
            change([self._topic])
            self._connection.settle()
        self.heard()
