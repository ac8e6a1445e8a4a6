"""A broker's connection without a network, obeying a script."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import DEFAULT_PACKET_MAX, Events, Lost, Published, Received, Wake


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeConnection:
    """Answers each publish with the reason that ``puback`` gives; None answers nothing.

    ``on_turn`` is called at each turn of the main loop, which ``wakes`` keeps from waiting.
    """

    events: Events
    puback: Callable[[str, bytes], int | None] = lambda _topic, _payload: 0
    on_turn: Callable[[], None] = lambda: None
    wakes: bool = True
    at: str = "broker"
    receive_maximum: int = 100
    packet_max: int = DEFAULT_PACKET_MAX
    can_share: bool = True
    taken_over: bool = False
    session_present: bool = False
    published: list[tuple[str, bytes, bool]] = field(default_factory=list)
    told: list[tuple[str, bytes]] = field(default_factory=list)
    subscribed: list[str] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    unanswered: int = 0
    most_unanswered: int = 0
    closed: bool = False
    session_ended: bool = False
    _mids: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        mid = next(iter(self._mids))
        self.published.append((topic, payload, retain))
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)
        reason = self.puback(topic, payload)
        if reason is not None:
            self.answer(mid, reason)
        return mid

    def tell(self, topic: str, payload: bytes) -> None:
        self.told.append((topic, payload))

    def answer(self, mid: int, reason: int) -> None:
        self.unanswered -= 1
        self.events.put(Published(mid, reason))

    def subscribe(self, topics: list[str]) -> None:
        self.subscribed += [topic for topic in topics if topic not in self.subscribed]

    def unsubscribe(self, topics: list[str]) -> None:
        self.subscribed = [topic for topic in self.subscribed if topic not in topics]

    def settle(self) -> None:
        pass

    def acknowledge(self, messages: Sequence[Received]) -> None:
        self.acknowledged += [message.mid for message in messages]

    def alive(self) -> bool:
        self.on_turn()
        if self.wakes:
            self.events.put(Wake())
        return True

    def close(self, *, end_session: bool = False) -> None:
        self.closed = True
        self.session_ended |= end_session

    def lose(self, *, taken_over: bool = False) -> None:
        self.taken_over = taken_over
        self.events.put(Lost("lost", taken_over))

    def payloads(self) -> list[bytes]:
        return [payload for _, payload, retain in self.published if not retain]


class FakeBroker:
    """Opens the connections that a test prepares, one after another; then it is away."""

    def __init__(self, *prepare: Callable[[FakeConnection], None], wakes: bool = True) -> None:
        self._wakes = wakes
        self.connections: list[FakeConnection] = []
        self.attempts = 0
        self._prepare = list(prepare)

    def __call__(self, events: Events) -> FakeConnection:
        self.attempts += 1
        if not self._prepare:
            raise BrokerAwayError("away")
        connection = FakeConnection(events, wakes=self._wakes)
        self.connections.append(connection)
        self._prepare.pop(0)(connection)
        return connection
