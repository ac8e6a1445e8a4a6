"""A cluster of MariaDB servers, each of which takes writes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pymysql

from raven_harness import stack

PROVIDER: Final = "/usr/lib/galera/libgalera_smm.so"
SCRIPTS: Final = stack.ROOT / ".brokers" / "mariadb-server" / "usr" / "bin"
USER: Final = "nobody"
"""rsync's daemon, by which a node takes its data, may not run as root."""
TIMEOUTS: Final = "evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT5S"


class Node(stack.MariaDb):
    """A server of a cluster."""

    def __init__(self, folder: Path, number: int, ports: list[int], others: list[int]) -> None:
        group, states, copies = ports
        place = folder / f"node{number}"
        place.mkdir()
        provider = [
            f"base_host=127.0.0.1;base_port={group}",
            f"gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{states}",
            TIMEOUTS,
        ]
        super().__init__(
            place,
            *("--binlog-format=ROW", "--innodb-autoinc-lock-mode=2"),
            *("--wsrep-on=ON", f"--wsrep-provider={PROVIDER}", "--wsrep-cluster-name=raven"),
            f"--wsrep-provider-options={';'.join(provider)}",
            *(f"--wsrep-node-name=node{number}", f"--wsrep-node-address=127.0.0.1:{group}"),
            *("--wsrep-sst-method=rsync", f"--wsrep-sst-receive-address=127.0.0.1:{copies}"),
        )
        self.name = f"node{number}"
        self.env = {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
        self.command = [one.replace("--user=root", f"--user={USER}") for one in self.command]
        subprocess.run(["chown", "-R", USER, str(place)], check=True)
        self._others = ",".join(f"127.0.0.1:{port}" for port in others)
        self._alone = list(self.command)
        self.joins()

    def joins(self) -> None:
        """Have it join the others with its next start."""
        self.command = [*self._alone, f"--wsrep-cluster-address=gcomm://{self._others}"]

    def begins(self) -> None:
        """Have it begin a cluster with its next start."""
        self.command = [*self._alone, "--wsrep-cluster-address=gcomm://"]

    def ask(self, query: str) -> tuple[tuple[Any, ...], ...]:
        """Return what a query of the administrator's finds."""
        account = {"user": "admin", "password": self.password, "connect_timeout": 5}
        connection = pymysql.connect(host="127.0.0.1", port=self.port, read_timeout=5, **account)
        with connection, connection.cursor() as cursor:
            cursor.execute(query)
            return tuple(cursor.fetchall())

    def is_synced(self) -> bool:
        """Say whether it has all that the cluster has."""
        try:
            found = self.ask("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        except pymysql.Error:
            return False
        return found[0][1] == "Synced"


class Galera:
    """Three nodes."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        ports = [[stack.free_port() for _ in range(3)] for _ in range(3)]
        groups = [group for group, _, _ in ports]
        self.nodes = [Node(folder, number, mine, groups) for number, mine in enumerate(ports)]

    def start(self) -> None:
        """Start the nodes, each once the one before has all."""
        self.nodes[0].begins()
        for node in self.nodes:
            self.start_one(node)
        self.nodes[0].joins()

    def start_one(self, node: Node) -> None:
        """Start a node and wait until it has all that the others have."""
        node.start()
        stack.wait_until(node.is_synced, f"{node.name} is synced", 60)

    def stop(self) -> None:
        """End the nodes."""
        for node in reversed(self.nodes):
            if node.running:
                node.kill()

    def database(self) -> str:
        """Make a database with an account; return the URL of the first node."""
        return self.nodes[0].database()

    def url(self, database: str, first: int = 0, count: int = 3) -> str:
        """Return the URL of a database with the addresses of nodes, beginning with one of them."""
        before, _, after = database.partition("@")
        nodes = (self.nodes[(first + n) % 3] for n in range(count))
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        return f"{before}@{places}/{after.partition('/')[2]}"
