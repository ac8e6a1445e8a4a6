"""What stands around a reader: a publisher that remembers, and a clock that is moved."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

import msgspec

from ravenbus.mqtt import Received

from .examples import NOON


def received(payload):
    return Received(1, "topic", payload)


class Clock:
    """The host's clock in UTC, standing still until it is moved."""

    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += timedelta(seconds=seconds)


class Recorder:
    """Takes what a reader gives its publisher."""

    def __init__(self):
        self.states = defaultdict(list)
        self.sent = defaultdict(list)
        self.woken = 0
        self.answers = {}

    def set_state(self, topic, payload, answered=None):
        self.states[topic].append(msgspec.json.decode(payload) if payload else None)
        self.answers[topic] = answered

    def send_once(self, topic, payload):
        self.sent[topic].append(msgspec.json.decode(payload))

    def wake(self):
        self.woken += 1


class Crowded:
    """Fills a spool's disk by taking pages away from it, and gives them back."""

    def __init__(self, spool):
        self._db = spool._db

    def __enter__(self):
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (self._limit,) = self._db.execute("PRAGMA max_page_count").fetchone()
        self._db.execute(f"PRAGMA max_page_count = {pages}")

    def __exit__(self, *_):
        self._db.execute(f"PRAGMA max_page_count = {self._limit}")
