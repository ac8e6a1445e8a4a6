"""A reader at home."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest

from raven_reader.metrics import ReaderMetrics
from raven_reader.node import Node
from raven_reader.outbox import SpoolOutbox
from raven_reader.reader import Reader
from raven_reader.settings import ReaderSettings
from raven_reader.spool import Spool
from ravenbus.health import Health
from ravenbus.messages import DeadLetter, decode, decode_reading
from ravenbus.metrics import PublisherMetrics
from ravenbus.topics import HOMEASSISTANT_DISCOVERY, Topics

from .examples import NOON
from .fakes import Clock, Recorder

TOPICS = Topics()


class Home:
    """A reader at home with everything around it; ``restart`` is what a crash leaves."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.settings = ReaderSettings(
            **{"mqtt_url": "mqtt://broker", "raven_state": folder, **settings}
        )
        self.clock = Clock()
        self.synchronised = True
        self.outbox = SpoolOutbox(self.settings.spool_file, metrics=PublisherMetrics())
        self.asked = []
        self.spool = None
        self.restart()

    def restart(self, run="default", leaves=None):
        if self.spool:
            self.spool.close()
        self.spool = Spool(self.settings.spool_file, TOPICS, max_mb=16)
        self.spool.begin("home", run, NOON)
        self.seconds = 0.0
        self.bus = Recorder()
        self.health = Health()
        self.metrics = ReaderMetrics()
        self.node = Node(
            "home",
            self.settings,
            self.bus,
            self.asked.append,
            clock=self.clock,
            elapsed=lambda: self.seconds,
        )
        self.reader = Reader(
            self.settings.limits,
            self.spool,
            self.node,
            self.health,
            self.metrics,
            self.bus.wake,
            every_s=self.settings.raven_write_every_s,
            clock=self.clock,
            elapsed=lambda: self.seconds,
            synchronised=lambda: self.synchronised,
        )
        self.left = []
        if leaves:
            self.node.leave(leaves, lambda: self.left.append(leaves))
        self.reader.begin()
        return self

    def hear(self, *fragments):
        for each in fragments:
            self.reader.bytes_came(each)
        return self

    def close(self):
        self.spool.close()
        self.outbox.close()

    @property
    def entries(self):
        return self.outbox.entries(0, 100_000)

    @property
    def readings(self):
        return [decode_reading(e.payload) for e in self.entries if "/reading/" in e.topic]

    @property
    def letters(self):
        return [decode(e.payload, DeadLetter) for e in self.entries if e.topic.endswith("/dead")]

    def state(self, leaf):
        """Return what was retained at one of the node's topics, in order."""
        return self.bus.states[f"raven/v1/home/{leaf}"]

    def sent(self, leaf):
        """Return what was sent once to one of the node's topics, in order."""
        return self.bus.sent[f"raven/v1/home/{leaf}"]

    @property
    def descriptions(self):
        """Return what Home Assistant was told of the stick, in order."""
        return self.bus.states[TOPICS.of(HOMEASSISTANT_DISCOVERY, node="home")]

    @property
    def statuses(self):
        return [(s["service"], s["device"], s.get("port")) for s in self.state("status")]

    def counted(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def make(tmp_path):
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(closing(Home(tmp_path, **settings)))


@pytest.fixture
def home(make):
    return make()
