"""How each home is, and how far the stores are behind it."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any, Final

from raven_verify.inventory import identity
from ravenbus.errors import BrokerAwayError, ContractError, RetryableError
from ravenbus.messages import DeadLetter, Envelope, Reading, Run, Status
from ravenbus.mqtt import Connect, Connection, Events, Lost, Received
from ravenbus.ranges import Range, count, merged, without
from ravenbus.readback import Choice, Store
from ravenbus.topics import LATEST, RUN, STATUS, Topics

HEARD: Final = (STATUS, RUN, LATEST)
QUIET_S: Final = 1.0
"""What the broker retains has come when nothing of it has come for so long."""
UNDER_WAY_S: Final = 5.0
"""A reading may take so long to a store before the store is behind."""
LATELY: Final = 10_000
"""Readings of a run that are looked for in a store: about a day's."""
QUIET_AFTER: Final = timedelta(minutes=10)
BURIED_SINCE: Final = timedelta(days=1)


@dataclass
class Home:
    """What a node has said of itself."""

    node: str
    status: Status | None = None
    run: str | None = None
    last_seqs: dict[str, int] = field(default_factory=dict)
    """The highest number of each run: what is retained of a kind may be of an earlier one."""
    newest: Envelope | None = None
    behind: dict[str, int | None] = field(default_factory=dict)
    """Of the last readings, those that a store lacks, by store; None for one that is away."""
    buried: int = 0

    def take(self, message: Reading | Status | Run) -> None:
        """Note what a message says."""
        match message:
            case Reading(envelope):
                last_seq = self.last_seqs.get(envelope.hash, 0)
                self.last_seqs[envelope.hash] = max(last_seq, envelope.seq)
                if not self.heard or envelope.received > self.heard:
                    self.newest = envelope
            case Status():
                self.status = message
            case Run():
                self.run = message.hash

    @property
    def heard(self) -> datetime | None:
        """When it said a reading last, by its own clock."""
        return self.newest.received if self.newest else None

    def said(self) -> tuple[str, int]:
        """Return the run under way and the highest number that was heard of it, 0 for none."""
        run = self.run or (self.newest.hash if self.newest else "")
        return run, self.last_seqs.get(run, 0)

    def stick(self, now: datetime) -> str:
        """Return how the home's stick is, in a word or two; ``connected`` if it is well."""
        if self.status is None:
            return "unknown"
        if self.status.service == "offline":
            return "reader away"
        if self.status.device == "connected" and self.is_quiet(now):
            return "silent"
        return self.status.device

    def is_quiet(self, now: datetime) -> bool:
        """Say whether nothing was heard for too long."""
        return self.heard is None or now - self.heard > QUIET_AFTER

    def is_well(self, now: datetime) -> bool:
        """Say whether there is nothing to see to."""
        stored = all(behind == 0 for behind in self.behind.values())
        return stored and self.stick(now) == "connected"


def look(connect: Connect, topics: Topics, stores: Sequence[Store]) -> list[Home]:
    """Return every home that the broker knows, by name; raise BrokerAwayError."""
    homes: dict[str, Home] = {}
    events: Events = SimpleQueue()
    with closing(connect(events)) as connection:
        connection.subscribe([topics.of(one, node="+", kind="+") for one in HEARD])
        connection.settle()
        for message in _messages(topics, connection, events, QUIET_S):
            homes.setdefault(message.node, Home(message.node)).take(message)
        found = [home for _, home in sorted(homes.items())]
        _ask(found, stores, topics)
        if any(behind for home in found for behind in home.behind.values()):
            # Time for what is under way; what is said meanwhile is not looked for.
            for _ in _messages(topics, connection, events, UNDER_WAY_S):
                pass
            _ask(found, stores, topics)
    return found


def _messages(
    topics: Topics, connection: Connection, events: Events, quiet_s: float
) -> Iterator[Reading | Status | Run]:
    """Yield what comes until nothing that was retained has come for some time."""
    end = time.monotonic() + quiet_s
    while (left := end - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left)
        except Empty:
            return
        if isinstance(event, Lost):
            raise BrokerAwayError(f"the connection to the broker was lost: {event.detail}")
        if isinstance(event, Received):
            connection.acknowledge([event])
            if event.retained:
                end = time.monotonic() + quiet_s
            with suppress(ContractError):
                channel = topics.channel(event.topic)
                yield topics.read(channel, event.topic, event.payload)


def _ask(homes: Sequence[Home], stores: Sequence[Store], topics: Topics) -> None:
    """Note how far each store is behind each home, and what was buried lately."""
    since = datetime.now(UTC) - BURIED_SINCE
    lately: dict[str, set[str]] = defaultdict(set)
    for store in stores:
        try:
            buried: dict[str, list[Range]] = defaultdict(list)
            for letter in store.letters(Choice()):
                if letter.at >= since:
                    lately[_node(letter, topics)].add(letter.id)
                if of := identity(letter.payload):
                    run, seq = of
                    buried[run].append((seq, seq))
            for home in homes:
                home.behind[store.name] = _behind(home, store, buried)
        except RetryableError:
            for home in homes:
                home.behind[store.name] = None
    for home in homes:
        home.buried = len(lately[home.node])


def _node(letter: DeadLetter, topics: Topics) -> str:
    """Return whose letter it is, empty if nobody can say; what a store buried says so by its topic."""
    if letter.topic and not letter.node:
        with suppress(ContractError):
            return topics.names(topics.channel(letter.topic), letter.topic).get("node", "")
    return letter.node or ""


def _behind(home: Home, store: Store, buried: Mapping[str, list[Range]]) -> int:
    """Return how many of the last readings a store has neither stored nor buried."""
    run, last_seq = home.said()
    if not last_seq or store.passes_over(run):
        return 0
    wanted = [(max(1, last_seq - LATELY + 1), last_seq)]
    return count(without(wanted, merged([*store.having(run, wanted), *buried.get(run, ())])))


def are_well(homes: Sequence[Home], now: datetime) -> bool:
    """Say whether there are homes, and nothing to see to at any."""
    return bool(homes) and all(home.is_well(now) for home in homes)


def as_table(homes: Sequence[Home], now: datetime) -> str:
    """Return what people read, a line for each home."""
    if not homes:
        return "The broker retains nothing that a home has said."
    stores = list(homes[0].behind)
    lines = [("node", "heard", "stick", "clock", "release", *stores, "buried, 24 h")]
    for home in homes:
        status = home.status
        lines.append(
            (
                home.node,
                _ago(home.heard, now),
                home.stick(now),
                (status and status.clock) or "-",
                (status and status.version) or "-",
                *(_stored(home.behind[store]) for store in stores),
                str(home.buried),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def as_json(homes: Sequence[Home], now: datetime) -> str:
    """Return the same for scripts, one JSON object."""
    found: list[dict[str, Any]] = [
        {
            "node": home.node,
            "well": home.is_well(now),
            "heard": home.heard and home.heard.isoformat(),
            "stick": home.stick(now),
            "clock": home.status and home.status.clock,
            "release": home.status and home.status.version,
            "behind": home.behind,
            "buried": home.buried,
        }
        for home in homes
    ]
    return json.dumps({"well": are_well(homes, now), "homes": found})


def _ago(heard: datetime | None, now: datetime) -> str:
    if heard is None:
        return "never"
    seconds = max(0, int((now - heard).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _stored(behind: int | None) -> str:
    if behind is None:
        return "away"
    return f"{behind} behind" if behind else "all"
