"""What people are told of homes, stores and the broker, and when: pure.

A trouble is told once when it has lasted, and once when it has been over for as long: a restart,
an upgrade or a stick that is plugged out and in tells nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from itertools import islice
from textwrap import shorten
from typing import Final, NamedTuple

from raven_dashboard import words
from raven_dashboard.feed import Home

BROKER: Final = "broker"
SHOWN_MAX: Final = 20
"""Lines of a message, and names in one of them; beyond that they are counted."""
LINE_MAX: Final = 500
PAGE: Final = "docs/monitoring.md#without-prometheus"
_TO_DO: Final = {
    "broker": "Start the broker, or see in its log why it ended; each part keeps what it has.",
    "reader": "Look at its machine, its power and its network.",
    "stick": "Plug the stick out and in.",
    "store": "Look at its log: the database is away, full or slow.  Nothing is lost meanwhile.",
}


class Link(NamedTuple):
    """How a home, a store or the broker is, and what is to be done if it is not well.

    ``is_well`` is None where nobody said how it is.
    """

    is_well: bool | None
    text: str
    to_do: str = ""


class Notice(NamedTuple):
    """Something to tell: how a link is, and since when; ``began`` if it is the end of a trouble."""

    key: str
    link: Link
    since: datetime
    began: datetime | None = None


class Message(NamedTuple):
    """A message to people."""

    title: str
    body: str


def links(homes: Iterable[Home], away_since: datetime | None, now: datetime) -> dict[str, Link]:
    """Return all that is watched: each home, each store, and the broker.

    While that is away nothing is known of the others.  Nothing is of a home whose reader never spoke
    here, as where its readings came by a relay or an import.
    """
    broker = words.broker(away_since, now)
    found = {BROKER: _link(broker, "broker")}
    if away_since:
        return found
    stores: dict[str, list[tuple[str, words.Part]]] = defaultdict(list)
    for home in homes:
        stick, reader, *those = words.chain(home, now)
        # What is wrong with the reader is why nothing is heard of its stick.
        worse = (reader, "reader") if reader.state != "ok" else (stick, "stick")
        link = _link(*worse) if home.status else Link(None, reader.text)
        found[f"home {home.node}"] = link._replace(text=f"{home.node}: {_one_line(link.text)}")
        for part in those:
            stores[part.name].append((home.node, part))
    for name, parts in sorted(stores.items()):
        found[f"store {name}"] = _of_store(name, parts)
    return found


class Watch:
    """The troubles that people know of; ``told`` has when each of them began."""

    def __init__(self, after: timedelta, told: Mapping[str, datetime]) -> None:
        self.told = dict(told)
        self._after = after
        self._turned: dict[str, datetime] = {}
        """Since when a link is otherwise than people know."""

    def turn(self, found: Mapping[str, Link], now: datetime) -> list[Notice]:
        """Return what is to be told by now, each time until it is ``said``."""
        self._turned = {key: at for key, at in self._turned.items() if key in found}
        if found[BROKER].is_well:
            self.told = {key: began for key, began in self.told.items() if key in found}
        notices = []
        for key, link in found.items():
            began = self.told.get(key)
            if link.is_well in (None, began is None):
                self._turned.pop(key, None)
                continue
            since = self._turned.setdefault(key, now)
            if now - since >= self._after:
                notices.append(Notice(key, link, since, began))
        return notices

    def said(self, notices: Iterable[Notice]) -> None:
        """Hear that people were told."""
        for notice in notices:
            del self._turned[notice.key]
            if notice.link.is_well:
                del self.told[notice.key]
            else:
                self.told[notice.key] = notice.since


def message(notices: Sequence[Notice], zone: tzinfo) -> Message:
    """Return one message of all that is to be told, the troubles first."""
    wrong = [one for one in notices if not one.link.is_well]
    over = [one for one in notices if one.link.is_well]
    counted = [f"{len(wrong)} to see to"] * bool(wrong) + [f"{len(over)} over"] * bool(over)
    lines = [f"{one.link.text}  {one.link.to_do}" for one in wrong[:SHOWN_MAX]]
    lines += _more(wrong)
    for one in over[:SHOWN_MAX]:
        began = (one.began or one.since).astimezone(zone)
        since = one.since.astimezone(zone)
        lines.append(
            f"Over: {one.link.text}  The trouble lasted from {began:{_AT}} to {since:{_AT}}."
        )
    lines += _more(over)
    if wrong:
        lines.append(f"{PAGE} says more of what to do.")
    return Message(f"python-raven: {', '.join(counted)}", "\n\n".join(lines))


TRIAL: Final = Message(
    "python-raven: a trial",
    "This is what a message looks like.\n\n"
    "You are told once of each home that is silent, each store that is behind and a broker that "
    "is away, and once when that is over.",
)

_AT: Final = "%Y-%m-%d %H:%M %Z"


def _link(part: words.Part, kind: str) -> Link:
    return Link(part.state == "ok", part.text, _TO_DO[kind])


def _one_line(text: str) -> str:
    """Return what a home says of itself as a line that cannot be taken for several."""
    return shorten(text, LINE_MAX, placeholder=" …")


def _of_store(name: str, parts: Sequence[tuple[str, words.Part]]) -> Link:
    behind = {node: part for node, part in parts if part.state != "ok"}
    if not behind:
        return Link(True, f"{name} has every reading, or is about to.")
    nodes = ", ".join(islice(behind, SHOWN_MAX))
    if len(behind) > SHOWN_MAX:
        nodes += f" and {len(behind) - SHOWN_MAX} more homes"
    lacking = sum(part.waiting for part in behind.values())
    readings = "reading" if lacking == 1 else "readings"
    return Link(
        False, f"{name} is behind: it lacks {lacking} {readings} of {nodes}.", _TO_DO["store"]
    )


def _more(notices: Sequence[Notice]) -> list[str]:
    left = len(notices) - SHOWN_MAX
    return [f"And {left} more like these."] if left > 0 else []
