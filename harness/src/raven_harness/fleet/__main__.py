"""The command: plays a fleet with outages; exit status 0 if nothing was lost or stored twice."""

from __future__ import annotations

import argparse
import datetime as dt
import ipaddress
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from math import inf
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import msgspec
import psutil
import pymysql  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from raven_harness import stack
from raven_harness.fleet.homes import Plan
from ravenbus.notifications import KINDS
from ravensql.rows import COLUMNS
from ravensql.settings import MysqlUrl

PROCESSES: Final = 20
"""Processes that play the homes: paho waits with select(), which knows 1024 files."""
RECORDERS: Final = 2
LOOK_S: Final = 1.0
OUTAGES: Final = (("broker", 0.25), ("stores", 0.5), ("half of the homes", 0.75))
"""What is away, and from which part of the time on."""
OUTAGE: Final = 0.1
"""The part of the time for which it is away."""
BEHIND_S: Final = 5.0
"""Nothing is behind once the stores have what was accepted so long ago."""
SETTLE_S: Final = 900.0
SAY_S: Final = 10.0
PARTS_HEAD: Final = ("part", "% of a core", "us a reading", "MB at most")
OUTAGES_HEAD: Final = ("away", "behind when it is back", "s until nothing is")
MB: Final = 1e6


_SAID: Final = [f"SELECT hash, seq FROM {table}" for table in COLUMNS]  # noqa: S608 - our names
NUMBERS: Final = (
    "SELECT hash, COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq) "  # noqa: S608 - as above
    f"FROM ({' UNION ALL '.join(_SAID)}) AS readings GROUP BY hash"
)
COUNT: Final = f"SELECT COUNT(*) FROM ({' UNION ALL '.join(_SAID)}) AS readings"  # noqa: S608


class Fleet:
    """The processes of a fleet and its server, and what they were seen to do."""

    def __init__(self, folder: Path, homes: int) -> None:
        self.folder = folder
        nodes = [f"home-{number:05}" for number in range(homes)]
        port, ca, server = stack.free_port(), *_certificates(folder)
        listener = [f"listener {port} 127.0.0.1", f"certfile {server}", f"keyfile {server}"]
        accounts = [*nodes, "sql-writer", "mongo-recorder"]
        self.broker = stack.Broker(folder, accounts, listener=listener)
        self.mariadb, self.mongo = stack.MariaDb(folder), stack.Mongo(folder)
        passwords = self.broker.passwords
        self.homes = []
        for number in range(PROCESSES):
            mine = {node: n for n, node in enumerate(nodes) if n % PROCESSES == number}
            urls = {one: f"mqtts://{one}:{passwords[one]}@127.0.0.1:{port}" for one in mine}
            file = folder / f"plan-{number}.json"
            file.write_bytes(msgspec.json.encode(Plan(urls, mine, str(ca), str(folder))))
            command = [sys.executable, "-m", "raven_harness.fleet.homes", str(file)]
            self.homes.append(stack.Process(f"homes-{number}", command, folder))
        self.nodes = nodes
        self.said: dict[str, tuple[list[int], list[float]]] = {one: ([], []) for one in nodes}
        self._read = [0] * PROCESSES

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything, and end it whatever happens."""
        with ExitStack() as ending:
            for server in (self.broker, self.mariadb, self.mongo):
                ending.callback(server.stop)
                server.start()
            self.database = self.mariadb.database()
            url = self.broker.url("mongo-recorder")
            self.stores = {
                "sql-writer": stack.sql_writer(
                    self.folder, self.broker.url("sql-writer"), self.database
                ),
                **{
                    f"recorder-{number}": stack.recorder(
                        self.folder, url, self.mongo.url, f"recorder-{number}", RAVEN_LEASE_S="30"
                    )
                    for number in range(1, RECORDERS + 1)
                },
            }
            for one in (*self.stores.values(), *self.homes):
                ending.callback(one.stop)
                one.start()
            yield

    @property
    def parts(self) -> dict[str, list[stack.Process]]:
        """The processes by what they are."""
        recorders = [one for name, one in self.stores.items() if name.startswith("recorder")]
        return {
            "homes": self.homes,
            "Mosquitto": [self.broker],
            "sql-writer": [self.stores["sql-writer"]],
            "MariaDB": [self.mariadb],
            "mongo-recorder": recorders,
            "SecantusDB": [self.mongo],
        }

    def hear(self) -> int:
        """Read how far the homes are; return how many readings they have accepted."""
        for number, process in enumerate(self.homes):
            with process.log.open() as file:
                file.seek(self._read[number])
                while (line := file.readline()).endswith("\n"):
                    self._read[number] = file.tell()
                    node, _, rest = line.partition(" ")
                    if node in self.said:  # or it is a warning
                        seq, at = rest.split()
                        seqs, times = self.said[node]
                        seqs.append(int(seq))
                        times.append(float(at))
        return sum(seqs[-1] for seqs, _ in self.said.values() if seqs)

    @contextmanager
    def away(self, what: str) -> Iterator[None]:
        """Have something away for a while."""
        if what == "half of the homes":
            half = self.homes[::2]
            for one in half:
                one.kill()
            yield
            for one in half:
                one.start()
            return
        gone: Sequence[stack.Process] = (
            [self.broker] if what == "broker" else [self.mariadb, self.mongo]
        )
        for one in gone:
            one.kill()
        yield
        for one in gone:
            one.start()


class Look(NamedTuple):
    """What the store that is further behind has not yet; infinity while one cannot be asked.

    ``lag_s`` is for how long the first reading after the last of a home waits, ``late`` how many
    readings are missing that were accepted ``BEHIND_S`` ago or before.
    """

    lag_s: float
    missing: float
    late: float


class Watch:
    """Looks at the stores and the processes each second."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._accepted: list[tuple[float, int]] = []
        self.lags: list[float] = []
        self.peak_mb: dict[str, float] = defaultdict(float)

    def look(self) -> Look:
        """Compare what homes accepted with what the stores have."""
        accepted, now = self._fleet.hear(), time.time()
        self._accepted.append((now, accepted))
        try:
            last, in_mysql = self._in_mysql()
            stored = min(in_mysql, self._in_mongo())
        except (pymysql.Error, PyMongoError):
            return Look(inf, inf, inf)
        lags = []
        for node, (seqs, times) in self._fleet.said.items():
            first = bisect_right(seqs, last.get(node, 0))
            lags.append(now - times[first] if first < len(seqs) else 0.0)
        self.lags += lags
        before = bisect_right(self._accepted, (now - BEHIND_S, inf))
        due = self._accepted[before - 1][1] if before else 0
        return Look(max(lags), accepted - stored, max(0, due - stored))

    def weigh(self) -> dict[str, float]:
        """Note the resident memory of the parts and return the processor's seconds of each."""
        used = {}
        for name, processes in self._fleet.parts.items():
            alive = [psutil.Process(one.pid) for one in processes if one.running]
            resident = sum(one.memory_info().rss for one in alive) / MB
            self.peak_mb[name] = max(self.peak_mb[name], resident)
            used[name] = sum(sum(one.cpu_times()[:2]) for one in alive)
        return used

    def _in_mysql(self) -> tuple[dict[str, int], int]:
        with _connected(self._fleet.database) as cursor:
            cursor.execute(COUNT)
            ((count,),) = cursor.fetchall()
            cursor.execute("SELECT node, MAX(last_seq) FROM run_info GROUP BY node")
            return dict(cursor.fetchall()), int(count)

    def _in_mongo(self) -> int:
        with _mongo(self._fleet) as database:
            return sum(database[kind].estimated_document_count() for kind in KINDS)


