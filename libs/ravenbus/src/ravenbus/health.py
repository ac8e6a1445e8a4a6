"""Health of a service by the age of its progress: named checks, logged as they change, in one file.

``python -m ravenbus.health [FILE]`` reads the file (or the one that RAVEN_HEALTH_FILE names),
prints what is wrong and exits with 0 for healthy, 1 for not.  It imports nothing heavy, so that
a container can call it often.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

WRITE_EVERY_S = 5.0
STALE_AFTER_S = 60.0
"""A file older than this means that the service's loop does not turn."""


class Health:
    """The checks of one service; ``ok`` and ``failing`` may be called from any thread.

    A problem is logged once when it starts or changes, and once when it ends.
    ``beat`` belongs in the service's main loop: it writes the file, so that a loop that hangs
    lets the file grow old.
    """

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._problems: dict[str, tuple[str, float]] = {}
        self._expires: dict[str, float] = {}
        self._written = float("-inf")
        self._unwritable = False
        self._beat_at = clock()

    def ok(self, check: str, for_s: float | None = None) -> None:
        """Say that a check passes, for ``for_s`` seconds if that is given."""
        with self._lock:
            now = self._clock()
            if for_s is not None:
                self._expires[check] = now + for_s
            ended = self._problems.pop(check, None)
            if ended:
                self._write()
        if ended:
            reason, since = ended
            log.info(
                "recovered", extra={"check": check, "was": reason, "after_s": round(now - since, 1)}
            )

    def failing(self, check: str, reason: str) -> None:
        """Say what is wrong with a check."""
        with self._lock:
            known, since = self._problems.get(check, ("", self._clock()))
            self._problems[check] = (reason, since)
            if known != reason:
                self._write()
        if known != reason:
            log.warning("problem", extra={"check": check, "reason": reason})

    def problems(self) -> dict[str, str]:
        """Return what is wrong now, by check."""
        with self._lock:
            return self._now_wrong()

    def beat(self) -> None:
        """Say that the main loop turns; write the file now and then."""
        self._beat_at = self._clock()
        if self._beat_at - self._written >= WRITE_EVERY_S:
            self._written = self._beat_at
            with self._lock:
                self._write()

    def _write(self) -> None:
        """Write the file, if the disk takes it; the caller holds the lock."""
        if not self._path:
            return
        new = self._path.with_suffix(".new")
        try:
            with open(new, "w", encoding="utf-8", opener=_open_no_link) as file:
                json.dump({"at": time.time(), "problems": self._now_wrong()}, file)
            new.replace(self._path)
        except OSError as error:
            if not self._unwritable:
                log.warning("health file not written", extra={"reason": str(error)})
            self._unwritable = True
        else:
            self._unwritable = False

    def _now_wrong(self) -> dict[str, str]:
        now = self._clock()
        late = {
            check: f"overdue by {now - at:.0f} s" for check, at in self._expires.items() if at < now
        }
        return late | {check: reason for check, (reason, _) in self._problems.items()}

    def overdue_s(self) -> float:
        """Return for how long the main loop, or a check with a time of its own, has hung."""
        with self._lock:
            now = self._clock()
            return max(now - at for at in (self._beat_at, *self._expires.values()))


def _open_no_link(path: str, flags: int) -> int:
    """Open a file that may be in a folder where others put links."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


class Watchdog:
    """Ends the process when something that has to turn has hung for ``stall_s`` seconds.

    Docker restarts a process that ended, never one that only hangs.
    To systemd it says that the service is up, that it turns, and what is wrong with it; a process
    that can no longer say so is ended by systemd.
    """

    EXIT_STATUS = 70

    def __init__(self, health: Health, stall_s: float) -> None:
        self._health = health
        self._stall_s = stall_s

    def start(self) -> None:
        """Watch from a thread of its own, which ends with the process."""
        notify("READY=1")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while self._health.overdue_s() < self._stall_s:
            notify("WATCHDOG=1", f"STATUS={self._status()}")
            pause.wait(self._stall_s / 10)
        log.critical("no progress, ending the process", extra={"for_s": self._stall_s})
        faulthandler.dump_traceback()
        os._exit(self.EXIT_STATUS)

    def _status(self) -> str:
        problems = [f"{check}: {reason}" for check, reason in self._health.problems().items()]
        return "; ".join(problems).replace("\n", " ") or "healthy"


def notify(*states: str) -> None:
    """Tell systemd what sd_notify(3) lists, if it is systemd that started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            # What begins with @ is a name without a file.
            to = f"\0{address[1:]}" if address[0] == "@" else address
            sender.sendto("\n".join(states).encode(), to)
        except OSError as error:
            log.warning("systemd not told", extra={"reason": str(error)})


def main() -> int:
    """Read a health file and say whether the service is well."""
    path = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("RAVEN_HEALTH_FILE")
    if not path or path.startswith("-"):
        print("usage: python -m ravenbus.health FILE (or set RAVEN_HEALTH_FILE)", file=sys.stderr)  # noqa: T201
        return 2
    try:
        report = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        print(f"unhealthy: {path} cannot be read: {error}")  # noqa: T201
        return 1
    age = time.time() - report["at"]
    problems = report["problems"]
    if age > STALE_AFTER_S:
        problems["loop"] = f"has not turned for {age:.0f} s"
    for check, reason in problems.items():
        print(f"unhealthy: {check}: {reason}")  # noqa: T201
    if not problems:
        print("healthy")  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
