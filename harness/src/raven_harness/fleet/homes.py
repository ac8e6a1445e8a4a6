"""Many homes in one process: each with its device, its reader, its spool and its connection.

``python -m raven_harness.fleet.homes PLAN`` plays what the JSON file says until SIGTERM; after
SIGUSR1 the devices are silent.  A line ``<node> <number> <time>`` on standard output says how far
each home has accepted readings.
"""

from __future__ import annotations

import heapq
import logging
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from raven_harness.stack import accepted
from raven_reader.metrics import ReaderMetrics
from raven_reader.node import Node, will
from raven_reader.outbox import SpoolOutbox
from raven_reader.reader import Reader
from raven_reader.settings import ReaderSettings
from raven_reader.spool import Spool
from raven_simulator.device import Device
from raven_simulator.load import Household
from raven_simulator.models import MODELS, Setup
from raven_simulator.reports import EPOCH_UNIX_S
from raven_simulator.station import Moment
from ravenbus.health import Health
from ravenbus.messages import now
from ravenbus.mqtt import Broker
from ravenbus.publisher import Publisher
from ravenbus.topics import Topics

PERIOD_S: Final = 8.0
"""Homes are started over this time: a stick says its demand each 8 seconds."""
FILES: Final = 65536
DEVICE, METER = 0xD8D5B90000000000, 0x0013500100000000


class Plan(msgspec.Struct):
    """What a process plays: nodes with the numbers of their devices, and where they connect."""

    urls: dict[str, str]
    numbers: dict[str, int]
    ca: str
    folder: str


class Home:
    """One home; ``step`` is for the thread that plays all of them."""

    def __init__(self, node: str, number: int, plan: Plan) -> None:
        self.node = node
        self.folder = Path(plan.folder)
        state = self.folder / f"state-{node}"
        state.mkdir(exist_ok=True)
        settings = ReaderSettings.load(
            {
                "MQTT_URL": plan.urls[node],
                "MQTT_TLS_CA": plan.ca,
                "RAVEN_NODE": node,
                "RAVEN_STATE": str(state),
            }
        )
        topics, health, metrics = Topics(), Health(), ReaderMetrics()
        spool = Spool(settings.spool_file, topics, max_mb=settings.raven_spool_max_mb)
        spool.begin(node, settings.raven_run, now())
        self._outbox = SpoolOutbox(settings.spool_file, metrics=metrics, health=health)
        client_id = f"raven-reader-{node}"
        broker = Broker.of(settings, client_id=client_id, will=will(topics, node, now()))
        self._publisher = Publisher(
            broker, self._outbox, health, metrics, window=settings.raven_window
        )
        self._publisher.hear_stores(topics, spool.nodes)
        of = Node(node, settings, self._publisher, lambda _: None)
        self._reader = Reader(settings.limits, spool, of, health, metrics, self._publisher.wake)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publisher.run, args=(self._ended,))
        chance = random.Random(number)  # noqa: S311 - a load that repeats itself
        setup = Setup(
            device=DEVICE + number, meter=METER + number, delivered_wh=chance.randrange(10**7)
        )
        self._device = Device(MODELS["emu2"], setup, Household(chance), chance)
        self.due_s = chance.uniform(0, PERIOD_S)
        self._started = False

    def start(self) -> None:
        """Connect."""
        self._reader.begin()
        self._reader.opened("fleet")
        self._thread.start()

    def step(self, elapsed_s: float) -> None:
        """Have the device say what is due."""
        moment = Moment(elapsed_s, int(time.time()) - EPOCH_UNIX_S)
        said = self._device.due(moment) if self._started else self._device.start(moment)
        self._started = True
        self._reader.bytes_came(b"".join(said))
        self.due_s = self._device.due_s()
        _, number = accepted(self.folder, self.node)
        print(self.node, number, f"{time.time():.3f}")

    def stop(self) -> None:
        """Say goodbye."""
        self._reader.end()
        self._ended.set()
        self._publisher.wake()
        self._thread.join()


def main() -> int:
    """Play the homes of a plan until SIGTERM."""
    silent, stop = threading.Event(), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: silent.set())

    def end(*_: object) -> None:
        silent.set()
        stop.set()

    signal.signal(signal.SIGTERM, end)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    logging.disable(logging.INFO)
    # A line at a time: warnings go to the same file.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    homes = [Home(node, number, plan) for node, number in plan.numbers.items()]
    began = time.monotonic()
    due = [(home.due_s, number) for number, home in enumerate(homes)]
    heapq.heapify(due)
    for home in homes:
        home.start()
    while not silent.wait(max(0.0, due[0][0] - (time.monotonic() - began))):
        _, number = heapq.heappop(due)
        homes[number].step(time.monotonic() - began)
        heapq.heappush(due, (homes[number].due_s, number))
    stop.wait()
    for home in homes:
        home.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
