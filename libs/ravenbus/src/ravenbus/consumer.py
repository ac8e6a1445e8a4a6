"""The consuming half: stores what its session brings, over one connection after another.

Consumers that form a group share the topics among them; whose session a consumer uses, and when it
may be unsubscribed, its slot says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ravenbus.errors import BrokerAwayError, RavenError, RetryableError, SlotLostError
from ravenbus.hearing import Hearing
from ravenbus.metrics import ConsumerMetrics
from ravenbus.retrying import Reconnecting, Retry
from ravenbus.slots import Slot, Slots
from ravenbus.storing import Intake, Storing
from ravenbus.topics import GONE, Topics

log = logging.getLogger(__name__)

TICK_S = 1.0
SESSION_EXPIRY_S = 30 * 24 * 3600
"""Time that the broker keeps undelivered messages for a consumer that is away."""
DRAIN_S = 10.0
"""Longest time that messages are taken after a stop; Docker's grace period has to be longer."""
LEAVE_S = 20.0
"""Longest time for a session to drain after a stop; what it still holds is left to the group."""
QUIET_S = 1.0
"""A session that brings nothing for so long is asked whether it is empty."""


@dataclass(frozen=True)
class Consumer:
    """Takes slots and has stored what their sessions bring; ``run`` is the main loop.

    ``name`` is what the store is known by to those who wait for it.
    """

    slots: Slots
    storing: Storing
    topics: Topics
    retry: Retry
    metrics: ConsumerMetrics
    name: str
    clock: Callable[[], float] = time.monotonic

    def run(self) -> None:
        """Store until a stop, then drain; raise FatalError if the session is taken over."""
        try:
            self.storing.prepare()
            while slot := self.slots.take(self.retry.stop):
                spare = False
                try:
                    spare = self._hold(slot)
                except SlotLostError as error:
                    log.warning("slot given up", extra={"reason": str(error)})
                finally:
                    slot.release()
                if spare:
                    self.slots.stand_by(self.retry.stop)
        except RetryableError:
            return

    def _hold(self, slot: Slot) -> bool:
        """Store what the slot's session brings, until a stop; return True if it is one too many."""
        reconnecting = Reconnecting()
        while not self.retry.stop.is_set():
            intake = self.retry("broker", lambda: self.storing.open(slot))
            self.metrics.connected.set(1)
            opened_at = self.clock()
            try:
                with self.storing.closing(intake):
                    return self._serve(intake)
            except BrokerAwayError as error:
                pause_s = reconnecting.pause_s(self.clock() - opened_at)
                reason = f"connection lost: {error}{reconnecting.suspicion}"
                self.retry.health.failing("broker", reason)
            finally:
                self.metrics.connected.set(0)
            self.retry.stop.wait(pause_s)
        return False

    def _serve(self, intake: Intake) -> bool:
        """Store what one connection brings until a stop, then leave a group that goes on."""
        slot = intake.slot

        def shares() -> bool:
            return slot.shared() and intake.connection.can_share

        self.retry("slot", slot.confirm)
        shared = shares()
        self._share(intake, shared=shared)
        intake.connection.publish(self.topics.of(GONE, store=self.name), b"", retain=True)
        self.retry("slot", slot.joined)
        log.info("connected to the broker", extra={"shared": shared} if slot.group else None)
        if former := slot.former():
            self._adopt(former)
        if slot.group and not intake.connection.can_share and self._may_leave(slot):
            log.warning("standing by: the broker has no shared subscriptions for a second replica")
            self._drain(intake, QUIET_S, self.retry.stop.is_set)
            return True
        hearing = Hearing(intake.connection, self.topics, self.clock)
        while not self.retry.stop.is_set():
            if shares() != shared:
                shared = not shared
                self._share(intake, shared=shared)
                log.info("subscribed anew: the group has changed", extra={"shared": shared})
            if self.storing.take(intake, min(TICK_S, max(0.0, intake.flush_at - self.clock()))):
                hearing.heard()
            else:
                hearing.ask_if_silent()
            if abandoned := slot.adopt():
                self.storing.flush(intake)
                if former := abandoned.former():
                    self._adopt(former)
                self._adopt(abandoned)
        stopped_at = self.clock()
        if self._may_leave(slot):
            self._drain(intake, QUIET_S, lambda: self.clock() > stopped_at + LEAVE_S)
        else:
            if shared:
                # Mosquitto's own persistence forgets shared subscriptions at a restart.
                self._share(intake, shared=False)
            while self.clock() < stopped_at + DRAIN_S and self.storing.take(intake, 0):
                pass
            self.storing.flush(intake)
        self.storing.confirm(intake)
        return False

    def _may_leave(self, slot: Slot) -> bool:
        try:
            return self.retry("slot", slot.leave)
        except RetryableError:
            return False

    def _share(self, intake: Intake, *, shared: bool) -> None:
        """Have the topics shared or alone; what is not needed is given up last."""
        alone, together = self._subscriptions(intake.slot)
        wanted, other = (together, alone) if shared else (alone, together)
        intake.connection.subscribe(wanted)
        intake.connection.settle()
        if unwanted := [topic for topic in other if topic not in wanted]:
            intake.connection.unsubscribe(unwanted)
            intake.connection.settle()

    def _subscriptions(self, slot: Slot) -> tuple[list[str], list[str]]:
        """Return what a consumer subscribes to alone, and what as one of a group."""
        return self.topics.stored(), self.topics.shared(slot.group) if slot.group else []

    def _adopt(self, slot: Slot) -> None:
        """Drain a session that nobody uses; whatever comes in between leaves it to a next time."""
        try:
            intake = self.storing.open(slot)
            with self.storing.closing(intake):
                quiet_s = QUIET_S if intake.connection.session_present else 0
                self._drain(intake, quiet_s, self.retry.stop.is_set)
        except RavenError as error:
            log.warning("session not drained", extra={"reason": str(error)})
        finally:
            slot.release()

    def _drain(self, intake: Intake, quiet_s: float, enough: Callable[[], bool]) -> None:
        """Unsubscribe, store all that the session holds and end it; or stop when it is enough.

        ``quiet_s`` is 0 for a session that was not there before.
        """
        if quiet_s:
            alone, shared = self._subscriptions(intake.slot)
            intake.connection.unsubscribe(sorted({*alone, *shared}))
            intake.connection.settle()
        while not enough():
            wait_s = min(quiet_s, max(0.0, intake.flush_at - self.clock()))
            if self.storing.take(intake, wait_s) or wait_s < quiet_s:
                continue
            self.storing.flush(intake)
            # What the acknowledgements made room for comes before the answer to what follows them.
            # It is about a topic that nobody subscribes to: who gives up what it does not have
            # takes it from everybody else on ejabberd (26.07).
            intake.connection.unsubscribe([self.topics.of(GONE, store=self.name)])
            intake.connection.settle()
            if intake.events.empty():
                self.storing.confirm(intake)
                intake.connection.close(end_session=True)
                self.retry("slot", intake.slot.closed)
                if quiet_s:
                    log.info("session drained and ended")
                return
        self.storing.flush(intake)
