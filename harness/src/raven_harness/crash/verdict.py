"""Compares what was accepted, what the stick sent and what each store has: pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

Letters = Sequence[tuple[str, str, str]]
"""Dead letters: id, the service that buried it, reason."""
Spans = Sequence[tuple[float, float]]
"""Times from and to, Unix time."""

BEFORE_S: Final = 2.0
"""Time before the reader was killed in which what a stick said may be in no one's hands."""
AFTER_S: Final = 10.0
"""A reader that starts on a busy machine throws away what the port held before it was set up."""
READER: Final = "reader"
POISON_REASON: Final = "demand-too-large"


class Copy(NamedTuple):
    """A store's copy of a reading: its number, and marks of all its fields and of what is stated.

    What is stated is what the stick's ledger has too.
    """

    seq: int
    whole: int
    stated: int


class Sent(NamedTuple):
    """A report of the stick's ledger.

    ``whole`` arrived undamaged, ``cached`` repeats another, ``poison`` has to be buried.
    """

    at: float
    stated: int
    heard: bool
    whole: bool
    cached: bool
    poison: bool = False


@dataclass
class Found:
    """Contents of a store, and the numbers of the readings that it should not have so."""

    stored: int = 0
    lost: list[int] = field(default_factory=list)
    duplicated: list[int] = field(default_factory=list)
    altered: list[int] = field(default_factory=list)
    """Not as the stick sent it, not as the other stores have it, or never accepted."""
    letters: Counter[str] = field(default_factory=Counter)
    """Dead letters by service and reason."""
    wrong_letters: int = 0
    """Buried twice, by another than the reader, without a cause, or not in each store."""


@dataclass
class Verdict:
    """Result of a run."""

    accepted: int
    stores: dict[str, Found]
    damaged: int
    """Reports that the line damaged: the reader may bury what is left of one."""
    missed: int
    """Whole reports that no reading came of while the reader was there to hear them."""
    away: int
    """Whole reports that no reading came of because the reader was down, or had no port."""


def judge(
    accepted: int,
    stores: Mapping[str, Iterable[Copy]],
    sent: Sequence[Sent],
    letters: Mapping[str, Letters],
    away: Spans,
) -> Verdict:
    """Compare; ``letters`` are of the stores that get the reader's, ``away`` when it heard nothing."""
    found: dict[str, Found] = {}
    copies: dict[str, dict[int, Copy]] = {}
    for name, store in stores.items():
        found[name], copies[name] = _count(accepted, store)
    heard: set[int] = set()
    for name, those in copies.items():
        unsent, positions = _align(those, sent)
        differing = _differing(name, copies)
        found[name].altered = sorted({*found[name].altered, *unsent, *differing})
        heard |= positions
    missing = [
        one
        for position, one in enumerate(sent)
        if one.whole and not one.cached and not one.poison and position not in heard
    ]
    excused = sum(_within(one.at, away) for one in missing)
    damaged = sum(one.heard and not one.whole for one in sent)
    poison = [_within(one.at, away) for one in sent if one.poison and one.whole]
    _judge_letters(found, letters, damaged, range(poison.count(False), len(poison) + 1))
    return Verdict(accepted, found, damaged, len(missing) - excused, excused)


def outages(gaps: Spans, frail: Spans) -> list[tuple[float, float]]:
    """Return when a reader heard nothing: its gaps, with what it had in its hands before them.

    What was paused, or had no disk, when a gap began has lost what came since.
    """
    found = []
    for start, end in gaps:
        begun = [since for since, until in frail if since <= end and until >= start - BEFORE_S]
        found.append((min([start, *begun]) - BEFORE_S, end + AFTER_S))
    return found


def _count(accepted: int, copies: Iterable[Copy]) -> tuple[Found, dict[int, Copy]]:
    found, kept = Found(), dict[int, Copy]()
    for one in copies:
        found.stored += 1
        if one.seq in kept:
            found.duplicated.append(one.seq)
        elif 1 <= one.seq <= accepted:
            kept[one.seq] = one
        else:
            found.altered.append(one.seq)
    found.lost = [seq for seq in range(1, accepted + 1) if seq not in kept]
    return found, kept


def _align(copies: Mapping[int, Copy], sent: Sequence[Sent]) -> tuple[list[int], set[int]]:
    """Find each reading, in the order of the numbers, among what was sent, in its order.

    Return the numbers of those that are not there, and the positions of the others.
    """
    where: dict[int, list[int]] = defaultdict(list)
    for position, one in enumerate(sent):
        if one.whole and not one.poison:
            where[one.stated].append(position)
    unsent, positions = [], set()
    after = 0
    for seq in sorted(copies):
        there = where.get(copies[seq].stated, [])
        index = bisect_left(there, after)
        if index == len(there):
            unsent.append(seq)
        else:
            positions.add(there[index])
            after = there[index] + 1
    return unsent, positions


def _differing(name: str, copies: Mapping[str, Mapping[int, Copy]]) -> list[int]:
    """Return what this store has otherwise than most of the others."""
    found = []
    for seq, mine in copies[name].items():
        every = [those[seq].whole for those in copies.values() if seq in those]
        if 2 * every.count(mine.whole) <= len(every):
            found.append(seq)
    return found


def _judge_letters(
    found: Mapping[str, Found], letters: Mapping[str, Letters], damaged: int, poison: range
) -> None:
    every = {one for those in letters.values() for one in those if one[1] == READER}
    for name, those in letters.items():
        mine = [one for one in those if one[1] == READER]
        poisoned = sum(one[2] == POISON_REASON for one in set(mine))
        wrong = len(those) - len(mine)
        wrong += len(mine) - len(set(mine))
        wrong += len(every - set(mine))
        wrong += max(0, len(set(mine)) - poisoned - damaged)
        wrong += max(0, poison.start - poisoned, poisoned - poison.stop + 1)
        found[name].letters = Counter(f"{service}: {reason}" for _, service, reason in those)
        found[name].wrong_letters = wrong


def _within(at: float, spans: Spans) -> bool:
    return any(start <= at <= end for start, end in spans)
