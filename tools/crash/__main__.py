"""The command: runs the script of a seed against the system; exit status 0 if nothing was lost."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import stack

from crash import faults, report
from crash.script import RECORDERS, Fault, plan
from crash.stores import Mongo, Sql, Store, sent
from crash.system import STATE, UPSTREAM_DATABASE, System
from crash.verdict import Verdict, judge, outages
from crash.watch import Watch

RATE: Final = 100.0
"""Readings a second."""
SETTLE_LIMIT_S: Final = 900.0
QUIET_S: Final = 3.0
"""What stays equal for so long has settled."""
PROGRESS_EVERY_S: Final = 10.0
FAULT_LIMIT_S: Final = 300.0
"""No fault takes so long, its restarts included."""
CONSUMERS: Final = (*RECORDERS, "sql-writer", "upstream-recorder")
LEAVES: Final = ("stored_total", "duplicate_total", "dead_total", "given_back_total", "in_flight")


class Failure(Exception):  # noqa: N818 - what a run that is not good says
    """The run found a fault of the system, or could not end."""


class Run:
    """One run of a script."""

    def __init__(self, system: System, stop: threading.Event) -> None:
        self.system = system
        self.done: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.problems: list[str] = []
        self.settled_s: list[float] = []
        self.stores: list[Store] = [
            Sql("MySQL", system.mysql_url),
            Mongo("MongoDB", system.mongo.url),
            Mongo("upstream MongoDB", stack.in_database(system.mongo.url, UPSTREAM_DATABASE)),
        ]
        self._stop = stop
        self._begun = time.monotonic()

    def play(self, rounds: Sequence[Sequence[Fault]]) -> Verdict:
        """Do all faults, and return what came of it."""
        with Watch(self.system, self.stores) as self.watch:
            _wait_for(
                lambda: self.watch.accepted() > 0, 60, "the reader hears the stick", self._stop
            )
            for number, one in enumerate(rounds, 1):
                self._say(f"round {number} of {len(rounds)}: {len(one)} faults")
                self._round(one)
                self._settle()
            self.system.stick.tell("stop")
            self._settle(quiet=True)
            accepted, run = self.watch.accepted(), self.watch.run
            recoveries = self.watch.recoveries
        self.recoveries = recoveries
        reader = self.system.parts["reader"]
        gaps = [*reader.gaps, *self.system.stick.gaps]
        return judge(
            accepted,
            {store.name: store.copies(run) for store in self.stores},
            list(sent(self.system.stick.ledger)),
            {store.name: store.letters() for store in self.stores[:2]},
            outages(gaps, [*reader.frail, *self.system.disk.frail]),
        )

    def _round(self, planned: Sequence[Fault]) -> None:
        begun = time.monotonic()
        threads = []
        progress_at = begun
        for fault in planned:
            while (wait_s := begun + fault.at_s - time.monotonic()) > 0 and not self._stop.is_set():
                self._stop.wait(min(wait_s, max(0.1, progress_at - time.monotonic())))
                if time.monotonic() >= progress_at:
                    progress_at = time.monotonic() + PROGRESS_EVERY_S
                    self._progress()
            if self._stop.is_set():
                break
            threads.append(threading.Thread(target=self._do, args=(fault,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(FAULT_LIMIT_S)
            if thread.is_alive():
                raise Failure("a fault does not come to its end, see faults.log")
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _do(self, fault: Fault) -> None:
        facts = {"fault": fault.number, "kind": fault.kind, "target": fault.target}
        self.system.say("begin", **facts, for_s=fault.for_s, detail=fault.detail)
        self._say(str(fault))
        try:
            faults.do(self.system, fault, self._stop.wait)
        except faults.SkippedError as reason:
            self.system.say("skipped", **facts, reason=str(reason))
            self._say(f"#{fault.number} skipped: {reason}")
            self.skipped[fault.kind] = str(reason)
        except Exception as error:  # noqa: BLE001 - a fault of the tool must not pass for a good run
            self.system.say("failed", **facts, reason=repr(error))
            self.problems.append(f"fault {fault} could not be done: {error!r}")
        else:
            self.done[fault.kind] += 1
            self.system.say("end", **facts)
            self.watch.ended(fault)

    def _settle(self, *, quiet: bool = False) -> None:
        """Wait until every store has what is accepted, and check that the counters balance."""
        stick, begun = self.system.stick, time.monotonic()
        if not quiet:
            stick.tell("silence on")
        since, last = time.monotonic(), -1
        progress_at = begun + PROGRESS_EVERY_S
        while time.monotonic() - since < QUIET_S:
            if self._stop.wait(0.2):
                raise KeyboardInterrupt
            now, behind = self.watch.accepted(), self.watch.behind()
            spooled = (self.system.metrics("reader") or {}).get("raven_spooled", -1)
            if now != last or any(behind.values()) or spooled:
                since, last = time.monotonic(), now
            if time.monotonic() > progress_at:
                progress_at += PROGRESS_EVERY_S
                self._progress()
            if time.monotonic() - begun > SETTLE_LIMIT_S:
                self.problems.append(
                    f"not settled after {SETTLE_LIMIT_S:.0f} s: behind {behind}, spooled {spooled:.0f}"
                )
                break
        self.settled_s.append(round(time.monotonic() - begun - QUIET_S, 1))
        self.system.say("settled", after_s=self.settled_s[-1], accepted=last)
        self._say(f"settled after {self.settled_s[-1]} s: {last} accepted and in every store")
        self._balance()
        if not quiet:
            stick.tell("silence off")

    def _balance(self) -> None:
        for name in CONSUMERS:
            counts = self.system.metrics(name)
            if counts is None:
                self.problems.append(f"{name} does not tell its metrics at a quiet moment")
                continue
            received = counts["raven_received_total"]
            left = {leaf: counts.get(f"raven_{leaf}", 0) for leaf in LEAVES}
            if received != sum(left.values()):
                self.problems.append(f"{name} does not balance: received {received}, {left}")
                self.system.say("does not balance", part=name, received=received, **left)

    def _progress(self) -> None:
        behind = ", ".join(f"{name} {count}" for name, count in self.watch.behind().items())
        self._say(f"--- accepted {self.watch.accepted()}; behind: {behind}")

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:7.1f} s  {text}", flush=True)


def _wait_for(true: Callable[[], bool], limit_s: float, what: str, stop: threading.Event) -> None:
    end = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end:
            raise Failure(f"waited {limit_s:.0f} s in vain until {what}")
        if stop.wait(0.1):
            raise KeyboardInterrupt


def _result(run: Run, verdict: Verdict, minutes: float, seed: int, took_s: float) -> dict[str, Any]:
    ends = {
        f"{name}: {status}": count
        for name, part in run.system.parts.items()
        for status, count in Counter(part.ends).items()
    }
    return {
        "seed": seed,
        "minutes": minutes,
        "rate": run.system.rate,
        "took_s": round(took_s),
        "faults": dict(sorted(run.done.items())),
        "faults_an_hour": run.done.total() / took_s * 3600,
        "skipped": run.skipped,
        **report.summary(verdict),
        "recovery_s": report.recovery(run.recoveries),
        "settled_s": run.settled_s,
        "ended_by_themselves": ends,
        "problems": run.problems + report.wrong(verdict),
        "machine": report.machine(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; default: 60")
    parser.add_argument("--seed", type=int, help="of the script; default: a new one")
    parser.add_argument("--write", type=Path, help="a page to write the table into")
    return parser.parse_args()


def main() -> int:
    """Run; return the exit status."""
    arguments = _arguments()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    again = f"make crash MINUTES={arguments.minutes:g} SEED={seed}"
    rounds = plan(seed, arguments.minutes)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    folder = Path(tempfile.mkdtemp(prefix="raven-crash-"))
    print(f"{again}: {sum(map(len, rounds))} faults; logs in {folder}", flush=True)
    begun = time.monotonic()
    try:
        with System.started(folder, seed, RATE) as system:
            run = Run(system, stop)
            verdict = run.play(rounds)
            result = _result(run, verdict, arguments.minutes, seed, time.monotonic() - begun)
    except KeyboardInterrupt:
        print(f"stopped; logs in {folder}")
        return 130
    except (Failure, RuntimeError) as error:
        print(f"\nFAILED: {error}\nagain: {again}\nlogs: {folder}")
        return 1
    (STATE / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{report.table(result)}\n\nas JSON: {STATE / 'result.json'}")
    if result["problems"]:
        print("\nFAILED:", *result["problems"], f"again: {again}", f"logs: {folder}", sep="\n  ")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    if arguments.write:
        report.write(arguments.write, report.table(result))
    print("\nGOOD: everything accepted is in every store once, as it was sent", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
