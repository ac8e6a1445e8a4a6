"""Stores beside what one would use in their place: speed, and what `kill -9` costs."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import ClassVar, Final, NamedTuple

import psutil

import nodered
import store_peers
import system
from databases import Documents, Store, Tables
from raven_harness import stack
from raven_harness.stack import Mongo, Process, free_port
from ravenbus.history import DEMAND
from ravenbus.messages import Reading
from results import count

ROUNDS: Final = 3
MESSAGES: Final = 20_000
BATCH: Final = 500
POLL_S: Final = 0.05
LOOK_S: Final = 0.005
QUIET_S: Final = 1.0
LAST: Final = 200
PARTS: Final = (0.2, 0.4, 0.6)
"""When a program is killed, of the time that it took."""

TEXT: Final = f"""\
## Stores beside peers: speed, and what a kill costs

{MESSAGES:,} readings wait at the broker in a session of each program, QoS 1; it makes a row or a document
of each, in the table or collection of its kind, in a database of its own.
Median of {ROUNDS} rounds, in brackets the lowest and highest.

- *messages/s* and *CPU a message* are of its process from its connection to the broker until the
  last {LAST} demands are stored, which is looked for each {POLL_S * 1000:.0f} ms; then all are counted, and each has to be
  there once.
- *lost* and *stored twice* are of {MESSAGES:,} in another run, in which it is killed with `kill -9`,
  started again, and counted once it has taken all that waited; in each round at another part of
  the time that it took before: {", ".join(f"{100 * part:.0f} %" for part in PARTS)}.

The peers:

- *paho* is `bench/store_peers.py`: a persistent session whose messages paho acknowledges as soon as
  `on_message` returns; {BATCH} are committed at once and fewer after {store_peers.FLUSH_AFTER_S:g} s, or each by itself.
- *Node-RED* {nodered.VERSIONS["node-red"]} has the flow of `bench/nodered.py` with node-red-node-mysql {nodered.VERSIONS["node-red-node-mysql"]} and
  node-red-contrib-mongodb4 {nodered.VERSIONS["node-red-contrib-mongodb4"]}; its rows are left out where Node.js is not installed.
  It acknowledges a message when it comes, whatever its flow does with it then, and has no setting
  for that, so it takes the whole queue into its memory; what it handed to the database's server
  before the kill is stored all the same.
  Its flow keeps the subscription when it stops, and connects to the broker only once it has
  MariaDB: as the nodes are by themselves, they throw away what comes before.

