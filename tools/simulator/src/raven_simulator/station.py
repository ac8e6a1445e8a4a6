"""One stick at its port: sends what is due, takes commands, and records what became of each report.

Time comes in with each step: now_s is monotonic, unix_s the wall clock; both in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from raven_simulator.commands import Commands
from raven_simulator.faults import Sent
from raven_simulator.ports import PortError
from raven_simulator.reports import UNSET, device_time, is_whole
from raven_simulator.timeline import Reset, Stall, Unplug

if TYPE_CHECKING:
    from raven_simulator.commands import Command
    from raven_simulator.faults import Faults
    from raven_simulator.ledger import Ledger
    from raven_simulator.ports import Port
    from raven_simulator.timeline import Timeline

# A reader that has just opened a serial port sets it up and flushes it; what it gets before is lost without a trace.
_SETTLE_S: Final = 0.1
# As long as a reader may be busy elsewhere before its reports are given up.
_WRITE_DEADLINE_S: Final = 2.0
_QUEUE_MOST_BYTES: Final = 1 << 20
_CHUNK_PAUSE_S: Final = 0.001
# Later than this the schedule is not caught up with: the process was stopped, or cannot keep the rate.
_LATE_S: Final = 2.0
_STEP_MOST_REPORTS: Final = 128
_LOOK_CLOSED_S: Final = 0.02
_LOOK_OPEN_S: Final = 0.05
_LOOK_DRAINING_S: Final = 0.002
# The kernel hands bytes on in two steps, and only the second is counted: empty must stay empty for a while.
_DRAINED_FOR_S: Final = 0.25
_UNPLUG_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: elapsed_s, wall seconds that only go forward, and the device's clock (seconds since 2000, or UNSET)."""

    elapsed_s: float
    clock: int


class Reporter(Protocol):
    """Source of what a station puts on a line: a device, or a capture played back."""

    def start(self, moment: Moment) -> list[bytes]:
        """Power on, and return the first fragments."""

    def restart(self, moment: Moment) -> list[bytes]:
        """Power on again after an unplug or a restart command, and return the first fragments."""

    def due_s(self) -> float:
        """Elapsed wall seconds at which the next fragment is due; infinity: never."""

    def due(self, moment: Moment) -> list[bytes]:
        """Fragments that are due by now, possibly not all of them."""

    def skip(self, moment: Moment) -> None:
        """Leave out what is due by now."""

    def answer(self, command: Command, moment: Moment) -> list[bytes]:
        """Fragments in answer to a command, possibly none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits at which a station is done, and if it waits for its first reader; None: no limit."""

    count: int | None = None
    duration_s: float | None = None
    wait: bool = False


@dataclass(slots=True)
class _Outgoing:
    sent: Sent
    pieces: deque[bytes]
    deadline_s: float
    begun: bool = False


