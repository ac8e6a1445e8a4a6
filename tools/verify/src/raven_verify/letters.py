"""Replays dead letters: sends the original again, and removes a letter when its store has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ravenbus.errors import PoisonError
from ravenbus.messages import DeadLetter, Item
from ravenbus.readback import Store, has
from ravenbus.storing import read
from ravenbus.topics import Topics
from raventools.bus import Buried, Bus, Publication

STORED_S: Final = 30.0
LOOK_EVERY_S: Final = 0.3
READER: Final = "reader"


class Letter(NamedTuple):
    """A dead letter and the store that has it."""

    store: Store
    letter: DeadLetter


class Outcome(NamedTuple):
    """Outcome for a letter: removed because the store has its message now, or why not."""

    letter: Letter
    stored: bool
    detail: str


def obstacle(letter: DeadLetter, topics: Topics) -> str | None:
    """Say why a letter cannot be replayed as things are, None if it can."""
    if letter.service == READER:
        return "it came from the serial line, not over the bus: `raven-reader replay` takes it in"
    if letter.topic is None:
        return "it is a row, not a message: mend the row that `detail` names and set its `relayed` to NULL"
    if letter.size > len(letter.payload):
        return f"only {len(letter.payload)} of its {letter.size} bytes were kept"
    try:
        read(topics, letter.topic, letter.payload)
    except PoisonError as error:
        return f"it is still refused by this version: {error}"
    return None


class Replay:
    """Replays over a bus; raises RetryableError if a store or the broker is away."""

    def __init__(
        self, bus: Bus, topics: Topics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._clock = clock

    def replay(self, letters: Sequence[Letter]) -> list[Outcome]:
        """Return what became of some letters; each that is not stored stays where it is.

        A letter may not go as soon as the broker has its message: the store that buries it again
        finds it there, passes over it, and then it would be nowhere.
        """
        outcomes: list[Outcome] = []
        waiting: dict[Letter, Item] = {}
        messages: dict[Publication, None] = {}
        for one in letters:
            topic, payload = one.letter.topic, one.letter.payload
            if (why := obstacle(one.letter, self._topics)) or topic is None:
                outcomes.append(Outcome(one, stored=False, detail=why or ""))
                continue
            waiting[one] = read(self._topics, topic, payload)
            messages[Publication(topic, payload)] = None
            # What was heard of an earlier try says nothing of this one.
            self._bus.buried.pop(Buried(one.store.service, one.letter.id), None)
        self._bus.send(messages)
        end = self._clock() + STORED_S
        while waiting:
            for one, item in list(waiting.items()):
                if has(one.store, item):
                    one.store.remove(one.letter.id)
                    outcomes.append(Outcome(one, stored=True, detail="stored"))
                    del waiting[one]
                elif again := self._bus.buried.get(Buried(one.store.service, one.letter.id)):
                    detail = f"buried again: {again.reason}: {again.detail}"
                    outcomes.append(Outcome(one, stored=False, detail=detail))
                    del waiting[one]
            if self._clock() > end:
                break
            if waiting:
                self._bus.listen(LOOK_EVERY_S)
        late = f"sent, and not stored after {STORED_S:.0f} s: "
        return outcomes + [
            Outcome(one, stored=False, detail=f"{late}is {one.store.service} running?")
            for one in waiting
        ]
