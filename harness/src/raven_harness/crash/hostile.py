"""One hostile home: an account of its own, and all that it can try with it."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from ravenbus.errors import BrokerAwayError
from ravenbus.messages import (
    Confirmation,
    DeadLetter,
    Envelope,
    Reading,
    dead_letter_id,
    encode,
    now,
)
from ravenbus.mqtt import Broker
from ravenbus.notifications import InstantaneousDemand
from ravenbus.settings import MqttUrl
from ravenbus.topics import (
    COMMAND,
    DEAD,
    HOMEASSISTANT_DISCOVERY,
    LATEST,
    READING,
    REJECTED,
    RUN,
    STORED,
    Topics,
)

ACCOUNT: Final = "hostile"
STORES: Final = ("raven-mongo-recorder", "raven-sql-writer")
LARGE: Final = b"x" * 60_000
"""Nearly what the broker takes."""
AGAIN_S: Final = 0.5
_TOPICS: Final = Topics()


def attack(url: str, victim: str, run: str, for_s: float, wait: Callable[[float], object]) -> None:
    """Do for some time what harms others, over one connection after another.

    ``run`` is the hash of the victim's run, which a home cannot know; ``url`` has the account.
    """
    names = itertools.cycle(
        [*STORES, *(f"{STORES[0]}-{number}" for number in (2, 3)), f"raven-reader-{victim}", ""]
    )
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        with suppress(BrokerAwayError):
            _once(MqttUrl(url), next(names), victim, run)
        wait(AGAIN_S)


def _once(url: MqttUrl, name: str, victim: str, run: str) -> None:
    """Take a client id, one that others have or a new one whose session stays, and send."""
    client = Broker(url, name or uuid.uuid4().hex, session_expiry_s=3600, secret=False)
    connection = client(SimpleQueue())
    connection.subscribe(
        [f"raven/v1/{ACCOUNT}/command", f"raven/v1/{ACCOUNT}/stored/+", f"raven/v1/{victim}/#"]
    )
    for topic, payload, retain in _messages(victim, run):
        connection.publish(topic, payload, retain=retain)
    connection.close()


def _messages(victim: str, run: str) -> Iterator[tuple[str, bytes, bool]]:
    """Yield topic, payload and whether to retain it."""
    kind = "instantaneous_demand"
    # In another's name: readings, what is last, what is confirmed, who is away, what is shown.
    forged = encode(_reading(victim, run, 1))
    confirmed = encode(
        Confirmation(node=victim, store=STORES[1], runs={run: [(1, 2**40)]} if run else {})
    )
    yield _TOPICS.of(READING, node=victim, kind=kind), forged, False
    yield _TOPICS.of(LATEST, node=victim, kind=kind), b"", True
    yield _TOPICS.of(RUN, node=victim), b"", True
    for store in STORES:
        yield _TOPICS.of(STORED, node=victim, store=store), confirmed, False
    yield _TOPICS.of(HOMEASSISTANT_DISCOVERY, node=victim), b"", True
    yield _TOPICS.of(COMMAND, node=victim), b'{"name":"factory_reset"}', False
    # Letters that a replay might believe.
    for topic in (_TOPICS.of(REJECTED, node=ACCOUNT), _TOPICS.of(DEAD, service="reader")):
        yield topic, encode(_letter(victim, forged)), False
    # Without end: topics, runs, numbers, bytes.
    for leaf in ("latest", "reading"):
        yield f"raven/v1/{ACCOUNT}/{leaf}/{uuid.uuid4().hex}", LARGE, True
    yield _TOPICS.of(LATEST, node=ACCOUNT, kind=kind), LARGE, True
    yield (
        _TOPICS.of(READING, node=ACCOUNT, kind=kind),
        encode(_reading(ACCOUNT, str(uuid.uuid4()), 2**63 - 1)),
        False,
    )
    for number in range(10):
        yield _TOPICS.of(READING, node=ACCOUNT, kind=kind), b"%d" % number + LARGE, False
    yield _TOPICS.of(READING, node=ACCOUNT, kind=kind), b"[" * 50_000, False


def _reading(node: str, run: str, seq: int) -> Reading:
    envelope = Envelope(node=node, run="forged", hash=run, seq=seq, received=now())
    demand = InstantaneousDemand(
        device=None, meter=None, time=None, multiplier=1, divisor=1, demand=1, demand_kw=1.0
    )
    return Reading(envelope, demand)


def _letter(node: str, payload: bytes) -> DeadLetter:
    return DeadLetter(
        id=dead_letter_id(node, payload),
        service="reader",
        node=node,
        at=now(),
        reason="demand-too-large",
        detail="forged",
        payload=payload,
        size=len(payload),
    )
