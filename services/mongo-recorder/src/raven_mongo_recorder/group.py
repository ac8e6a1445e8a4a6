"""Rules for the holders of slots, without a database and without a clock.

A group's slots are a value; each rule returns the group as it shall be.  Whoever keeps the group
makes sure that nothing happened in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

PATIENCE_LEASES: Final = 4
"""A slot without a holder is left for so long to one that starts again."""


class State(StrEnum):
    """Known state of a slot's session."""

    JOINING = "joining"
    """It may be subscribed or not."""
    MEMBER = "member"
    """It is subscribed, and stays so without its holder."""
    LEAVING = "leaving"
    """It is being unsubscribed and drained."""
    CLOSED = "closed"
    """It was drained and ended; a broker that lost its memory may have it back."""


class Slot(NamedTuple):
    """One session of the group; ``beat`` moves for as long as the holder is alive."""

    state: State
    holder: str | None = None
    beat: int = 0


Group = Mapping[int, Slot]


class _Seen(NamedTuple):
    slot: Slot
    since: float
    moved: bool


class Watch:
    """Tells which holders are alive, by its own clock and what it has seen with that clock alone.

    A holder is dead when its beat was looked at for ``lease_s`` seconds and did not move.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._seen: dict[int, _Seen] = {}
        self._looked_at = float("-inf")

    def look(self, group: Group, now: float) -> None:
        """Look at the group as it is ``now``."""
        # Who could not look for so long has not seen that others did not move, either.
        gap = now - self._looked_at > self._lease_s / 2
        self._looked_at = now
        seen = {number: self._seen.get(number) for number in group}
        self._seen = {
            number: old
            if old and old.slot[1:] == group[number][1:] and not gap
            else _Seen(group[number], now, moved=not gap)
            for number, old in seen.items()
        }

    def idle_s(self, number: int) -> float:
        """Return for how long the slot's holder has been the same without a beat."""
        return self._looked_at - self._seen[number].since

    def alive(self, number: int) -> bool:
        """Say whether the slot's holder has been seen to do something within a lease."""
        return self._held(number) and self._seen[number].moved and not self.dead(number)

    def unclear(self, number: int) -> bool:
        """Say whether the slot's holder may be alive or dead."""
        return self._held(number) and not self._seen[number].moved and not self.dead(number)

    def dead(self, number: int) -> bool:
        """Say whether the slot's holder has lost its lease."""
        return self._held(number) and self.idle_s(number) >= self._lease_s

    def _held(self, number: int) -> bool:
        return number in self._seen and self._seen[number].slot.holder is not None


def held(group: Group, me: str) -> frozenset[int]:
    """Return the numbers of the slots that ``me`` holds."""
    return frozenset(number for number, slot in group.items() if slot.holder == me)


def shared(group: Group, number: int) -> bool:
    """Say whether others than the slot are subscribed, or about to be."""
    return any(
        other != number and slot.state in (State.JOINING, State.MEMBER)
        for other, slot in group.items()
    )


def taken(group: Group, me: str, watch: Watch) -> Group:
    """Give ``me`` the lowest slot that nobody alive holds, unless that is not clear yet."""
    if held(group, me) or any(watch.unclear(number) for number in group):
        return group
    number = next(number for number in count(1) if not watch.alive(number))
    return _with(group, number, State.JOINING, me)


def renewed(group: Group, numbers: Collection[int], me: str) -> Group:
    """Show that ``me`` is alive, where it holds the slots still."""
    return {
        number: slot._replace(beat=slot.beat + 1)
        if number in numbers and slot.holder == me
        else slot
        for number, slot in group.items()
    }


def joined(group: Group, number: int, me: str) -> Group:
    """Note that the slot's session is subscribed."""
    return _with(group, number, State.MEMBER, me) if _holds(group, number, me) else group


def left(group: Group, number: int, me: str, watch: Watch) -> Group:
    """Let a session be unsubscribed, if another one is subscribed and in living hands.

    The other one cannot leave any more without a third, since this one counts no longer.
    """
    stays = any(
        other != number and slot.state is State.MEMBER and (slot.holder == me or watch.alive(other))
        for other, slot in group.items()
    )
    return _with(group, number, State.LEAVING, me) if stays and _holds(group, number, me) else group


def served(group: Group, watch: Watch) -> bool:
    """Say whether a session is subscribed and its holder is not known to be dead."""
    return any(
        slot.state is State.MEMBER and slot.holder is not None and not watch.dead(number)
        for number, slot in group.items()
    )


def closed(group: Group, number: int, me: str) -> Group:
    """Note that the slot's session was drained and ended."""
    return _with(group, number, State.CLOSED, None) if _holds(group, number, me) else group


def released(group: Group, number: int, me: str) -> Group:
    """Take the holder from a slot; its session stays what it is."""
    return _with(group, number, group[number].state, None) if _holds(group, number, me) else group


def adopted(group: Group, number: int, me: str, watch: Watch) -> Group:
    """Give ``me``, who is a member, a slot without a living holder for its session to be drained."""
    member = any(slot.holder == me and slot.state is State.MEMBER for slot in group.values())
    free = number in group and not watch.alive(number) and not watch.unclear(number)
    return _with(group, number, State.LEAVING, me) if member and free else group


def abandoned(group: Group, watch: Watch, lease_s: float) -> list[int]:
    """Return the slots whose sessions may hold messages and whose holders do not come back."""
    return [
        number
        for number, slot in sorted(group.items())
        if slot.state is not State.CLOSED
        and (slot.holder is None or watch.dead(number))
        and watch.idle_s(number) >= PATIENCE_LEASES * lease_s
    ]


def too_high(group: Group, number: int, watch: Watch, lease_s: float) -> bool:
    """Say whether the highest member should take a lower slot, which nobody has wanted for long.

    So a group that shrinks comes back to the slots from 1 up, and a lone recorder to slot 1, the
    only one that is known without the ledger.
    """
    highest = max((n for n, slot in group.items() if slot.state is State.MEMBER), default=0)
    return number == highest and any(
        lower < number
        and slot.state is State.CLOSED
        and watch.idle_s(lower) >= PATIENCE_LEASES * lease_s
        for lower, slot in group.items()
    )


def _holds(group: Group, number: int, me: str) -> bool:
    return number in group and group[number].holder == me


def _with(group: Group, number: int, state: State, holder: str | None) -> Group:
    old = group.get(number)
    return {**group, number: Slot(state, holder, old.beat + 1 if old else 1)}
