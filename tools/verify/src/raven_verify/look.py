"""Looks at every store and compares: what the command ``raven-verify`` does without repairing."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Final

from raven_verify import spool
from raven_verify.inventory import Accepted, RunReport, identity, recent, report
from ravenbus.errors import PoisonError
from ravenbus.messages import Reading
from ravenbus.ranges import Range, common, merged, numbers
from ravenbus.readback import Choice, Known, Store, chunks

SETTLE_S: Final = 5.0
"""Longest time to look again for what a store does not have yet."""
AGAIN_S: Final = 0.5
RELAY: Final = "sql-relay"


@dataclass(frozen=True)
class Wanted:
    """Runs to look at: those with a name or hash, of a node; None for all."""

    run: str | None = None
    node: str | None = None

    def has(self, hash_: str, known: Known) -> bool:
        """Say whether a run is wanted."""
        return self.run in (None, hash_, known.name) and self.node in (None, known.node)


@dataclass(frozen=True)
class Report:
    """Report on all runs, and the number of dead letters that each store has, by reason."""

    runs: list[RunReport]
    letters: dict[str, dict[str, int]]

    @property
    def is_wrong(self) -> bool:
        """True if something lacks, is there twice or differs."""
        return any(run.is_wrong for run in self.runs)

    @property
    def complete(self) -> bool:
        """True if every store has every reading once, and all say the same."""
        return all(run.complete for run in self.runs)


Dead = dict[str, dict[str, list[Range]]]
"""Numbers that a store has as dead letters, by the store's name and the run's hash."""


class Look:
    """One look at every store; raises RetryableError if one of them, or the spool, is away."""

    def __init__(
        self,
        stores: Sequence[Store],
        state: Path | None,
        *,
        contents: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stores = stores
        self._state = state
        self._contents = contents
        self._clock = clock
        self._sleep = sleep

    def look(self, wanted: Wanted) -> Report:
        """Compare the runs that are wanted."""
        # The spool comes first: what it does not have any more is in the stores by now.
        accepted = self._accepted()
        dead, letters = self._dead()
        runs: dict[str, Known] = {}
        for hash_, one in accepted.items():
            runs[hash_] = Known(one.name, "")
        for store in self._stores:
            runs |= store.runs()
        compared = [
            _Compared(hash_, known, accepted.get(hash_), self._holders(hash_), dead)
            for hash_, known in sorted(runs.items(), key=lambda item: (item[1], item[0]))
            if wanted.has(hash_, known)
        ]
        self._settle(compared)
        found = [one.report for one in compared]
        if self._contents:
            found = [replace(one.report, differing=self._differing(one)) for one in compared]
        return Report([one for one in found if one.accepted], letters)

    def _holders(self, hash_: str) -> list[Store]:
        return [store for store in self._stores if not store.passes_over(hash_)]

    def _settle(self, compared: Sequence[_Compared]) -> None:
        """Look again for the newest numbers, which may be on their way to a store."""
        end = self._clock() + SETTLE_S
        while (open_ := [one for one in compared if one.unsettled()]) and self._clock() < end:
            self._sleep(AGAIN_S)
            accepted = self._accepted()
            for one in open_:
                one.look_again(accepted.get(one.hash))

    def _differing(self, one: _Compared) -> list[Range]:
        """Return the numbers that several stores have and that do not say the same."""
        held = [one.holdings[store.name].held for store in one.stores]
        several = merged(part for a, b in combinations(held, 2) for part in common(a, b))
        found: list[Range] = []
        for chunk in chunks(several):
            said: dict[int, dict[Store, Reading | None]] = defaultdict(dict)
            for store, ranges in zip(one.stores, held, strict=True):
                its = list(numbers(common(ranges, merged((seq, seq) for seq in chunk))))
                readings = dict(store.readings(one.hash, its))
                for seq in its:
                    said[seq][store] = readings.get(seq)
            found += [(seq, seq) for seq, copies in said.items() if not _same(copies)]
        return merged(found)

    def _accepted(self) -> dict[str, Accepted]:
        return (spool.accepted(self._state) if self._state else None) or {}

    def _dead(self) -> tuple[Dead, dict[str, dict[str, int]]]:
        dead: dict[str, dict[str, list[Range]]] = {s.name: defaultdict(list) for s in self._stores}
        letters = {}
        for store in self._stores:
            reasons: Counter[str] = Counter()
            for letter in store.letters(Choice()):
                reasons[letter.reason] += 1
                if found := identity(letter.payload):
                    hash_, seq = found
                    # What the relay left out came to no store behind it.
                    names = dead if letter.service == RELAY else [store.name]
                    for name in names:
                        dead[name][hash_].append((seq, seq))
            letters[store.name] = dict(reasons.most_common())
        return {
            name: {hash_: merged(ranges) for hash_, ranges in runs.items()}
            for name, runs in dead.items()
        }, letters


class _Compared:
    """A run with what is known of it so far."""

    def __init__(
        self,
        hash_: str,
        known: Known,
        accepted: Accepted | None,
        stores: Sequence[Store],
        dead: Dead,
    ) -> None:
        self.hash = hash_
        self.stores = stores
        self.holdings = {store.name: store.holding(hash_) for store in stores}
        self._known = known
        self._accepted = accepted
        self._dead = {store.name: dead[store.name].get(hash_, []) for store in stores}
        self.report = self._report()

    def unsettled(self) -> bool:
        """Say whether a store does not have one of the newest numbers."""
        return any(self._awaited(store) for store in self.stores)

    def look_again(self, accepted: Accepted | None) -> None:
        """Look for what a store did not have of the newest numbers."""
        if self._accepted and accepted:
            under_way = merged([*self._accepted.under_way, *accepted.under_way])
            self._accepted = self._accepted._replace(under_way=under_way)
        for store in self.stores:
            came = store.having(self.hash, self._awaited(store))
            holding = self.holdings[store.name]
            held = merged([*holding.held, *came])
            self.holdings[store.name] = holding._replace(held=held)
        self.report = self._report()

    def _awaited(self, store: Store) -> list[Range]:
        found = self.report.stores[store.name]
        return common(merged([*found.lacking, *found.under_way]), recent(self.report))

    def _report(self) -> RunReport:
        return report(self.hash, self._known, self._accepted, self.holdings, self._dead)


def _same(copies: Mapping[Store, Reading | None]) -> bool:
    """Say whether all are readings, and the same in what every store that has one keeps."""
    try:
        kept = [
            reduce(lambda reading, store: store.as_stored(reading), copies, copy)
            for copy in copies.values()
            if copy
        ]
    except PoisonError:
        return False
    return len(kept) == len(copies) and all(one == kept[0] for one in kept)
