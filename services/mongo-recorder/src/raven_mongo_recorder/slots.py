"""Slots under a lease: taken, renewed, lost, adopted and given back.

A lease shows who is alive, and nothing more.  A holder that is late finds its connection taken
over, so no clock can cost a reading.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from raven_mongo_recorder import group as rules
from raven_mongo_recorder.group import Group, State, Watch
from ravenbus.errors import RetryableError, SlotLostError
from ravenbus.health import Health
from ravenbus.mqtt import Broker, Connection, Events
from ravenbus.slots import Slot, former

log = logging.getLogger(__name__)

RENEWALS_PER_LEASE: Final = 5
LOOK_AGAIN_S: Final = 1.0
GIVE_UP_AFTER: Final = 0.8
"""The part of a lease after which a holder that could not renew it stops by itself."""

Rule = Callable[[Group], Group]


class Ledger(Protocol):
    """Storage of the group."""

    def change(self, rule: Rule) -> Group:
        """Replace the group by what the rule makes of it, and return that.

        Nothing happens in between.  Raise RetryableError, and then it may have happened or not.
        """

    def close(self) -> None:
        """Give back what the ledger holds."""


class LeasedSlots:
    """The slots of a group, of which one replica holds one and drains others.

    Slot 1 has the session of ``broker``'s client id, slot n that of ``<client id>-<n>``.
    """

    def __init__(
        self,
        ledger: Ledger,
        broker: Broker,
        lease_s: float,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.broker = broker
        self._ledger = ledger
        self._lease_s = lease_s
        self._renew_every_s = lease_s / RENEWALS_PER_LEASE
        self._look_again_s = min(LOOK_AGAIN_S, self._renew_every_s / 2)
        self._health = health
        self._clock = clock
        self.me = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.watch = Watch(lease_s)
        self._asking = threading.Lock()
        self.group: Group = {}
        self.held: frozenset[int] = frozenset()
        self._used: frozenset[int] = frozenset()
        self.abandoned: list[int] = []
        self._too_high: set[int] = set()
        self._renewed_at = float("-inf")
        self._released = threading.Event()

    def take(self, stop: threading.Event) -> LeasedSlot | None:
        """Return the lowest slot that nobody alive holds, once that is clear; None after a stop."""
        pause_s = 0.0
        while not stop.wait(pause_s):
            pause_s = self._look_again_s
            self._health.beat()
            began = self._clock()
            try:
                self.change(lambda group: rules.taken(group, self.me, self.watch))
            except RetryableError as error:
                self._health.failing("slot", str(error))
                continue
            self._health.ok("slot")
            if self.held:
                self._renewed_at = began
                self._released = threading.Event()
                threading.Thread(
                    target=self._keep, args=(self._released,), name="lease", daemon=True
                ).start()
                slot = self.use(min(self.held))
                log.info("slot taken", extra={"slot": slot.number, "client_id": slot.client_id})
                return slot
        return None

    def stand_by(self, stop: threading.Event) -> None:
        """Return when no other member is known to be at work, or ``stop`` is set."""
        while not stop.wait(self._look_again_s):
            self._health.beat()
            try:
                self.change(lambda group: group)
            except RetryableError as error:
                self._health.failing("slot", str(error))
                continue
            self._health.ok("slot")
            if not rules.served(self.group, self.watch):
                return

    def close(self) -> None:
        """Give back what the ledger holds."""
        self._ledger.close()

    def renew(self) -> None:
        """Show that this replica is alive; raise RetryableError."""
        began = self._clock()
        self.change(lambda group: rules.renewed(group, self._used, self.me))
        self._renewed_at = began

    def require(self, number: int) -> None:
        """Raise SlotLostError if a slot is lost, as far as is known."""
        if number not in self.held:
            raise SlotLostError(f"slot {number} is somebody else's")
        late_s = self._clock() - self._renewed_at
        if late_s > GIVE_UP_AFTER * self._lease_s:
            raise SlotLostError(f"the lease of slot {number} was not renewed for {late_s:.1f} s")
        if number in self._too_high:
            raise SlotLostError(f"a slot below {number} is free")

    def release(self, number: int) -> None:
        """Let others have a slot at once, or when the lease is over if the ledger is away."""
        self._used -= {number}
        if not self._used:
            self._released.set()
        with suppress(RetryableError):
            self.change(lambda group: rules.released(group, number, self.me))

    def use(self, number: int) -> LeasedSlot:
        """Keep the lease of a slot that is held, and return the slot."""
        self._used |= {number}
        return LeasedSlot(self, number)

    def _keep(self, released: threading.Event) -> None:
        """Renew the lease until the slot is released, whatever its consumer waits for."""
        while not released.wait(self._renew_every_s):
            try:
                self.renew()
            except RetryableError as error:
                self._health.failing("slot", str(error))
            else:
                self._health.ok("slot")

    def change(self, rule: Rule) -> None:
        """Change the group by a rule; raise RetryableError, and then it may have happened or not."""

        def look_and_change(group: Group) -> Group:
            self.watch.look(group, self._clock())
            return rule(group)

        with self._asking:
            self.group = self._ledger.change(look_and_change)
            self.watch.look(self.group, self._clock())
            self.held = rules.held(self.group, self.me)
            self.abandoned = rules.abandoned(self.group, self.watch, self._lease_s)
            self._too_high = {
                number
                for number in self.held
                if rules.too_high(self.group, number, self.watch, self._lease_s)
            }


class LeasedSlot:
    """A slot that is held for as long as its lease is renewed."""

    def __init__(self, slots: LeasedSlots, number: int) -> None:
        self.number = number
        self.group = slots.broker.client_id
        self.client_id = self.group if number == 1 else f"{self.group}-{number}"
        self._broker = replace(slots.broker, client_id=self.client_id)
        self._slots = slots
        self._visit: set[int] = set()

    def connect(self, events: Events) -> Connection:
        """Resume the slot's session; raise BrokerAwayError."""
        # A broker that lost its memory may have sessions back that were ended.
        group = self._slots.group
        self._visit = {number for number, slot in group.items() if slot.state is State.CLOSED}
        return self._broker(events)

    def former(self) -> Slot | None:
        """Return the slot with the session that it had before version 1.1."""
        return former(self, self._broker.former)

    def shared(self) -> bool:
        """Return True if others are subscribed too, as far as is known."""
        return rules.shared(self._slots.group, self.number)

    def require(self) -> None:
        """Raise SlotLostError if the slot is lost, as far as is known."""
        self._slots.require(self.number)

    def confirm(self) -> None:
        """Return if the slot is still held."""
        self._slots.renew()
        self.require()

    def joined(self) -> None:
        """Say that the session is subscribed: from now on others may leave."""
        slots = self._slots
        slots.change(lambda group: rules.joined(group, self.number, slots.me))
        self.require()

    def leave(self) -> bool:
        """Return whether the session may be unsubscribed, because another one stays subscribed."""
        slots = self._slots
        slots.change(lambda group: rules.left(group, self.number, slots.me, slots.watch))
        leaves = self.number in slots.held and slots.group[self.number].state is State.LEAVING
        if leaves:
            log.info("leaving the group", extra={"slot": self.number})
        return leaves

    def closed(self) -> None:
        """Say that the session was drained and ended."""
        slots = self._slots
        slots.change(lambda group: rules.closed(group, self.number, slots.me))

    def adopt(self) -> LeasedSlot | None:
        """Take a slot whose holder is gone, for its session to be drained and ended."""
        slots = self._slots
        number = next(iter(self._visit or slots.abandoned), None)
        if number is None:
            return None
        self._visit.discard(number)
        try:
            slots.change(lambda group: rules.adopted(group, number, slots.me, slots.watch))
        except RetryableError:
            return None
        if number not in slots.held:
            return None
        found = slots.use(number)
        log.info("slot adopted", extra={"slot": found.number})
        return found

    def release(self) -> None:
        """Let others have the slot, and what its session holds, at once."""
        self._slots.release(self.number)
