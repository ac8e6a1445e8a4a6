"""The command: runs the script of a seed against the system; exit status 0 if nothing was lost."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Final

from raven_harness import stack
from raven_harness.crash import report
from raven_harness.crash.play import FailureError, Player, Session
from raven_harness.crash.script import RECORDERS, Fault, plan
from raven_harness.crash.stores import AWAY, Mongo, Sql, Store, sent
from raven_harness.crash.system import STATE, UPSTREAM_DATABASE, System
from raven_harness.crash.verdict import Verdict, judge, outages
from raven_harness.crash.watch import Watch

RATE: Final = 100.0
"""Readings a second."""
SETTLE_LIMIT_S: Final = 900.0
STUCK_S: Final = 420.0
"""Longer than a reader waits before it asks a store that says nothing (five minutes)."""
QUIET_S: Final = 3.0
"""Time without a change after which the system has settled."""
STORED: Final = ("stored_total", "duplicate_total", "dead_total", "given_back_total", "in_flight")
SENT: Final = ("taken_total", "kept_total", "unanswered_total", "in_flight")
BALANCES: Final = {
    **dict.fromkeys((*RECORDERS, "sql-writer", "upstream-recorder"), ("received_total", STORED)),
    **dict.fromkeys(("reader", "sql-relay"), ("published_total", SENT)),
}
"""Counter of what comes in at a service, and counters of what it leaves as."""


class Run:
    """One run of a script."""

    def __init__(self, system: System, stop: threading.Event) -> None:
        self.system = system
        self.stores: list[Store] = [
            Sql("MySQL", system.mysql_url),
            Mongo("MongoDB", system.mongo.url),
            Mongo("upstream MongoDB", stack.in_database(system.mongo.url, UPSTREAM_DATABASE)),
        ]
        self.watch = Watch(system, self.stores)
        self.player = Player(system, stop, self._progress, self.watch.ended)

    def play(self, rounds: Sequence[Sequence[Fault]], seconds: float) -> Verdict:
        """Do the faults of all rounds that begin in time, and return what came of it."""
        say = self.player.say
        end = time.monotonic() + seconds
        in_time = takewhile(lambda _: time.monotonic() < end, rounds)
        with self.watch:
            self.player.wait_for(
                lambda: self.watch.accepted() > 0, 60, "the reader hears the stick"
            )
            for number, one in enumerate(in_time, 1):
                say(f"round {number}: {len(one)} faults")
                self.player.play(one)
                recovered = self._wait_until(self.watch.recovered)
                self.system.stick.tell("silence on")
                if not recovered or not self._settle():
                    break
                self.system.stick.tell("silence off")
            else:
                self.system.stick.tell("stop")
                self._settle()
            accepted, run = self.watch.accepted(), self.watch.run
        self.player.say("comparing ...")
        reader = self.system.parts["reader"]
        gaps = [*reader.gaps, *self.system.stick.gaps]
        verdict = judge(
            accepted,
            {store.name: store.copies(run) for store in self.stores},
            list(sent(self.system.stick.ledger)),
            {store.name: store.letters() for store in self.stores[:2]},
            outages(gaps, [*reader.frail, *self.system.disk.frail]),
        )
        for store in self.stores:
            store.close()
        return verdict

    def _settle(self) -> bool:
        """Wait until what every store has stays equal to what is accepted, and check the counters.

        Return False if that does not come about.
        """
        since = time.monotonic()
        accepted = -1

        def settled() -> bool:
            nonlocal since, accepted
            spooled = (self.system.metrics("reader") or {}).get("raven_spooled")
            complete = spooled == 0 and not any(self.watch.behind().values())
            if self.watch.accepted() != accepted or not complete:
                accepted, since = self.watch.accepted(), time.monotonic()
            return time.monotonic() - since >= QUIET_S

        if not self._wait_until(settled):
            return False
        self.system.say("settled", accepted=accepted)
        self.player.say(f"settled: {accepted} accepted, and in every store")
        self._balance()
        return True

    def _wait_until(self, true: Callable[[], bool]) -> bool:
        """Return whether something came about, as long as stores get anything that they lack."""
        begun = since = time.monotonic()
        least = self.watch.behind()
        while not true():
            self.player.wait(0.2)
            now, behind = time.monotonic(), self.watch.behind()
            if any(behind[name] < least[name] for name in behind):
                least, since = behind, now
            if now - begun > SETTLE_LIMIT_S or now - since > STUCK_S:
                self.player.problems.append(f"does not settle: behind {behind}")
                self.system.say("does not settle", behind=behind)
                return False
        return True

    def _balance(self) -> None:
        for name, (entry, leaves) in BALANCES.items():
            counts = self.system.metrics(name)
            if counts is None:
                self.player.problems.append(f"{name} tells no metrics at a quiet moment")
                continue
            came = counts[f"raven_{entry}"]
            left = {leaf: counts.get(f"raven_{leaf}", 0) for leaf in leaves}
            if came != sum(left.values()):
                self.player.problems.append(f"{name} does not balance: {entry} {came}, {left}")

    def _progress(self) -> str:
        behind = ", ".join(f"{name} {count}" for name, count in self.watch.behind().items())
        return f"accepted {self.watch.accepted()}; behind: {behind}"


def _result(run: Run, verdict: Verdict, minutes: float, seed: int, took_s: float) -> dict[str, Any]:
    ends = {
        f"{name}: {status}": count
        for name, part in run.system.parts.items()
        for status, count in Counter(part.ends).items()
    }
    return {
        "seed": seed,
        "minutes": minutes,
        "rate": RATE,
        "took_s": round(took_s),
        "faults": dict(sorted(run.player.done.items())),
        "faults_an_hour": run.player.done.total() / took_s * 3600,
        "skipped": run.player.skipped,
        "kills": {name: part.kills for name, part in run.system.parts.items()},
        **report.summary(verdict),
        "recovery_s": {
            store: report.recovery(times) for store, times in run.watch.recoveries.items()
        },
        "ended_by_themselves": ends,
        "problems": run.player.problems + report.wrong(verdict),
        "machine": report.machine(),
    }


def main() -> int:
    """Run; return the exit status."""
    session = Session.begun(argparse.ArgumentParser(prog="crash", description=__doc__))
    arguments, seed, folder = session.arguments, session.seed, session.folder
    again = f"make crash MINUTES={arguments.minutes:g} SEED={seed}"
    rounds = plan(seed, arguments.minutes)
    print(f"{again}: {sum(map(len, rounds))} faults at most; logs in {folder}", flush=True)
    begun = time.monotonic()
    try:
        with System.started(folder, seed, RATE) as system:
            run = Run(system, session.stop)
            verdict = run.play(rounds, arguments.minutes * 60)
            result = _result(run, verdict, arguments.minutes, seed, time.monotonic() - begun)
    except KeyboardInterrupt:
        print(f"stopped; logs in {folder}")
        return 130
    except (FailureError, RuntimeError, *AWAY) as error:
        print(f"\nFAILED: {error}\nagain: {again}\nlogs: {folder}")
        return 1
    (STATE / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{report.table(result)}\n\nas JSON: {STATE / 'result.json'}")
    if result["problems"]:
        print("\nFAILED:", *result["problems"], f"again: {again}", f"logs: {folder}", sep="\n  ")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    if arguments.write:
        report.write(arguments.write, "crash", report.table(result))
    print("\nGOOD: everything accepted is in every store once, as it was sent", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
