"""How a home and its chain to the stores are, in words: pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from raven_dashboard.feed import Home
from ravenbus.messages import Status

Level = Literal["ok", "warning", "alarm"]
RANK: Final[dict[Level, int]] = {"alarm": 0, "warning": 1, "ok": 2}
BEHIND_AFTER: Final = timedelta(seconds=60)
"""A store is behind when it has not had all for so long: it stores in batches."""
QUIET_AFTER: Final = timedelta(minutes=5)

_CLOCKS: Final = {
    "unset": "The stick's clock is not set: readings go by the reader's clock.",
    "off": "The stick's clock is off by {ahead}: readings go by the reader's clock.",
    "host-behind": "The clock of the reader's machine is behind: readings go by the stick's.",
}


class State(NamedTuple):
    """A sentence about a part, and how bad that is."""

    level: Level
    text: str


class Part(NamedTuple):
    """A link of the chain from a stick to a store."""

    name: str
    state: Level
    text: str
    waiting: int = 0
    since: datetime | None = None


def states(home: Home, now: datetime) -> list[State]:
    """Return what is wrong with a home, worst first."""
    found = [State(part.state, part.text) for part in chain(home, now) if part.state != "ok"]
    if home.status and home.status.clock in _CLOCKS:
        ahead = duration(timedelta(seconds=abs(home.status.clock_ahead_s or 0)))
        found.append(State("warning", _CLOCKS[home.status.clock].format(ahead=ahead)))
    return sorted(found, key=lambda state: RANK[state.level])


def chain(home: Home, now: datetime) -> Iterator[Part]:
    """Yield the links from a home's stick to the stores that confirm its readings."""
    yield _stick(home, home.status, now)
    yield _reader(home.status, now)
    for store, progress in sorted(home.stores.items()):
        waiting = home.behind(store)
        since = progress.caught_up
        if waiting and now - since > BEHIND_AFTER:
            behind = f"{waiting} {_plural('reading', waiting)} behind"
            text = f"{store} has been {behind} for {duration(now - since)}."
            yield Part(store, "warning", text, waiting, since)
        elif waiting:
            text = f"{store} has all but {waiting}, on the way."
            yield Part(store, "ok", text, waiting, since)
        else:
            yield Part(store, "ok", f"{store} has every reading.", waiting, since)


def broker(away_since: datetime | None, now: datetime) -> Part:
    """Return how the broker is that the dashboard hears."""
    if away_since is None:
        return Part("broker", "ok", "The broker is at work.")
    text = f"The broker has been away for {duration(now - away_since)}."
    return Part("broker", "alarm", text, 0, away_since)


def _stick(home: Home, status: Status | None, now: datetime) -> Part:
    if status is None:
        return Part("stick", "warning", "Nothing was heard of the stick yet.")
    ago, heard = duration(now - status.since), home.heard
    match status.device:
        case "silent":
            return Part("stick", "alarm", f"The stick has been silent for {ago}.", 0, status.since)
        case "disconnected":
            why = f": {status.detail}" if status.detail else ""
            text = f"The stick has been away for {ago}{why}."
            return Part("stick", "alarm", text, 0, status.since)
    if heard and now - heard > QUIET_AFTER:
        text = f"The last reading came {duration(now - heard)} ago."
        return Part("stick", "warning", text, 0, heard)
    return Part("stick", "ok", "The stick is heard.", 0, status.since)


def _reader(status: Status | None, now: datetime) -> Part:
    if status is None:
        return Part("reader", "warning", "Nothing was heard of the reader yet.")
    if status.service == "offline":
        text = f"The reader has been away for {duration(now - status.since)}."
        return Part("reader", "alarm", text, 0, status.since)
    return Part("reader", "ok", "The reader is at work.", 0, status.since)


def duration(span: timedelta) -> str:
    """Return a span of time in its largest unit, as in ``4 minutes``."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{seconds // size} {_plural(unit, seconds // size)}"
    return f"{seconds} {_plural('second', seconds)}"


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"