The peers do less than ours.
They check nothing: what a database refuses ends those in Python and is a line in Node-RED's log,
where ours has dead letters.
They make no roll-ups, know no runs, and tell the reader nothing of what is stored.
Their tables have all columns, but no partitions and no unique index; their documents have an `_id`
that says nothing, and one index in place of two: what comes again is stored again.
Nothing but the kill goes wrong here: neither broker nor database is ever away.
"""


def run() -> list[Beside]:
    """Measure and return the rows."""
    rates: dict[Program, list[system.Rate]] = defaultdict(list)
    killed: dict[Program, list[Killed]] = defaultdict(list)
    every = programs()
    with system.folder() as folder:
        servers = Servers(folder)
        with system.started(servers.broker, servers.mariadb, servers.mongo):
            servers.make_sessions(every)
            for number in range(ROUNDS):
                readings = servers.publish(MESSAGES)
                for program in every[number:] + every[:number]:
                    rates[program].append(servers.rate(program, readings))
            for part, number in zip(PARTS, range(ROUNDS), strict=True):
                readings = servers.publish(MESSAGES)
                for program in every[number:] + every[:number]:
                    after_s = part * MESSAGES / median(rate.per_s for rate in rates[program])
                    killed[program].append(servers.killed(program, readings, after_s))
    ours = {program.of_tables: rates[program] for program in every if program.ours}
    return [
        Beside(one.name, rates[one], ours[one.of_tables], killed[one])
        for one in sorted(every, key=lambda one: not one.of_tables)
    ]


class Program(NamedTuple):
    """What stores the readings of a session, and how its process is made.

    ``make`` takes a folder, the URL of the broker, the session's name and the URL of the store.
    """

    name: str
    session: str
    of_tables: bool
    make: Callable[[Path, str, str, str], Process]
    ours: bool = False


class Killed(NamedTuple):
    """What a store lacks after a kill, and what it has once too often."""

    lost: int
    twice: int


@dataclass(frozen=True)
class Beside:
    """What became of one program; ``ours`` are our rates in the same rounds."""

    HEAD: ClassVar = (
        *("program", "messages/s", "ours to that", "CPU a message"),
        *("lost at `kill -9`", "stored twice"),
    )

    name: str
    rates: Sequence[system.Rate]
    ours: Sequence[system.Rate]
    killed: Sequence[Killed]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        pairs = zip(self.ours, self.rates, strict=True)
        ratios = [mine.per_s / other.per_s for mine, other in pairs]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        return (
            self.name,
            count(median(rate.per_s for rate in self.rates)),
            "" if self.rates is self.ours else spread,
            f"{median(rate.cpu_us for rate in self.rates):.0f} us",
            _counts([one.lost for one in self.killed]),
            _counts([one.twice for one in self.killed]),
        )


def _counts(found: Sequence[int]) -> str:
    least, most = count(min(found)), count(max(found))
    return most if least == most else f"{count(median(found))} ({least} to {most})"


def programs() -> list[Program]:
    """Return ours and the peers, Node-RED among them where it can be run."""
    found = [
        Program("**sql-writer**", "raven-sql-writer", True, _sql_writer, ours=True),
        Program(
            *(f"paho, PyMySQL, {BATCH} a commit", "tables", True),
            partial(_python, "tables", BATCH),
        ),
        Program("paho, PyMySQL, a commit each", "table", True, partial(_python, "tables", 1)),
        Program("**mongo-recorder**", "raven-mongo-recorder", False, _recorder, ours=True),
        Program(
            *(f"paho, pymongo, {BATCH} at a time", "documents", False),
            partial(_python, "documents", BATCH),
        ),
    ]
    try:
        nodered.install()
    except FileNotFoundError as error:
        print(f"without Node-RED: {error}", file=sys.stderr)
    else:
        found += [
            Program(f"Node-RED, {of} {how}", f"red-{of}-{size}", of == "rows", partial(make, size))
            for of, make in (("rows", nodered.tables), ("documents", nodered.documents))
            for size, how in ((BATCH, f"{BATCH} at a time"), (1, "each by itself"))
        ]
    return found


def _sql_writer(folder: Path, url: str, _session: str, store_url: str) -> Process:
    return stack.sql_writer(
        folder, url, store_url, RAVEN_BATCH_SIZE=str(BATCH), RAVEN_METRICS_PORT=str(free_port())
    )


def _recorder(folder: Path, url: str, _session: str, store_url: str) -> Process:
    return stack.recorder(
        folder, url, store_url, RAVEN_BATCH_SIZE=str(BATCH), RAVEN_METRICS_PORT=str(free_port())
    )


def _python(
    store: str, batch: int, folder: Path, url: str, session: str, store_url: str
) -> Process:
    command = [
        sys.executable,
        store_peers.__file__,
        store,
        url,
        session,
        system.READINGS,
        store_url,
    ]
    return Process(session, [*command, str(batch)], folder)


def _stop(process: Process) -> None:
    if status := process.stop():
        raise RuntimeError(f"{process.name} ended with {status}: {process.said()}")


def _end_is_in(store: Store, readings: list[Reading]) -> Callable[[], bool]:
    """Return what looks for the last demands of a run: more than any program has under way."""
    times = [one.notification.time for one in readings if one.kind == DEMAND]
    return lambda: store.demands(times[-LAST]) >= LAST


def _cpu_s(process: Process) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


class Servers:
    """The broker with a session of each program, and the stores."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.broker = system.broker(folder)
        self.mariadb = system.mariadb(folder)
        self.mongo = Mongo(folder)
        self._made = 0

    def make_sessions(self, every: Sequence[Program]) -> None:
        """Have the broker keep what is published for each."""
        for program in every:
            if program.ours:
                with self._program(program) as (process, _), system.started(process):
                    system.connected(int(process.env["RAVEN_METRICS_PORT"]))
            else:
                system.client("drain", self._url(program), program.session, system.READINGS, 0, 200)

    def publish(self, messages: int) -> list[Reading]:
        """Have so many readings of a run wait in all sessions."""
        self._made += 1
        spool = self._folder / f"spool-{self._made}.sqlite"
        system.filled_spool(spool, messages, seed=self._made)
        sent = system.client("send", self.broker.url(system.NODE), spool)
        if sent["taken"] != messages:
            raise RuntimeError(f"{sent['taken']} of {messages} readings reached the sessions")
        return system.readings_in(spool)

    def rate(self, program: Program, readings: list[Reading]) -> system.Rate:
        """Return a program's rate from its connection to the broker until all is stored."""
        numbers = [one.envelope.seq for one in readings]
        with self._program(program) as (process, store):
            self._start(program, process)
            began, cpu_s = time.perf_counter(), _cpu_s(process)
            system.wait_until(_end_is_in(store, readings), f"{program.name} is done", POLL_S)
            taken_s, cpu_s = time.perf_counter() - began, _cpu_s(process) - cpu_s
            stack.wait_until(
                lambda: sorted(store.numbers(readings[0])) == numbers,
                f"{program.name} has each reading once",
            )
            _stop(process)
            return system.Rate(MESSAGES / taken_s, cpu_s / MESSAGES * 1e6)

    def killed(self, program: Program, readings: list[Reading], after_s: float) -> Killed:
        """Return what a kill costs, once all that waited at the broker was handed over.

        The mark, which is published after the program is back, comes after everything else.
        """
        with self._program(program) as (process, store):
            self._start(program, process)
            time.sleep(after_s)  # a kill comes at a time, whatever goes on then
            process.kill()
            if _end_is_in(store, readings)():
                raise RuntimeError(f"{program.name} was done before it was killed")
            self._start(program, process)
            mark = self.publish(1)[0]
            stack.wait_until(lambda: store.numbers(mark), f"{program.name} is back")
            found: list[int] = []
            # What was handed to the database's server before the kill is stored by that alone.
            while len(found) < len(found := store.numbers(readings[0])):
                time.sleep(QUIET_S)
            _stop(process)
        return Killed(MESSAGES - len(set(found)), len(found) - len(set(found)))

    def _start(self, program: Program, process: Process) -> None:
        """Start a program; return once the broker says that it is connected."""
        before = self._connections(program)
        process.start()
        system.wait_until(
            lambda: self._connections(program) > before, f"{program.name} connects", LOOK_S
        )

    def _connections(self, program: Program) -> int:
        return self.broker.text().count(f" as {program.session} (")

    def _url(self, program: Program) -> str:
        return self.broker.url("sql-writer" if program.of_tables else "mongo-recorder")

    @contextmanager
    def _program(self, program: Program) -> Iterator[tuple[Process, Store]]:
        """Give a program that is not started, with an empty store of its own; end it."""
        self._made += 1
        store: Store = (
            Tables(self.mariadb, ours=program.ours)
            if program.of_tables
            else Documents(self.mongo, f"raven{self._made}", ours=program.ours)
        )
        with closing(store):
            process = program.make(self._folder, self._url(program), program.session, store.url)
            try:
                yield process, store
            finally:
                process.stop()
