"""The channels of the bus: which message goes to which topics, who sends it and who receives it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from ravenbus.errors import ContractError
from ravenbus.messages import (
    Command,
    Confirmation,
    DeadLetter,
    Gone,
    Raw,
    Reading,
    Reply,
    Run,
    Status,
    decode,
    decode_reading,
)

READER: Final = "reader"
STORE: Final = "store"
RELAY: Final = "sql-relay"
VERIFY: Final = "raven-verify"
IMPORT: Final = "raven-import"
DASHBOARD: Final = "dashboard"

M = TypeVar("M")


@dataclass(frozen=True, eq=False)
class Channel(Generic[M]):
    """Topics of one form: what goes there, from which of our services and to which.

    ``address`` has the prefix and the names in braces.  A message has a field of each of these
    names, unless it says nothing of it, and says there what the topic says.
    """

    name: str
    address: str
    message: type[M]
    about: str
    senders: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    retained: bool = False
    qos: int = 1


READING: Final = Channel(
    "reading",
    "{prefix}/v1/{node}/reading/{kind}",
    Reading,
    "Every reading, at least once: the event stream that stores consume.",
    senders=(READER, RELAY, VERIFY, IMPORT),
    receivers=(STORE,),
)
LATEST: Final = Channel(
    "latest",
    "{prefix}/v1/{node}/latest/{kind}",
    Reading,
    "The last reading of a kind, for people and dashboards; `heard` says when it was said last.",
    senders=(READER,),
    receivers=(DASHBOARD,),
    retained=True,
)
RUN: Final = Channel(
    "run",
    "{prefix}/v1/{node}/run",
    Run,
    "The run under way; only what the reader sends is retained.",
    senders=(READER, RELAY, VERIFY, IMPORT),
    receivers=(STORE, DASHBOARD),
    retained=True,
)
STATUS: Final = Channel(
    "status",
    "{prefix}/v1/{node}/status",
    Status,
    "State of the reader and its stick; the reader's will says that it is offline.",
    senders=(READER,),
    receivers=(DASHBOARD,),
    retained=True,
)
COMMAND: Final = Channel(
    "command",
    "{prefix}/v1/{node}/command",
    Command,
    "Requests to the device; those that change it are refused unless RAVEN_ALLOW_SETTERS.",
    receivers=(READER,),
)
REPLY: Final = Channel(
    "reply",
    "{prefix}/v1/{node}/reply",
    Reply,
    "What became of each command.",
    senders=(READER,),
)
RAW: Final = Channel(
    "raw",
    "{prefix}/v1/{node}/raw",
    Raw,
    "Whole fragments as the device sent them; only with RAVEN_PUBLISH_RAW.",
    senders=(READER,),
)
REJECTED: Final = Channel(
    "rejected",
    "{prefix}/v1/{node}/dead",
    DeadLetter,
    "What a reader could not accept.",
    senders=(READER,),
    receivers=(STORE,),
)
DEAD: Final = Channel(
    "dead",
    "{prefix}/v1/dead/{service}",
    DeadLetter,
    "What a store could not store, and what readers before 1.1 could not accept.",
    senders=(STORE,),
    receivers=(STORE, VERIFY, IMPORT),
)
STORED: Final = Channel(
    "stored",
    "{prefix}/v1/{node}/stored/{store}",
    Confirmation,
    "What a store has of a node's, sent with QoS 0; who sent it forgets it then.",
    senders=(STORE,),
    receivers=(READER, RELAY, DASHBOARD),
    qos=0,
)
GONE: Final = Channel(
    "gone",
    "{prefix}/v1/gone/{store}",
    Gone,
    "That a store is gone for good, until it starts again.",
    senders=(VERIFY, STORE),
    receivers=(READER, RELAY, DASHBOARD),
    retained=True,
)
HOMEASSISTANT_DISCOVERY: Final = Channel(
    "homeassistantDiscovery",
    "{homeassistant}/device/{node}/config",
    dict,
    "Home Assistant's device discovery; in Home Assistant's format.",
    senders=(READER,),
    retained=True,
)
HOMEASSISTANT_STATUS: Final = Channel(
    "homeassistantStatus",
    "homeassistant/status",
    str,
    "Sent by Home Assistant: after its start it is told of the device again.",
    receivers=(READER,),
)

CHANNELS: Final[tuple[Channel[Any], ...]] = (
    *(READING, LATEST, RUN, STATUS, COMMAND, REPLY, RAW, REJECTED, DEAD, STORED, GONE),
    *(HOMEASSISTANT_DISCOVERY, HOMEASSISTANT_STATUS),
)
"""Every channel, readings first."""


@dataclass(frozen=True)
class Topics:
    """The topics under ``prefix``, as in ``raven/v1/<node>/reading/<kind>``.

    ``homeassistant`` is the prefix of Home Assistant's discovery.
    """

    prefix: str = "raven"
    homeassistant: str = "homeassistant"

    def of(self, channel: Channel[Any], **names: str) -> str:
        """Return a channel's topic of these names; ``+`` for a name is every one."""
        return channel.address.format(prefix=self.prefix, homeassistant=self.homeassistant, **names)

    def stored(self) -> list[str]:
        """Return the subscriptions of a store: readings, runs, and the readers' dead letters."""
        return [*self._shareable(), self.of(RUN, node="+")]

    def shared(self, group: str) -> list[str]:
        """Return the subscriptions of a store whose group shares the readings and dead letters.

        Runs are retained, which a shared subscription does not bring: every member gets them all.
        """
        shared = [f"$share/{group}/{topic}" for topic in self._shareable()]
        return [*shared, self.of(RUN, node="+")]

    def _shareable(self) -> list[str]:
        readings = self.of(READING, node="+", kind="+")
        return [readings, self.of(REJECTED, node="+"), self.of(DEAD, service="reader")]

    def channel(self, topic: str) -> Channel[Any]:
        """Return the channel of a topic; raise ContractError if it is none of the contract's."""
        for channel, pattern in _patterns(self).items():
            if pattern.fullmatch(topic):
                return channel
        raise ContractError("not-contract", f"{topic!r} is no topic of {self.prefix}/v1")

    def names(self, channel: Channel[Any], topic: str) -> dict[str, str]:
        """Return the names in a topic of a channel; raise ContractError if it is another's."""
        if match := _patterns(self)[channel].fullmatch(topic):
            return match.groupdict()
        raise ContractError("not-contract", f"{topic!r} is not {self.of(channel, **_SHOWN)}")

    def read(self, channel: Channel[M], topic: str, payload: bytes) -> M:
        """Return what a message on a channel says.

        Raise ContractError if it says nothing, or if its topic says otherwise.
        """
        is_reading = channel.message is Reading
        found: Any = decode_reading(payload) if is_reading else decode(payload, channel.message)
        for name, addressed in self.names(channel, topic).items():
            said = getattr(found, name, addressed)
            if said != addressed:
                detail = f"{name} {said!r} on the topic of {addressed!r}"
                raise ContractError("not-contract", detail)
        message: M = found
        return message


_SHOWN: Final = {name: f"<{name}>" for name in ("node", "kind", "service", "store")}


@lru_cache
def _patterns(topics: Topics) -> dict[Channel[Any], re.Pattern[str]]:
    """Return what the topics of each channel look like, those first that name no node."""

    def pattern(address: str) -> str:
        for name in ("prefix", "homeassistant"):
            address = address.replace(f"{{{name}}}", re.escape(getattr(topics, name)))
        return re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", address)

    return {
        channel: re.compile(pattern(channel.address))
        for channel in sorted(CHANNELS, key=lambda channel: "{node}" in channel.address)
    }
