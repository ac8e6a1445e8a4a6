"""Rules for when unconfirmed messages count as lost, and for how many of them are sent again.

A broker hands a store what it was sent in order.  So the store itself says how far it has come:
once it has confirmed something, what was sent before that is stored, on its way through another
member of its group, or lost.  Time alone says nothing: a queue of an hour is not a loss.

Moments are turns of ``TURN_S`` seconds, which go on over a restart and follow no clock that is set.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from ravenbus.health import Health

log = logging.getLogger(__name__)

NOTHING: Final = float("-inf")
TURN_S: Final = 5.0
PATIENCE_S: Final = 30.0
"""Longest time that the other members of a group may take for what one of them has passed."""
ASK_FIRST_S: Final = 15.0
ASK_LAST_S: Final = 300.0
"""First and longest wait before the last message sent is sent again alone, if none follows it."""
AT_ONCE_FIRST: Final = 64
AT_ONCE_MAX: Final = 4096

DAY_TURNS: Final = int(86400 / TURN_S)
FORGOTTEN_DAYS: Final = 30
"""As long as a broker keeps a store's session: after that it would get what waits from here alone."""

FORGOTTEN: Final = -1
"""Stands for the turn of a store's last confirmation, when nothing is kept for it any longer."""

Key = TypeVar("Key")


