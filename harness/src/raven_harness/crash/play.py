"""Plays a script against a system: each fault at its time, in a thread of its own."""

from __future__ import annotations

import argparse
import secrets
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from raven_harness.crash import faults
from raven_harness.crash.script import Fault
from raven_harness.crash.system import Breakable

PROGRESS_EVERY_S: Final = 10.0
FAULT_LIMIT_S: Final = 300.0
"""No fault takes so long, its restarts included."""


@dataclass(frozen=True)
class Session:
    """What a command was asked for, and the folder of its logs, which is kept if it fails."""

    arguments: argparse.Namespace
    seed: int
    folder: Path
    stop: threading.Event

    @classmethod
    def begun(cls, parser: argparse.ArgumentParser) -> Self:
        """Read the command line; a signal sets ``stop`` from then on."""
        parser.add_argument("--minutes", type=float, default=60.0, help="how long; default: 60")
        parser.add_argument("--seed", type=int, help="of the script; default: a new one")
        parser.add_argument("--write", type=Path, help="a page to write the table into")
        arguments = parser.parse_args()
        seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
        return cls(arguments, seed, Path(tempfile.mkdtemp(prefix="raven-crash-")), stop)


class FailureError(Exception):
    """The run found a fault of the system, or could not end."""


class Player:
    """Does faults; what it prints begins with the seconds since it was made."""

    def __init__(
        self,
        system: Breakable,
        stop: threading.Event,
        progress: Callable[[], str],
        ended: Callable[[Fault], None] = lambda _: None,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.problems: list[str] = []
        self._system = system
        self._stop = stop
        self._progress = progress
        self._ended = ended
        self._begun = time.monotonic()
        self._progress_at = self._begun

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"{time.monotonic() - self._begun:7.1f} s  {text}", flush=True)

    def wait(self, for_s: float) -> None:
        """Wait, and show the progress now and then; raise KeyboardInterrupt at a stop."""
        end = time.monotonic() + for_s
        while (left_s := end - time.monotonic()) > 0:
            if time.monotonic() >= self._progress_at:
                self._progress_at = time.monotonic() + PROGRESS_EVERY_S
                self.say(f"--- {self._progress()}")
            if self._stop.wait(min(left_s, max(0.1, self._progress_at - time.monotonic()))):
                raise KeyboardInterrupt

    def wait_for(self, true: Callable[[], bool], limit_s: float, what: str) -> None:
        """Wait until something is true; raise FailureError if it takes too long."""
        end = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > end:
                raise FailureError(f"waited {limit_s:.0f} s in vain until {what}")
            self.wait(0.1)

    def play(self, planned: Sequence[Fault]) -> None:
        """Do the faults of a round and return when all are over."""
        begun = time.monotonic()
        threads = []
        for fault in planned:
            self.wait(begun + fault.at_s - time.monotonic())
            threads.append(threading.Thread(target=self._do, args=(fault,), daemon=True))
            threads[-1].start()
        end = time.monotonic() + FAULT_LIMIT_S
        for thread in threads:
            while thread.is_alive():
                self.wait(0.1)
                if time.monotonic() > end:
                    raise FailureError("a fault does not come to its end, see faults.log")

    def _do(self, fault: Fault) -> None:
        facts = {"fault": fault.number, "kind": fault.kind, "target": fault.target}
        self._system.say("begin", **facts, for_s=fault.for_s, detail=fault.detail)
        self.say(str(fault))
        try:
            faults.do(self._system, fault, self._stop.wait)
        except faults.SkippedError as reason:
            self._system.say("skipped", **facts, reason=str(reason))
            self.say(f"#{fault.number} skipped: {reason}")
            self.skipped[fault.kind] = str(reason)
        except Exception as error:  # noqa: BLE001 - a fault of the tool must not pass for a good run
            self._system.say("failed", **facts, reason=repr(error))
            self.problems.append(f"fault {fault} could not be done: {error!r}")
        else:
            self.done[fault.kind] += 1
            self._system.say("end", **facts)
            self._ended(fault)
