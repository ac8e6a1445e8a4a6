"""A consumer's slot: the session that it uses, and whether others share the topics with it.

A session holds messages that nobody else gets.  It may be ended only when it is unsubscribed and
drained, and unsubscribed only while another one of the group stays subscribed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

from ravenbus.errors import SlotLostError
from ravenbus.mqtt import Broker, Connect, Connection, Events


class Slot(Protocol):
    """A place in a group of consumers, with a session of its own; held until it is lost.

    Whoever takes a slot connects with its client id, which throws its last holder out.  So the
    order is: connect, ``confirm``, subscribe, ``joined``; then nothing that an older holder still
    says can reach the broker, however late it notices.

    What a slot does not say of itself is true of one that is nobody else's and never lost.
    Every call but ``connect``, ``former``, ``shared``, ``require``, ``adopt`` and ``release`` asks
    whoever keeps the slots: it raises RetryableError when they are away, SlotLostError when it is lost.
    """

    @property
    def group(self) -> str | None:
        """The name that the members share topics under; None for a consumer without a group."""

    def connect(self, events: Events) -> Connection:
        """Resume the slot's session; raise BrokerAwayError."""

    def former(self) -> Slot | None:
        """Return the slot with the session that it had before version 1.1, to be drained and ended."""

    def shared(self) -> bool:
        """Return True if others are subscribed too, as far as is known."""
        return False

    def require(self) -> None:
        """Raise SlotLostError if the slot is lost, as far as is known."""
        return

    def confirm(self) -> None:
        """Return if the slot is still held."""
        return

    def joined(self) -> None:
        """Say that the session is subscribed: from now on others may leave."""
        return

    def leave(self) -> bool:
        """Return whether the session may be unsubscribed, because another one stays subscribed."""
        return False

    def closed(self) -> None:
        """Say that the session was drained and ended."""
        return

    def adopt(self) -> Slot | None:
        """Take a slot whose holder is gone, for its session to be drained and ended."""
        return None

    def release(self) -> None:
        """Let others have the slot, and what its session holds, at once."""
        return


class Slots(Protocol):
    """Source of a consumer's slot."""

    def take(self, stop: threading.Event) -> Slot | None:
        """Return a slot, however long that takes; None if ``stop`` is set first."""

    def stand_by(self, stop: threading.Event) -> None:
        """Return when no other member is known to be at work, or ``stop`` is set."""

    def close(self) -> None:
        """Give back what is needed to take slots."""


@dataclass(frozen=True)
class Alone(Slot):
    """The slot of a consumer that has its session to itself, and where that slot comes from."""

    connection: Connect
    before: Connect | None = None
    group: str | None = None

    @classmethod
    def at(cls, broker: Broker) -> Alone:
        """Return the slot of a client of a broker."""
        return cls(broker, broker.former)

    def take(self, stop: threading.Event) -> Slot | None:
        """Return the slot."""
        return None if stop.is_set() else self

    def connect(self, events: Events) -> Connection:
        """Resume the session."""
        return self.connection(events)

    def former(self) -> Slot | None:
        """Return the slot with the session of versions before 1.1."""
        return former(self, self.before)

    def stand_by(self, stop: threading.Event) -> None:
        """Know of no other."""

    def close(self) -> None:
        """Give back nothing."""


def former(slot: Slot, before: Connect | None) -> Slot | None:
    """Return a slot with the session that ``before`` resumes, None if there is no such."""
    return Former(connection=before, group=slot.group, slot=slot) if before else None


@dataclass(frozen=True, kw_only=True)
class Former(Alone):
    """A slot with the session that it had before version 1.1, under a client id that is no secret.

    Whoever else connects under that id keeps it; what is in the session then is sent again by the
    readers.
    """

    slot: Slot

    def require(self) -> None:
        """Raise SlotLostError if the slot is lost, as far as is known."""
        self.slot.require()

    def confirm(self) -> None:
        """Raise SlotLostError: asked when another client came with the same id."""
        raise SlotLostError("another client uses the session that versions before 1.1 had")
