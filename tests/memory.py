"""A store in memory, which nothing in the services knows: what every store has to do, in brief."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from ravenbus.messages import DeadLetter, Item, Reading, Run
from ravenbus.ranges import Range, common, merged
from ravenbus.readback import Choice, Holding, Known, place_of, time_of
from ravenbus.storing import Stored


class Memory:
    """Sink and store in one."""

    name = "memory"
    service = "rememberer"

    def __init__(self) -> None:
        self.items: dict[str, dict[int, Reading]] = {}
        self._runs: dict[str, Run] = {}
        self._letters: dict[str, DeadLetter] = {}

    def prepare(self) -> None:
        pass

    def store(self, items: Sequence[Item]) -> Stored:
        new = 0
        for item in items:
            match item:
                case Reading(envelope):
                    of_run = self.items.setdefault(envelope.hash, {})
                    new += envelope.seq not in of_run
                    of_run.setdefault(envelope.seq, item)
                case Run():
                    new += item.hash not in self._runs
                    self._runs.setdefault(item.hash, item)
                case DeadLetter():
                    new += item.id not in self._letters
                    self._letters.setdefault(item.id, item)
        return Stored(new, len(items) - new)

    def forget_letters(self, before: datetime) -> int:
        old = [id_ for id_, letter in self._letters.items() if letter.at < before]
        for id_ in old:
            del self._letters[id_]
        return len(old)

    def runs(self) -> dict[str, Known]:
        found = {}
        for hash_, readings in self.items.items():
            envelope = next(iter(readings.values())).envelope
            found[hash_] = Known(envelope.run, envelope.node)
        return found

    def passes_over(self, _hash: str) -> bool:
        return False

    def holding(self, hash_: str) -> Holding:
        return Holding(merged((seq, seq) for seq in self.items.get(hash_, ())), [], [])

    def having(self, hash_: str, wanted: Sequence[Range]) -> list[Range]:
        return common(wanted, self.holding(hash_).held)

    def readings(self, hash_: str, seqs: Sequence[int]) -> Iterator[tuple[int, Reading | None]]:
        of_run = self.items.get(hash_, {})
        return ((seq, of_run[seq]) for seq in seqs if seq in of_run)

    def between(
        self, kind: str, meter: str | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        every = self.span([kind], None, start, end)
        return (one for one in every if one.notification.meter == meter)

    def span(
        self, kinds: Collection[str], nodes: Collection[str] | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        found = [one for of_run in self.items.values() for one in of_run.values()]
        found = [one for one in found if one.kind in kinds and (not nodes or one.node in nodes)]
        found = [one for one in found if start <= time_of(one) < end]
        return iter(sorted(found, key=place_of))

    def as_stored(self, reading: Reading) -> Reading:
        return reading

    def run(self, hash_: str) -> Run | None:
        return self._runs.get(hash_)

    def letters(self, choice: Choice) -> Iterator[DeadLetter]:
        for letter in sorted(self._letters.values(), key=lambda one: one.at):
            wanted = choice.reason in (None, letter.reason)
            wanted = wanted and choice.service in (None, letter.service)
            if wanted and not (choice.since and letter.at < choice.since):
                yield letter

    def letters_called(self, prefix: str) -> list[DeadLetter]:
        return [letter for id_, letter in self._letters.items() if id_.startswith(prefix)]

    def remove(self, letter_id: str) -> None:
        del self._letters[letter_id]

    def close(self) -> None:
        pass
