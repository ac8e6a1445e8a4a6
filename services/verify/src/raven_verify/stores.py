"""What is asked of a store, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple, Protocol

import msgspec

from raven_verify.inventory import Holding, Known
from ravenbus.messages import DeadLetter, Reading, Run, RunHash, Seq
from ravenbus.ranges import Range

AT_ONCE: Final = 500
"""Most readings, or numbers with gaps between them, that are asked for at once."""


class Choice(NamedTuple):
    """Which dead letters are meant; what is None chooses all."""

    reason: str | None = None
    service: str | None = None
    since: datetime | None = None


class Store(Protocol):
    """A store; every call raises RetryableError when it cannot be reached.

    ``service`` is who stores and buries there, ``setting`` the variable with its URL.
    """

    name: str
    service: str
    setting: str

    def runs(self) -> dict[str, Known]:
        """Return the runs of which there are readings, by hash."""

    def passes_over(self, hash_: str) -> bool:
        """Say whether a run's readings do not belong in this store."""

    def holding(self, hash_: str) -> Holding:
        """Return which numbers of a run are there, and which are there more than once."""

    def having(self, hash_: str, wanted: Sequence[Range]) -> list[Range]:
        """Return those of the numbers that are there."""

    def readings(self, hash_: str, seqs: Sequence[int]) -> Iterator[tuple[int, Reading | None]]:
        """Yield what can be read of at most AT_ONCE numbers; None for what is no reading."""

    def run(self, hash_: str) -> Run | None:
        """Return what is known of a run."""

    def letters(self, choice: Choice) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first."""

    def letters_called(self, prefix: str) -> list[DeadLetter]:
        """Return the dead letters whose id begins so."""

    def remove(self, letter_id: str) -> None:
        """Remove a dead letter."""

    def close(self) -> None:
        """Give back what the store holds."""


def chunks(ranges: Sequence[Range]) -> Iterator[list[int]]:
    """Yield the numbers of ranges, AT_ONCE at a time."""
    numbers = (number for first, last in ranges for number in range(first, last + 1))
    while chunk := list(islice(numbers, AT_ONCE)):
        yield chunk


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
