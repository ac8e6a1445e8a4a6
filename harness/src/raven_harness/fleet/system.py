"""The processes of a fleet: the homes, the broker with TLS, the stores and what fills them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from raven_harness import stack
from raven_harness.certificates import Authority
from raven_harness.fleet.homes import Plan

PROCESSES: Final = 20
"""Processes that play the homes: paho waits with select(), which knows 1024 files."""
RECORDERS: Final = 2


class Fleet:
    """The processes of a fleet and its server, and what they were seen to do."""

    def __init__(self, folder: Path, homes: int) -> None:
        self.folder = folder
        nodes = [f"home-{number:05}" for number in range(homes)]
        authority = Authority(folder, "fleet")
        port, server = stack.free_port(), authority.server()
        listener = [f"listener {port} 127.0.0.1", f"certfile {server}", f"keyfile {server}"]
        accounts = [*nodes, "sql-writer", "mongo-recorder"]
        self.broker = stack.Broker(folder, accounts, listener=listener)
        self.mariadb, self.mongo = stack.MariaDb(folder), stack.Mongo(folder)
        passwords = self.broker.passwords
        self.homes = []
        processes = min(PROCESSES, homes)
        for number in range(processes):
            mine = {node: n for n, node in enumerate(nodes) if n % processes == number}
            urls = {one: f"mqtts://{one}:{passwords[one]}@127.0.0.1:{port}" for one in mine}
            file = folder / f"plan-{number}.json"
            file.write_bytes(
                msgspec.json.encode(Plan(urls, mine, str(authority.file), str(folder)))
            )
            command = [sys.executable, "-m", "raven_harness.fleet.homes", str(file)]
            self.homes.append(stack.Process(f"homes-{number}", command, folder))
        self.nodes = nodes
        self.said: dict[str, tuple[list[int], list[float]]] = {one: ([], []) for one in nodes}
        self._read = [0] * processes

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
