"""What the homes accepted, what the stores have of it, and what the processes take."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf
from typing import Any, Final, NamedTuple

import psutil
import pymysql  # type: ignore[import-untyped]
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from raven_harness import stack
from raven_harness.fleet.system import Fleet
from ravenbus.notifications import KINDS
from ravensql.rows import COLUMNS
from ravensql.settings import MysqlUrl

BEHIND_S: Final = 5.0
"""Nothing is behind once the stores have what was accepted so long ago."""
MB: Final = 1e6
_SAID: Final = [f"SELECT hash, seq FROM {table}" for table in COLUMNS]  # noqa: S608 - our names
NUMBERS: Final = (
    "SELECT hash, COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq) "  # noqa: S608 - as above
    f"FROM ({' UNION ALL '.join(_SAID)}) AS readings GROUP BY hash"
)
COUNT: Final = f"SELECT COUNT(*) FROM ({' UNION ALL '.join(_SAID)}) AS readings"  # noqa: S608


class Look(NamedTuple):
    """What the store that is further behind has not yet; infinity while one cannot be asked.

    ``late`` are the missing readings that were accepted ``BEHIND_S`` ago or before.
    """

    missing: float
    late: float


class Watch:
    """Looks at the stores and the processes.

    ``lags`` are of each look and home: for how long the first reading has waited that MySQL lacks.
    """

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
            return Look(inf, inf)
        for node, (seqs, times) in self._fleet.said.items():
            first = bisect_right(seqs, last.get(node, 0))
            self.lags.append(now - times[first] if first < len(seqs) else 0.0)
        before = bisect_right(self._accepted, (now - BEHIND_S, inf))
        due = self._accepted[before - 1][1] if before else 0
        return Look(accepted - stored, max(0, due - stored))

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
