"""What an export says of itself: what was asked for, and which runs are complete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from ravenbus.messages import Reading, Run
from ravenbus.ranges import Range, without
from ravenbus.readback import Store


class RunNotes(msgspec.Struct, frozen=True, kw_only=True):
    """A run in an export; ``missing`` are numbers beside or between its own that the store lacks."""

    hash: str
    run: str
    node: str
    started: datetime | None
    meter: str | None
    readings: int
    first: int
    last: int
    complete: bool
    missing: list[Range]

    def announced(self) -> Run | None:
        """Return the run as it is announced on the bus, None if nothing but its name is known."""
        if self.started is None:
            return None
        return Run(
            node=self.node, run=self.run, hash=self.hash, started=self.started, meter=self.meter
        )


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """Notes on an export; ``columns`` has each column's type; ``end`` is exclusive.

    ``step`` is raw where a row is a reading, and ``empty`` counts the steps without one.
    """

    raven_export: Literal[1] = 1
    time_zone: Literal["UTC"] = "UTC"
    start: datetime
    end: datetime
    step: str
    kinds: list[str]
    nodes: list[str] | None
    columns: dict[str, str]
    rows: int
    empty: int
    complete: bool
    runs: list[RunNotes]


SUFFIX: Final = ".json"


def beside(path: Path) -> Path:
    """Return the name of the file with the notes on a file."""
    return path.with_name(path.name + SUFFIX)


def encoded(notes: Notes) -> bytes:
    """Return notes as JSON."""
    return msgspec.json.format(msgspec.json.encode(notes), indent=2) + b"\n"


def decoded(text: bytes) -> Notes:
    """Return the notes in a JSON text; raise ValueError if they are none."""
    return msgspec.json.decode(text, type=Notes)


class Tally:
    """Counts the readings of each run while they pass."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[Reading, int, int, int]] = {}

    def add(self, reading: Reading) -> None:
        """Count a reading."""
        hash_, seq = reading.envelope.hash, reading.envelope.seq
        one, count, first, last = self._runs.get(hash_, (reading, 0, seq, seq))
        self._runs[hash_] = one, count + 1, min(first, seq), max(last, seq)

    def runs(self, store: Store) -> list[RunNotes]:
        """Return what there is to say of each run, by name and node; looks into the store."""
        found = [self._run(store, *one) for one in self._runs.values()]
        return sorted(found, key=lambda run: (run.run, run.node, run.hash))

    def _run(self, store: Store, one: Reading, count: int, first: int, last: int) -> RunNotes:
        envelope = one.envelope
        missing = lacking(store.holding(envelope.hash).present, first, last)
        known = store.run(envelope.hash)
        return RunNotes(
            hash=envelope.hash,
            run=envelope.run,
            node=envelope.node,
            started=known.started if known else None,
            meter=known.meter if known else None,
            readings=count,
            first=first,
            last=last,
            complete=not missing,
            missing=missing,
        )


def lacking(present: Sequence[Range], first: int, last: int) -> list[Range]:
    """Return the ranges of numbers that are not present and touch those from first to last."""
    highest = max([last, *(end for _, end in present[-1:])])
    gaps = without([(1, highest)], present)
    return [(start, end) for start, end in gaps if start <= last + 1 and end >= first - 1]
