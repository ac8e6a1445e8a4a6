"""The command: plays a fleet with outages; exit status 0 if nothing was lost or stored twice."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from raven_harness import stack
from raven_harness.fleet.system import Fleet
from raven_harness.fleet.watch import BEHIND_S, Watch, judge

LOOK_S: Final = 1.0
OUTAGES: Final = (("broker", 0.25), ("stores", 0.5), ("half of the homes", 0.75))
"""What is away, and from which part of the time on."""
OUTAGE: Final = 0.1
"""The part of the time for which it is away."""
SETTLE_S: Final = 900.0
SAY_S: Final = 10.0
PARTS_HEAD: Final = ("part", "% of a core", "us a reading", "MB at most")
OUTAGES_HEAD: Final = ("away", "behind when it is back", "s until nothing is")


class Game:
    """A fleet that is played and watched."""

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self._fleet = fleet
        self._seconds = seconds
        self._watch = Watch(fleet)
        self._began = time.monotonic()

    def play(self) -> list[str]:
        """Play the outages and print what was seen; return what is wrong at the end."""
        fleet = self._fleet
        heard = lambda: fleet.hear() and all(seqs for seqs, _ in fleet.said.values())  # noqa: E731
        stack.wait_until(heard, "every home has accepted a reading", SETTLE_S)
        self._look(SETTLE_S, "starting", until_caught_up=True)
        self._began = time.monotonic()
        rows = self._undisturbed(OUTAGES[0][1] * self._seconds)
        outages = []
        for what, start in OUTAGES:
            self._look(self._began + start * self._seconds - time.monotonic(), "undisturbed")
            with fleet.away(what):
                self._look(OUTAGE * self._seconds, f"{what} away")
            missing = self._watch.look().missing
            took_s = self._look(SETTLE_S, f"{what} back", until_caught_up=True)
            outages.append((what, f"{missing:.0f}", f"{took_s:.0f}"))
        self._look(self._began + self._seconds - time.monotonic(), "undisturbed")
        for one in fleet.homes:
            one.send(signal.SIGUSR1)
        end = time.monotonic() + SETTLE_S
        while (problems := judge(fleet)) and time.monotonic() < end:
            self._look(BEHIND_S, "comparing")
        peaks = self._watch.peak_mb
        print(_table(PARTS_HEAD, [(*row, f"{peaks[row[0]]:.0f}") for row in rows]))
        print(_table(OUTAGES_HEAD, outages))
        return problems

    def _undisturbed(self, for_s: float) -> list[tuple[str, ...]]:
        """Return what the parts take of the processor while nothing is away, and print the lag."""
        self._watch.lags.clear()
        before, used = self._fleet.hear(), self._watch.weigh()
        took_s = self._look(for_s, "undisturbed")
        after, count = self._watch.weigh(), self._fleet.hear() - before
        lags = self._watch.lags
        p50, p99 = median(lags), quantiles(lags, n=100)[98]
        print(f"{count / took_s:.0f} readings a second; lag p50 {p50:.1f} s, p99 {p99:.1f} s")
        cpu_s = {name: after[name] - used[name] for name in used}
        return [
            (name, f"{100 * one / took_s:.1f}", f"{1e6 * one / count:.0f}")
            for name, one in cpu_s.items()
        ]

    def _look(self, for_s: float, what: str, *, until_caught_up: bool = False) -> float:
        """Look for a time, or until nothing is behind; return how long it was."""
        start = say_at = time.monotonic()
        while (now := time.monotonic()) < start + for_s:
            seen = self._watch.look()
            self._watch.weigh()
            if now >= say_at:
                say_at = now + SAY_S
                print(f"{now - self._began:7.1f} s  {what}: {seen.missing:.0f} behind", flush=True)
            if until_caught_up and not seen.late:
                break
            # The time between two looks; what is looked at cannot say when it changes.
            time.sleep(max(0.0, now + LOOK_S - time.monotonic()))
        return time.monotonic() - start


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> int:
    """Play a fleet."""
    parser = argparse.ArgumentParser(prog="make fleet", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--homes", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    if asked.homes < 1 or asked.minutes <= 0:
        parser.error("allowed are one home or more, and more than 0 minutes")
    folder = Path(tempfile.mkdtemp(prefix="raven-fleet-"))
    print(f"make fleet HOMES={asked.homes} MINUTES={asked.minutes:g}; logs in {folder}", flush=True)
    fleet = Fleet(folder, asked.homes)
    with fleet.running():
        problems = Game(fleet, asked.minutes * 60).play()
        accepted = fleet.hear()
    if problems:
        print(*problems[:20], sep="\n")
        print(f"BAD: {len(problems)} homes' readings are not in every store once; logs in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"GOOD: {accepted:,} readings of {asked.homes:,} homes are in every store once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
