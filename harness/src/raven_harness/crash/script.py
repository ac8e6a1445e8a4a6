"""The script of faults: what is done to whom, when and for how long, by the seed alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

ROUND_S: Final = 150.0
"""Faults begin for so long; then everything may come back and is looked at."""
GAP_S: Final = (2.0, 9.0)
"""Between the beginnings of two faults; most are still going on when the next one begins."""

RECORDERS: Final = ("mongo-recorder-1", "mongo-recorder-2", "mongo-recorder-3")
DATABASES: Final = ("mariadb", "mongo")
BROKERS: Final = ("broker", "upstream")
SERVICES: Final = ("reader", *RECORDERS, "sql-writer", "sql-relay", "upstream-recorder")
PARTS: Final = (*SERVICES, *BROKERS, *DATABASES)
LINKS: Final = (
    "reader-broker",
    "recorders-broker",
    "writer-broker",
    "relay-upstream",
    "recorder-upstream",
    *(f"{recorder}-mongo" for recorder in RECORDERS),
    "upstream-recorder-mongo",
    "writer-mariadb",
    "relay-mariadb",
)
EVERYTHING: Final = ("everything",)


class Fault(NamedTuple):
    """One fault: ``at_s`` after the beginning of its round, ``for_s`` long."""

    number: int
    round: int
    at_s: float
    kind: str
    target: str
    for_s: float
    detail: str = ""

    def __str__(self) -> str:
        words = f"#{self.number} {self.kind} {self.target}"
        return f"{words}{self.detail and f' ({self.detail})'} for {self.for_s:.1f} s"


class Kind(NamedTuple):
    """A kind of fault: its frequency, possible targets, duration and variants."""

    weight: int
    targets: Sequence[str]
    for_s: tuple[float, float]
    details: Sequence[str] = ("",)


KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind(8, PARTS, (0, 6)),
    "kill-pair": Kind(3, ["+".join(pair) for pair in combinations(PARTS, 2)], (0, 6)),
    "kill-everything": Kind(1, EVERYTHING, (0, 5)),
    "kill-backlog": Kind(1, BROKERS, (8, 20)),
    "kill-mid-commit": Kind(2, DATABASES, (0, 4)),
    "stop": Kind(3, PARTS, (0, 8)),
    "pause": Kind(4, PARTS, (1, 20)),
    "partition": Kind(6, LINKS, (1, 30), ("cut", "refuse", "stall", "stall-out", "stall-back")),
    "disk-full": Kind(1, ("reader",), (3, 25)),
    "clock": Kind(
        2, ("reader", *RECORDERS, "sql-writer"), (5, 40), ("-7200", "-61", "-1", "+45", "+7200")
    ),
    "unplug": Kind(2, ("stick",), (1, 10)),
    "poison": Kind(1, ("stick",), (1, 5)),
    "scale": Kind(1, ("+".join(RECORDERS[1:]),), (10, 40)),
    "upstream-away": Kind(1, ("upstream",), (60, 120)),
    "wipe": Kind(1, BROKERS, (0, 8)),
    "hostile-home": Kind(1, ("broker",), (5, 30)),
}
"""Every kind of fault.

A partition cuts connections again and again, refuses them, or stalls both ways or one; a clock is off by so
many seconds; poison is a report of the impossible; a broker is wiped when its data is deleted while
it is down; a hostile home does with its account what harms others.
"""


def plan(seed: int, minutes: float, kinds: Mapping[str, Kind] = KINDS) -> list[list[Fault]]:
    """Return the faults of each round, in the order of their beginnings.

    Kinds and targets are dealt from shuffled decks, so that none is left out for long.
    """
    chance = random.Random(seed)  # noqa: S311 - seeded, not secret
    deck = _Deck(chance, [name for name, kind in kinds.items() for _ in range(kind.weight)])
    targets = {name: _Deck(chance, kind.targets) for name, kind in kinds.items()}
    details = {name: _Deck(chance, kind.details) for name, kind in kinds.items()}
    left_s = minutes * 60
    rounds: list[list[Fault]] = []
    number = 0
    while left_s > 0:
        faults: list[Fault] = []
        at_s = chance.uniform(*GAP_S)
        while at_s < min(left_s, ROUND_S):
            number += 1
            kind = deck.deal()
            for_s = round(chance.uniform(*kinds[kind].for_s), 1)
            target, detail = targets[kind].deal(), details[kind].deal()
            faults.append(Fault(number, len(rounds) + 1, at_s, kind, target, for_s, detail))
            at_s += chance.uniform(*GAP_S)
        rounds.append(faults)
        left_s -= ROUND_S
    return rounds


class _Deck:
    """Deals its cards in an order of chance, all of them before the first comes again."""

    def __init__(self, chance: random.Random, cards: Sequence[str]) -> None:
        self._chance = chance
        self._cards = cards
        self._left: list[str] = []

    def deal(self) -> str:
        if not self._left:
            self._left = list(self._cards)
            self._chance.shuffle(self._left)
        return self._left.pop()
