"""Tells people what lasts, by e-mail or otherwise, and keeps what they were told."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

import msgspec

from raven_dashboard.feed import Feed, now
from raven_dashboard.outgoing import Target
from raven_dashboard.troubles import SHOWN_MAX, Message, Watch, links, message
from ravenbus.errors import RetryableError
from ravenbus.retrying import Retry

log = logging.getLogger(__name__)

TURN_S: Final = 5.0
BETWEEN_S: Final = 60.0
"""Shortest time between two messages: what comes meanwhile is in the next one."""
AGAIN_S: Final = 5.0
LONGEST_S: Final = 600.0
"""Time before somebody who did not take a message is tried again; it doubles up to the longest."""
MISSED_MAX: Final = 100
"""Messages that are kept for somebody who did not take them, while others did."""


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


class Recipient:
    """Somebody who is told; who takes nothing for a while holds up nobody else."""

    def __init__(self, target: Target, clock: Callable[[], float]) -> None:
        self.problem: str | None = None
        """Why nothing was taken when it was tried last."""
        self._target = target
        self._clock = clock
        self._missed: deque[Message] = deque(maxlen=MISSED_MAX)
        self._again_at = self._pause_s = 0.0

    def catch_up(self) -> None:
        """Send what was missed, oldest first."""
        while self._missed and self._takes(self._missed[0]):
            self._missed.popleft()

    def told(self, new: Message) -> bool:
        """Send a message; return False if it was not taken, or what was missed comes first."""
        return not self._missed and self._takes(new)

    def miss(self, new: Message) -> None:
        """Keep a message that others were told."""
        self._missed.append(new)

    def _takes(self, one: Message) -> bool:
        if self._clock() < self._again_at:
            return False
        try:
            self._target.send(one)
        except RetryableError as error:
            self.problem = str(error)
            self._pause_s = min(max(AGAIN_S, self._pause_s * 2), LONGEST_S)
            self._again_at = self._clock() + self._pause_s
            return False
        self.problem, self._pause_s = None, 0.0
        return True


class Notifier:
    """Watches what a feed hears and tells people; ``run`` is a thread's main loop."""

    def __init__(
        self,
        feed: Feed,
        targets: Iterable[Target],
        memory: Memory,
        after: timedelta,
        zone: tzinfo,
        retry: Retry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed = feed
        self._recipients = [Recipient(one, clock) for one in targets]
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
        finally:
            self._stop.set()

    def _turn(self) -> bool:
        """Say whether anybody was told anything new."""
        for one in self._recipients:
            one.catch_up()
        homes, at = list(self._feed.homes.values()), now()
        notices = self._watch.turn(links(homes, self._feed.away_since, at), at)
        told = bool(notices) and self._tell(message(notices, self._zone))
        if told:
            self._watch.said(notices)
            of = ", ".join(one.key for one in notices[:SHOWN_MAX])
            log.info("people were told", extra={"count": len(notices), "of": of})
        if problems := [one.problem for one in self._recipients if one.problem]:
            self._health.failing("notify", "; ".join(problems))
        else:
            self._health.ok("notify")
        self._keep(Told(self._watch.told, {home.node: sorted(home.stores) for home in homes}))
        return told

    def _tell(self, new: Message) -> bool:
        """Return whether somebody was told; the others then are told later."""
        missing = [one for one in self._recipients if not one.told(new)]
        if len(missing) == len(self._recipients):
            return False
        for one in missing:
            one.miss(new)
        return True

    def _keep(self, told: Told) -> None:
        try:
            self._memory.keep(told)
        except OSError as error:
            self._health.failing("notify-memory", str(error))
        else:
            self._health.ok("notify-memory")
