"""Comparison of what stores hold of a run with what was accepted: pure.

Memory grows with the gaps that are found, not with the readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from ravenbus.messages import RunHash, Seq
from ravenbus.ranges import Range, common, count, without
from ravenbus.readback import Holding, Known

RECENT: Final = 10_000
"""So many of a run's newest numbers may be on their way to a store at a look."""


class Accepted(NamedTuple):
    """The reader's record of a run in its spool: how many it accepted, and which it still has."""

    name: str
    seq: int
    under_way: list[Range]


@dataclass(frozen=True)
class StoreReport:
    """Report on a run in a store."""

    count: int
    archived: int
    lacking: list[Range]
    under_way: list[Range]
    dead: list[Range]
    doubled: list[Range]

    @property
    def is_wrong(self) -> bool:
        """True if something lacks that is not on its way, or is there twice."""
        return bool(self.lacking or self.doubled)

    @property
    def complete(self) -> bool:
        """True if every reading is there once, and none is still on its way."""
        return not self.is_wrong and not self.under_way


@dataclass(frozen=True)
class RunReport:
    """Report on a run, up to number ``accepted``; ``by_spool`` if its reader says that."""

    hash: str
    known: Known
    accepted: int
    by_spool: bool
    stores: dict[str, StoreReport]
    differing: list[Range] = field(default_factory=list)

    @property
    def is_wrong(self) -> bool:
        """True if something lacks, is there twice or differs."""
        return bool(self.differing) or any(store.is_wrong for store in self.stores.values())

    @property
    def complete(self) -> bool:
        """True if every store has every reading once, and all say the same."""
        return not self.differing and all(store.complete for store in self.stores.values())


def report(
    hash_: str,
    known: Known,
    accepted: Accepted | None,
    holdings: Mapping[str, Holding],
    dead: Mapping[str, Sequence[Range]],
) -> RunReport:
    """Compare what stores hold of a run, by their names, with what was accepted.

    A number that a store has only as a dead letter is not lacking, nor is one that the spool has.
    """
    highest = max((holding.last for holding in holdings.values()), default=0)
    last = max(highest, accepted.seq if accepted else 0)
    under_way = accepted.under_way if accepted else []
    stores = {}
    for name, holding in holdings.items():
        present = holding.present
        missing = without([(1, last)] if last else [], present)
        buried = common(missing, list(dead.get(name, ())))
        missing = without(missing, buried)
        stores[name] = StoreReport(
            count=count(present),
            archived=count(without(holding.archived, holding.held)),
            lacking=without(missing, under_way),
            under_way=common(missing, under_way),
            dead=buried,
            doubled=holding.doubled,
        )
    return RunReport(hash_, known, last, accepted is not None, stores)


class _Identity(msgspec.Struct):
    hash: RunHash
    seq: Seq


_identity = msgspec.json.Decoder(_Identity)


def identity(payload: bytes) -> tuple[str, int] | None:
    """Return hash and number of the reading in a dead letter's payload, None if it is no such."""
    try:
        found = _identity.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.hash, found.seq


def recent(found: RunReport) -> list[Range]:
    """Return the newest numbers, of which some may have come to one store just now."""
    last = found.accepted
    return [(max(1, last - RECENT + 1), last)] if last else []
