"""Who is told when somebody takes nothing, by a test's clock."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from raven_dashboard import notifier as module
from raven_dashboard.feed import Feed, Home
from raven_dashboard.notifier import LONGEST_S, Memory, Notifier
from raven_dashboard.outgoing import Target
from raven_dashboard.troubles import Message
from ravenbus.errors import RetryableError
from ravenbus.health import Health
from ravenbus.messages import Status
from ravenbus.retrying import Retry
from ravenbus.topics import Topics
from tests.kinds import T0
from tests.unit.ravenbus.fakes import FakeBroker


class Way:
    """One way to tell people, which may be away."""

    def __init__(self) -> None:
        self.away = False
        self.tried = 0
        self.got: list[str] = []

    def send(self, message: Message) -> None:
        self.tried += 1
        if self.away:
            raise RetryableError("json: away")
        self.got.append(message.body.partition(":")[0])


class Hours:
    """A notifier that takes its turns as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ways: Way) -> None:
        self.seconds = 0.0
        self.health = Health()
        stop = threading.Event()
        retry = Retry(self.health, stop)
        self.feed = Feed(FakeBroker(), Topics(), retry)
        self.feed.away_since = None
        monkeypatch.setattr(module, "now", self.now)
        monkeypatch.setattr(stop, "wait", self._wait)
        self._end = 0.0
        after = timedelta(minutes=1)
        self._notifier = Notifier(
            *(self.feed, cast("list[Target]", ways), Memory(None), after, UTC, retry),
            clock=lambda: self.seconds,
        )

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    def pass_by(self, minutes: int) -> None:
        self._end = self.seconds + minutes * 60
        self._notifier.run()

    def goes_away(self, node: str) -> None:
        home = self.feed.homes.setdefault(node, Home(node))
        home.take(
            Status(node=node, service="offline", device="disconnected", since=self.now()),
            self.now(),
        )

    def _wait(self, timeout: float) -> bool:
        self.seconds += timeout
        return self.seconds > self._end


def test_who_takes_nothing_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch):
    """A webhook that is away for a day gets each message once it is back, in order; a mail at once."""
    mail, hook = Way(), Way()
    hours = Hours(monkeypatch, mail, hook)
    hook.away = True
    hours.goes_away("house")
    hours.pass_by(5)
    hours.goes_away("barn")
    hours.pass_by(24 * 60)
    assert mail.got == ["house", "barn"]
    assert hours.health.problems() == {"notify": "json: away"}
    assert hook.tried < 24 * 3600 / LONGEST_S + 20, "it is not called again and again"
    hook.away = False
    hours.pass_by(15)
    assert (mail.got, hook.got) == (["house", "barn"], ["house", "barn"])
    assert hours.health.problems() == {}


def test_while_nobody_takes_anything_what_is_over_is_not_told(monkeypatch: pytest.MonkeyPatch):
    """What goes out then is how things are then."""
    mail = Way()
    hours = Hours(monkeypatch, mail)
    mail.away = True
    hours.goes_away("house")
    hours.pass_by(60)
    hours.goes_away("barn")
    del hours.feed.homes["house"]
    hours.pass_by(60)
    mail.away = False
    hours.pass_by(15)
    assert mail.got == ["barn"]
