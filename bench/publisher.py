"""From the spool to the broker's PUBACK."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Final

import system
from raven_harness.stack import Broker, Process
from results import Row, compared

ROUNDS: Final = 5
MESSAGES: Final = 20_000
WINDOW: Final = 100
AIM: Final = 0.9

TEXT: Final = f"""\
## Publisher: from the spool to PUBACK

A spool of {MESSAGES:,} readings, accepted through `Spool.accept`, is emptied by our `Publisher`
and `SpoolOutbox` in a process of their own, from the first entry taken to the last one taken
from the file; median of {ROUNDS} rounds.
Beside it *bare paho*: a process that publishes the same payloads to the same topics from memory
with QoS 1 and the same window ({WINDOW}), from the first publish to the last PUBACK.
A third process subscribes, because a broker without one answers reason 16 and nothing would be
removed; each PUBACK is checked to have reason 0.
Nothing of the serial line is part of this.
"""


def run() -> list[Row]:
    """Measure and return the row."""
    rates: dict[str, list[float]] = defaultdict(list)
    with system.folder() as folder:
        broker = system.broker(folder)
        listener = Process(
            "listener",
            system.client_command("listen", broker.url("watcher"), system.READINGS),
            folder,
        )
        full = folder / "full.sqlite"
        system.filled_spool(full, MESSAGES, seed=1)
        with system.started(broker, listener):
            _wait_for_listener(folder, broker)
            for number in range(ROUNDS):
                roles = ["publisher", "load"]
                for role in roles if number % 2 else reversed(roles):
                    rates[role].append(_rate(role, broker, full, folder / "spool.sqlite"))
    what = "publisher, spool to PUBACK, readings/s"
    return [compared(what, rates["publisher"], "bare paho from memory", rates["load"], AIM)]


def _rate(role: str, broker: Broker, full: Path, spool: Path) -> float:
    shutil.copy(full, spool)
    found = system.client(role, broker.url(system.NODE), spool, WINDOW)
    if found["taken"] != MESSAGES:
        raise RuntimeError(f"{role}: {found['taken']} of {MESSAGES} readings were taken")
    return MESSAGES / float(found["seconds"])


def _wait_for_listener(folder: Path, broker: Broker) -> None:
    probe = folder / "probe.sqlite"
    system.filled_spool(probe, 1, seed=1)
    system.wait_until(
        lambda: bool(system.client("load", broker.url(system.NODE), probe, 1)["taken"]),
        "somebody listens",
    )
