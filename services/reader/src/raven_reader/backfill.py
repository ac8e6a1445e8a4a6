"""Fills gaps from the meter's own memory: which intervals to ask for, when, and whose answer came.

Many meters keep what they counted in intervals (RAVEn XML API r127 p.28).  An answer does not say
which channel it is of, so one question goes out at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from raven_reader.commands import write
from raven_reader.decoding import EPOCH
from raven_reader.registers import NAMES, Baseline, baselines
from ravenbus.intervals import SHORTEST_GAP
from ravenbus.messages import now
from ravenbus.notifications import IntervalChannel, Notification, ProfileData

log = logging.getLogger(__name__)

PERIODS_MOST: Final = 12
"""The most that one question may ask for."""
PAUSE_S: Final = 15.0
"""Time between two questions: the radio is for what is measured now."""
ANSWER_S: Final = 60.0
"""An answer that took longer is not waited for."""
FAILED_FOR: Final = timedelta(minutes=10)
REFUSED_FOR: Final = timedelta(days=1)
REFUSALS: Final = (1, 2)
"""Status of a channel that the meter does not have, or does not know."""
GAPS_MAX: Final = 100
"""Older gaps of a meter that answers nothing are given up."""
CHANNELS: Final[dict[str, IntervalChannel]] = dict(
    zip(NAMES, ("delivered", "received"), strict=True)
)
"""The channel whose intervals a register is the sum of."""

Key = tuple[str | None, IntervalChannel]


class Gap(msgspec.Struct, frozen=True):
    """A span without readings; from as far back as the meter goes if ``start`` is None."""

    end: datetime
    start: datetime | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The gaps of a meter's channel, oldest first; nothing is asked before ``not_before``."""

    meter: str | None
    channel: IntervalChannel
    gaps: tuple[Gap, ...] = ()
    failures: int = 0
    not_before: datetime | None = None

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.meter, self.channel


class Backfill:
    """Finds gaps in what is accepted, and asks for their intervals from the newest to the oldest."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = now,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._wanted: dict[Key, Wanted] = {}
        self._changed: dict[Key, Wanted] = {}
        self._heard: dict[Key, datetime] = {}
        self._sent_at = float("-inf")
        self._open: list[tuple[float, IntervalChannel | None]] = []
        self._question: tuple[Key, Gap] | None = None

    def resume(self, wanted: Iterable[Wanted], registers: Iterable[Baseline]) -> None:
        """Go on from what is known from before."""
        self._wanted = {one.key: one for one in wanted}
        self._heard = {(one.meter, CHANNELS[one.name]): one.at for one in registers}

    def heard(self, notification: Notification, received: datetime) -> None:
        """Look for a gap before registers, and for what intervals fill, new or said before."""
        if isinstance(notification, ProfileData):
            self._fill(notification)
        for one in baselines(notification, notification.time or received):
            key = one.meter, CHANNELS[one.name]
            before = self._heard.get(key)
            if before is None or one.at - before >= SHORTEST_GAP:
                self._add(key, Gap(one.at, before))
            self._heard[key] = max(one.at, before or one.at)

    def command_sent(self, command: bytes) -> None:
        """Hear that a command went to the device."""
        if b"<Name>get_profile_data</Name>" in command:
            self._sent_at = self._elapsed()
            said = command.decode().lower()
            found = (one for one in CHANNELS.values() if f"<intervalchannel>{one}<" in said)
            self._open.append((self._sent_at, next(found, None)))

    def answered(self) -> IntervalChannel | None:
        """Return which channel the answer that has come is of, None if nobody can tell."""
        self._forget_late()
        if len(self._open) != 1:
            return None
        _, channel = self._open.pop()
        return channel

    def next_command(self) -> bytes | None:
        """Return the next question, if it is time for one."""
        self._forget_late()
        if self._open or self._elapsed() - self._sent_at < PAUSE_S:
            return None
        if self._question:
            self._put_off(self._wanted[self._question[0]])
        now_ = self._clock()
        for wanted in self._wanted.values():
            # A clock that was set back must not put it off for longer.
            wait = wanted.not_before - now_ if wanted.not_before else timedelta()
            if wanted.gaps and not timedelta() < wait <= REFUSED_FOR:
                gap = wanted.gaps[-1]
                self._question = wanted.key, gap
                return _command(wanted, gap)
        return None

    @property
    def changed(self) -> list[Wanted]:
        """What has to be kept."""
        return list(self._changed.values())

    def kept(self) -> None:
        """Hear that all that changed is kept."""
        self._changed.clear()

    def _add(self, key: Key, gap: Gap) -> None:
        meter, channel = key
        wanted = self._wanted.get(key) or Wanted(meter=meter, channel=channel)
        log.info(
            "the meter is asked for its intervals",
            extra={"meter": meter, "channel": channel, "from": gap.start, "to": gap.end},
        )
        self._set(wanted, gaps=(*wanted.gaps, gap)[-GAPS_MAX:])

    def _fill(self, answer: ProfileData) -> None:
        if self._question is None:
            return
        key, gap = self._question
        wanted = self._wanted[key]
        if answer.interval_channel != wanted.channel or answer.meter not in (None, wanted.meter):
            return
        self._question = None
        if answer.status in REFUSALS:
            of = {"meter": wanted.meter, "channel": wanted.channel}
            log.info("the meter keeps no intervals", extra=of)
            self._set(wanted, not_before=self._clock() + REFUSED_FOR)
            return
        since = gap.end
        if answer.end_time and answer.interval_s:
            since = answer.end_time - timedelta(seconds=answer.interval_s) * len(answer.intervals)
        # What reaches no further back than before is all that the meter has.
        more = since < gap.end and (gap.start is None or gap.start < since)
        rest = (Gap(since, gap.start),) if more else ()
        gaps = (new for old in wanted.gaps for new in (rest if old == gap else (old,)))
        self._set(wanted, gaps=tuple(gaps), failures=0, not_before=None)

    def _put_off(self, wanted: Wanted) -> None:
        """Ask again later what was not answered: the radio may be away, or the meter mute."""
        self._question = None
        pause = min(FAILED_FOR * 12**wanted.failures, REFUSED_FOR)
        self._set(wanted, failures=min(wanted.failures + 1, 2), not_before=self._clock() + pause)

    def _set(self, wanted: Wanted, **values: object) -> None:
        new = msgspec.structs.replace(wanted, **values)
        self._wanted[new.key] = self._changed[new.key] = new

    def _forget_late(self) -> None:
        oldest = self._elapsed() - ANSWER_S
        self._open = [one for one in self._open if one[0] >= oldest]


def _command(wanted: Wanted, gap: Gap) -> bytes:
    end_s = int((gap.end - EPOCH).total_seconds())
    parameters = {
        "NumberOfPeriods": f"0x{PERIODS_MOST:02x}",
        "EndTime": f"0x{min(max(end_s, 0), 2**32 - 1):08x}",
        "IntervalChannel": wanted.channel.capitalize(),
    }
    if wanted.meter:
        parameters = {"MeterMacId": f"0x{wanted.meter}", **parameters}
    return write("get_profile_data", parameters, allow_setters=False)