class Station:
    """A reporter, its faults, its port and its ledger."""

    def __init__(
        self,
        *,
        reporter: Reporter,
        faults: Faults,
        timeline: Timeline,
        port: Port,
        ledger: Ledger,
        limits: Limits,
        verbatim: bool = False,
    ) -> None:
        self.port = port
        self.faults = faults
        self._ledger = ledger
        self.problem: str | None = None
        self._reporter = reporter
        self._timeline = timeline
        self._limits = limits
        self._verbatim = verbatim
        self._commands = Commands()
        self._queue: deque[_Outgoing] = deque()
        self._queued_bytes = 0
        self._produced = 0
        self._torn = False
        self._pause_until_s = -math.inf
        self._started_s: float | None = None
        self._opened_s: float | None = None
        self._listening = False
        self.silent = False
        self.clock_offset_s = 0.0
        self._drained_since_s: float | None = None
        self._unplug_by_s: float | None = None
        self._replug_s: float | None = None
        self._replug_address: str | None = None
        self._resets = False
        self.blocked = False
        """True if it waits for room on the line."""

    @property
    def done(self) -> bool:
        """True if every report is out, or given up."""
        return self._finished and not self._queue

    def step(self, now_s: float, unix_s: float) -> None:
        """Do what is due now.  Never blocks."""
        self._look(now_s, unix_s)
        if self._unplug_by_s is not None:
            self._flush(now_s, unix_s)
            self._let_go(now_s, unix_s)
            return
        if self._started_s is None:
            if self._limits.wait and not self._listening:
                return
            self._started_s = now_s
            self._emit(self._reporter.start(self._moment(now_s, unix_s)), now_s, unix_s)
        self._time_out(now_s)
        self._unplugged(now_s, unix_s)
        moment = self._moment(now_s, unix_s)
        self._take_commands(moment, now_s, unix_s)
        if self._silenced(moment) or now_s - self._started_s - self._reporter.due_s() > _LATE_S:
            self._reporter.skip(moment)
        self._produce(moment, now_s, unix_s)
        self._flush(now_s, unix_s)

    def wake_s(self, now_s: float) -> float:
        """Monotonic time of the next step that is needed even if nothing happens on the port."""
        look = _LOOK_CLOSED_S if self.port.descriptor() is None else _LOOK_OPEN_S
        if self._unplug_by_s is not None or self._finished:
            look = _LOOK_DRAINING_S
        wake = now_s + look
        if self._queue and not self.blocked:
            wake = min(wake, max(self._pause_until_s, now_s))
        if self._started_s is not None and self.port.plugged and not self._finished:
            wake = min(wake, self._started_s + self._reporter.due_s())
        return wake

    def unplug(self, now_s: float) -> None:
        """Stop, and take the port away in the next steps, when the reader took what was sent or five seconds passed.

        The stick then has no power until it is plugged again.
        """
        self._unplug_by_s = now_s + _UNPLUG_PATIENCE_S
        self._drained_since_s = None

    def reset(self) -> None:
        """Let the port go in the middle of the next report, and start again under it at once."""
        self._resets = True

    def stall(self) -> None:
        """Have the port refuse its host; raises PortError where it is no USB device."""
        self.port.stall()

    def drained(self, now_s: float) -> bool:
        """Return True if the reader took all that was sent, as far as is known; ask repeatedly."""
        if self._queue or self.port.unread():
            self._drained_since_s = None
            return False
        if self._drained_since_s is None:
            self._drained_since_s = now_s
        return now_s - self._drained_since_s >= _DRAINED_FOR_S

    def replug(self, address: str | None, now_s: float, unix_s: float) -> None:
        """Bring the port back and start the device again; raises PortError."""
        self.port.plug(address)
        self._replug_s = None
        if self._started_s is not None:
            moment = self._moment(now_s, unix_s)
            self._emit(self._reporter.restart(moment), now_s, unix_s)

    def summary(self) -> str:
        """One line of what was sent."""
        return self._ledger.summary()

    def send(self, raw: bytes, now_s: float, unix_s: float) -> None:
        """Send bytes of someone's own, outside the count and without faults."""
        self._queue_up(Sent(raw, raw, whole=is_whole(raw), fault="sent"), [raw], now_s, unix_s)

    def finish(self) -> None:
        """Produce no more reports."""
        self._limits = Limits(count=0)

    @property
    def _finished(self) -> bool:
        if self._limits.count is not None and self._produced >= self._limits.count:
            return True
        return (
            self._started_s is not None
            and self._verbatim
            and self._reporter.due_s() == math.inf
            and self.port.plugged
        )

    def _moment(self, now_s: float, unix_s: float) -> Moment:
        elapsed_s = 0.0 if self._started_s is None else now_s - self._started_s
        if self._timeline.clock_unset(elapsed_s):
            return Moment(elapsed_s, UNSET)
        offset_s = self.clock_offset_s + self._timeline.clock_offset_s(elapsed_s)
        return Moment(elapsed_s, min(max(device_time(unix_s + offset_s), 0), UNSET - 1))

    def _look(self, now_s: float, unix_s: float) -> None:
        if not self.port.opened():
            if self._opened_s is not None:
                self._opened_s = None
                self._listening = False
                self._torn = False
                self.abandon(unix_s)
            return
        if self._opened_s is None:
            self._opened_s = now_s
            self._commands.clear()
        if not self._listening and now_s - self._opened_s >= _SETTLE_S:
            self._listen()

    def _listen(self) -> None:
        self._listening = True
        self.faults.reader_opened()

    def _time_out(self, now_s: float) -> None:
        limit = self._limits.duration_s
        if limit is not None and self._started_s is not None and now_s - self._started_s >= limit:
            self.finish()

    def _unplugged(self, now_s: float, unix_s: float) -> None:
        elapsed_s = now_s - (self._started_s or 0.0)
        if self._replug_s is not None and now_s >= self._replug_s:
            try:
                self.replug(self._replug_address, now_s, unix_s)
            except PortError as error:
                self.problem = str(error)
                self._replug_s = None
        if self.port.plugged and self._unplug_by_s is None and not self._finished:
            match self._timeline.next_of_port(elapsed_s):
                case Unplug(for_s=for_s, link=link):
                    self._replug_s = now_s + for_s
                    self._replug_address = link
                    self.unplug(now_s)
                case Reset():
                    self.reset()
                case Stall():
                    self.stall()

    def _let_go(self, now_s: float, unix_s: float) -> None:
        if self._unplug_by_s is None or not (self.drained(now_s) or now_s >= self._unplug_by_s):
            return
        self._unplug_by_s = None
        self.abandon(unix_s)
        self.port.unplug()
        self._listening = False
        self._opened_s = None

    def _silenced(self, moment: Moment) -> bool:
        return self.silent or self._timeline.silent(moment.elapsed_s)

    def _take_commands(self, moment: Moment, now_s: float, unix_s: float) -> None:
        data = self.port.read()
        if data and self._opened_s is not None and not self._listening:
            # A reader that speaks has set up its port.
            self._listen()
        for command in self._commands.feed(data):
            self._ledger.command(command.name, unix_s)
            if not self._silenced(moment):
                self._emit(self._reporter.answer(command, moment), now_s, unix_s)

    def _produce(self, moment: Moment, now_s: float, unix_s: float) -> None:
        if not self.port.plugged:
            self._reporter.skip(moment)
            return
        before = self._produced
        while self._produced - before < _STEP_MOST_REPORTS and not self._finished:
            due = self._reporter.due(moment)
            if not due:
                return
            self._emit(due, now_s, unix_s)

    def _emit(self, fragments: list[bytes], now_s: float, unix_s: float) -> None:
        for fragment in fragments:
            if self._limits.count is not None and self._produced >= self._limits.count:
                return
            if self._verbatim:
                whole = is_whole(fragment)
                found = [Sent(fragment, fragment, whole, None if whole else "capture")]
            else:
                found = self.faults.apply(fragment)
            for sent in found:
                self._produced += 1
                self._queue_up(sent, self.faults.pieces(sent.payload), now_s, unix_s)

    def _queue_up(self, sent: Sent, pieces: list[bytes], now_s: float, unix_s: float) -> None:
        if not self._listening:
            self._ledger.report(sent, heard=False, unix_s=unix_s)
            return
        room = self._queued_bytes + len(sent.payload) <= _QUEUE_MOST_BYTES
        deadline_s = now_s + _WRITE_DEADLINE_S if room else -math.inf
        self._queue.append(_Outgoing(sent, deque(pieces if room else ()), deadline_s))
        self._queued_bytes += len(sent.payload)

    def _flush(self, now_s: float, unix_s: float) -> None:
        self.blocked = False
        while self._queue and now_s >= self._pause_until_s:
            first = self._queue[0]
            if first.deadline_s < now_s or (self._torn and not first.sent.whole):
                self._torn = self._torn or first.begun
                self._leave(first, heard=False, unix_s=unix_s)
                continue
            if self._resets:
                self._break_off(first.pieces[0], now_s, unix_s)
                return
            if not self._write(first):
                self.blocked = True
                return
            if not first.pieces:
                self._torn = False
                self._leave(first, heard=True, unix_s=unix_s)
            elif len(self._queue) == 1:
                self._pause_until_s = now_s + _CHUNK_PAUSE_S

    def _break_off(self, piece: bytes, now_s: float, unix_s: float) -> None:
        self._resets = False
        self.port.write(piece[: len(piece) // 2])
        self.port.unplug()
        self._look(now_s, unix_s)
        self.replug(None, now_s, unix_s)

    def _write(self, outgoing: _Outgoing) -> bool:
        """Write the next piece; whether all of it fitted."""
        piece = outgoing.pieces.popleft()
        taken = self.port.write(piece)
        outgoing.begun = outgoing.begun or taken > 0
        if taken < len(piece):
            outgoing.pieces.appendleft(piece[taken:])
            return False
        return True

    def _leave(self, outgoing: _Outgoing, *, heard: bool, unix_s: float) -> None:
        self._queue.popleft()
        self._queued_bytes -= len(outgoing.sent.payload)
        self._ledger.report(outgoing.sent, heard=heard, unix_s=unix_s)

    def abandon(self, unix_s: float) -> None:
        """Give up what is queued."""
        while self._queue:
            self._leave(self._queue[0], heard=False, unix_s=unix_s)