@contextmanager
def _mongo(fleet: Fleet) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](fleet.mongo.url, serverSelectionTimeoutMS=500) as client:
        yield client.get_default_database()


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    where = MysqlUrl(url)
    account = {"user": where.user, "password": where.password, "database": where.database}
    with (
        closing(
            pymysql.connect(**where.addresses[0]._asdict(), **account, connect_timeout=2)
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


def _certificates(folder: Path) -> tuple[Path, Path]:
    """Return files with a certificate to trust, and with a server's of the same key and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca, server = folder / "ca.pem", folder / "server.pem"
    ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    server.write_bytes(key.private_bytes(*form, serialization.NoEncryption()) + ca.read_bytes())
    return ca, server


def judge(fleet: Fleet) -> list[str]:
    """Return what is wrong: the homes' readings that a store has not exactly once."""
    truth = {}
    for node in fleet.nodes:
        hash_, number = stack.accepted(fleet.folder, node)
        truth[hash_] = node, number
    with _connected(fleet.database) as cursor:
        cursor.execute(NUMBERS)
        held = {"MySQL": {hash_: tuple(of) for hash_, *of in cursor.fetchall()}}
    found: dict[str, list[int]] = defaultdict(list)
    with _mongo(fleet) as database:
        for kind in KINDS:
            for one in database[kind].find({}, {"hash": 1, "seq": 1}):
                found[one["hash"]].append(one["seq"])
    held["MongoDB"] = {
        hash_: (len(seqs), len(set(seqs)), min(seqs), max(seqs)) for hash_, seqs in found.items()
    }
    problems = []
    for store, of in held.items():
        problems += [
            f"{store}: {node} accepted {number}, stored are (rows, numbers, first, last) {of.get(hash_)}"
            for hash_, (node, number) in truth.items()
            if of.get(hash_) != (number, number, 1, number)
        ]
        problems += [
            f"{store}: a run that nobody has: {hash_}" for hash_ in of.keys() - truth.keys()
        ]
    return problems


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