class Progress:
    """The progress of one store, and the limit on what may be on its way to it for another time."""

    def __init__(self, patience: float) -> None:
        self.lost_until = NOTHING
        """Moment up to which what was sent, and is not confirmed now, is lost."""
        self.passed = NOTHING
        """The store has confirmed what was sent first at this moment, and nothing later."""
        self._patience = patience
        self._steps: deque[tuple[float, float]] = deque()
        self._at_once = AT_ONCE_FIRST
        self._bound = False

    def confirmed(self, first_sent: float) -> None:
        """Hear that something is confirmed; of what was sent twice, either may have arrived."""
        self.passed = max(self.passed, first_sent)

    def turn(self, now: float) -> None:
        """Let what the store has passed long enough count."""
        if self.passed > (self._steps[-1][1] if self._steps else self.lost_until):
            self._steps.append((now, self.passed))
        while self._steps and self._steps[0][0] <= now - self._patience:
            self.lost_until = self._steps.popleft()[1]

    def room(self, under_way: int, lost_again: int) -> int:
        """Return how much more may be sent again, beside what is under way for another time.

        The bound halves when that is lost again, and doubles when the store kept up with it.
        """
        if lost_again:
            self._at_once = max(1, self._at_once // 2)
        elif self._bound and under_way <= self._at_once // 2:
            self._at_once = min(AT_ONCE_MAX, self._at_once * 2)
            self._bound = False
        return max(0, self._at_once - under_way)

    def sends_again(self, count: int, room: int) -> None:
        """Hear how much is sent again where there was room for so much."""
        self._bound |= 0 < room <= count


class Asking:
    """Schedule for sending the last message again alone: none that follows shows its fate."""

    def __init__(self, first: float, last: float) -> None:
        self._first = self._every = first
        self._last = last
        self._at = NOTHING

    def heard(self, now: float) -> None:
        """Hear that a store goes on confirming: what it comes to shows by itself."""
        self._every = self._first
        self._at = now + self._first

    def is_due(self, last_sent: float, now: float) -> bool:
        """Say whether it is time, and wait twice as long for the next."""
        if now < max(self._at, last_sent + self._every):
            return False
        self._every = min(self._every * 2, self._last)
        self._at = now + self._every
        return True


class Sent(NamedTuple, Generic[Key]):
    """A sent message, its turn (None: not yet sent again), and the stores that confirmed it."""

    key: Key
    at: int | None
    confirmed: int


class Waiting(Protocol[Key]):
    """The sent messages that an outbox keeps until the stores have confirmed them.

    Stores are bits.  Nothing is asked for unless it waits for one of the stores that are required.
    """

    def under_way(self, keys: Sequence[Key]) -> Sequence[Sent[Key]]:
        """Return those of what is sent for another time that still wait."""

    def last(self) -> Sent[Key] | None:
        """Return what was sent last, by the turn."""

    def owed(self, bit: int, since: float, until: float, most: int) -> list[Key]:
        """Return the first of what was sent after a turn, until another, and a store has not confirmed."""

    def oldest(self, bit: int) -> int | None:
        """Return the turn in which the oldest of what a store has not confirmed was sent first."""


class Lost(NamedTuple, Generic[Key]):
    """Messages to send again, and for each store the turn until which no others are lost."""

    keys: set[Key]
    looked_until: dict[int, float]


class Resending(Generic[Key]):
    """The stores an outbox waits for, and the choice of what it sends again; used by one thread."""

    def __init__(self, waiting: Waiting[Key], health: Health) -> None:
        self.required = 0
        """The stores that have to confirm, as bits."""
        self._waiting = waiting
        self._health = health
        self._progress: dict[int, Progress] = defaultdict(lambda: Progress(PATIENCE_S / TURN_S))
        self._asking = Asking(ASK_FIRST_S / TURN_S, ASK_LAST_S / TURN_S)
        self.gone: frozenset[str] = frozenset()
        """The stores that somebody said are gone for good."""
        self._looked_until: dict[int, float] = {}
        self._again: list[Key] = []

    def confirmed(self, bit: int, first_sent: int, turn: int) -> None:
        """Hear that a store has what was sent first at a turn."""
        self._progress[bit].confirmed(first_sent)
        self._asking.heard(turn)

    def lost(self, turn: int) -> Lost[Key]:
        """Return what is to be sent again now; ``sent_again`` is told once that is noted."""
        again = self._waiting.under_way(self._again) if self._again else []
        lost_again: set[Key] = set()
        found = Lost[Key](set(), {})
        for bit in _bits(self.required):
            progress = self._progress[bit]
            progress.turn(turn)
            until = progress.lost_until
            owed = [one for one in again if not one.confirmed & bit]
            of_it_lost = {one.key for one in owed if one.at is not None and one.at <= until}
            lost_again |= of_it_lost
            room = progress.room(len(owed) - len(of_it_lost), len(of_it_lost))
            since = self._looked_until.get(bit, NOTHING)
            keys = self._waiting.owed(bit, since, until, room) if room and until > since else []
            progress.sends_again(len(keys), room)
            if len(keys) < room:
                # What is sent from now on is sent later.
                found.looked_until[bit] = until
            found.keys.update(keys)
        self._again = [one.key for one in again if one.key not in lost_again]
        if not found.keys:
            found.keys.update(self._asked(turn))
        return found

    def sent_again(self, lost: Lost[Key], keys: Sequence[Key]) -> None:
        """Hear that what was lost is to be sent under these keys, and need not be looked for."""
        self._looked_until |= lost.looked_until
        self._again += keys

    def silent(
        self, heard: Sequence[tuple[str, int, int]], turn: int, *, forgets: bool
    ) -> list[str]:
        """Say which required stores confirmed nothing for a day while something waited for them.

        ``heard`` has of each its name, its bit and the turn in which it confirmed last.
        Return the names of those to be forgotten, if it ``forgets``: after thirty days, or after
        one if the store is said to be gone.
        """
        said: list[str] = []
        gone: list[str] = []
        for name, bit, at in heard:
            if not bit & self.required or at > turn - DAY_TURNS:
                continue
            oldest = self._waiting.oldest(bit)
            # Where nothing is sent a store has nothing to confirm.
            since = turn if oldest is None else max(at, oldest)
            days = (turn - since) // DAY_TURNS
            if forgets and days >= (1 if name in self.gone else FORGOTTEN_DAYS):
                log.warning(
                    "silent store forgotten: readings no longer wait for it",
                    extra={"store": name, "days": days},
                )
                gone.append(name)
            elif days:
                said.append(f"{name} has confirmed nothing for {days} d")
        if said:
            advice = "is it gone for good, say so with raven-verify --gone"
            self._health.failing("stores", f"{', '.join(said)}: {advice}")
        else:
            self._health.ok("stores")
        return gone

    def _asked(self, turn: int) -> Iterator[Key]:
        """Yield what was sent last, if it is to show what became of all."""
        last = self._waiting.last()
        if not last or last.at is None:
            return
        unknown = any(
            self._progress[bit].passed < last.at for bit in _bits(self.required & ~last.confirmed)
        )
        if unknown and self._asking.is_due(last.at, turn):
            yield last.key


def _bits(stores: int) -> Iterator[int]:
    """Yield each store of several."""
    while stores:
        bit = stores & -stores
        yield bit
        stores ^= bit
