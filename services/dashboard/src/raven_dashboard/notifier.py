"""Tells people what lasts, by e-mail or otherwise, and keeps what they were told."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

import msgspec
from tenacity import wait_random_exponential

from raven_dashboard.feed import Feed, now
from raven_dashboard.outgoing import NotifyUrls, Outgoing
from raven_dashboard.troubles import Watch, links, message
from ravenbus.errors import RetryableError
from ravenbus.retrying import Retry, retrying

log = logging.getLogger(__name__)

TURN_S: Final = 5.0
BETWEEN_S: Final = 60.0
"""Shortest time between two messages: what comes meanwhile is in the next one."""
AGAIN: Final = wait_random_exponential(multiplier=5, max=600)
"""Up to 5 s before a message is sent another time, doubling to ten minutes."""


class Told(msgspec.Struct, frozen=True):
    """What is kept over a restart: when each trouble that was told began, and each home's stores."""

    troubles: dict[str, datetime] = {}
    stores: dict[str, list[str]] = {}


class Memory:
    """The file in which it is kept; without a folder it is kept until the process ends."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder and folder / "notified.json"
        self._kept = Told()

    def read(self) -> Told:
        """Return what was kept, nothing if that cannot be read."""
        if self._file and self._file.exists():
            try:
                self._kept = msgspec.json.decode(self._file.read_bytes(), type=Told)
            except (OSError, msgspec.DecodeError) as error:
                log.warning(
                    "troubles may be told again", extra={"file": self._file, "reason": str(error)}
                )
        return self._kept

    def keep(self, told: Told) -> None:
        """Keep what has changed; raise OSError if the disk does not take it."""
        if self._file and told != self._kept:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new = self._file.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(told))
            new.replace(self._file)
        self._kept = told


class Notifier:
    """Watches what a feed hears and tells people; ``run`` is a thread's main loop."""

    def __init__(
        self,
        feed: Feed,
        urls: NotifyUrls,
        memory: Memory,
        after: timedelta,
        zone: tzinfo,
        retry: Retry,
    ) -> None:
        self._feed = feed
        self._urls = urls
        self._memory = memory
        self._zone = zone
        self._health = retry.health
        self._stop = retry.stop
        told = memory.read()
        self._watch = Watch(after, told.troubles)
        for node, stores in told.stores.items():
            feed.expect(node, stores)

    def run(self) -> None:
        """Tell people until a stop, which the end of this brings for the others too."""
        pause_s = TURN_S
        try:
            while not self._stop.wait(pause_s):
                pause_s = BETWEEN_S if self._turn() else TURN_S
        except RetryableError:
            return  # stopped while a message could not be sent
        finally:
            self._stop.set()

    def _turn(self) -> bool:
        """Say whether there was anything to tell, once it is told."""
        homes, at = list(self._feed.homes.values()), now()
        notices = self._watch.turn(links(homes, self._feed.away_since, at), at)
        if notices:
            outgoing = self._urls.outgoing(message(notices, self._zone))
            retrying(self._stop, AGAIN)(self._send, outgoing)
            self._watch.said(notices)
            log.info("people were told", extra={"of": ", ".join(one.key for one in notices)})
        self._keep(Told(self._watch.told, {home.node: sorted(home.stores) for home in homes}))
        return bool(notices)

    def _send(self, outgoing: Outgoing) -> None:
        try:
            outgoing.send()
        except RetryableError as error:
            self._health.failing("notify", str(error))
            raise
        self._health.ok("notify")

    def _keep(self, told: Told) -> None:
        try:
            self._memory.keep(told)
        except OSError as error:
            self._health.failing("notify-memory", str(error))
        else:
            self._health.ok("notify-memory")
