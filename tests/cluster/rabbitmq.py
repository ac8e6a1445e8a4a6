"""A cluster of RabbitMQ brokers on a network of their own, from which each can be cut off."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from raven_harness import stack
from tests.brokers.brokers import RabbitMq

NODES: Final = range(1, 4)
ACCOUNTS: Final = ("home", "sql-writer", "mongo-recorder")
CONFIG: Final = """\
mqtt.durable_queue_type = quorum
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.target_cluster_size_hint = 3
net_ticktime = 8
"""
"""The last line is after how many seconds a node that says nothing is gone: 60 unless told."""
NODE: Final = "cluster_formation.classic_config.nodes.{number} = {name}\n"
SESSIONS: Final = ("--apply-to", "quorum_queues", "sessions", "^mqtt-", '{"delivery-limit": -1}')
"""What a store was given 20 times and has not acknowledged would be dropped otherwise."""
ACCOUNT: Final = """\
default_users.{account}.vhost_pattern = .*
default_users.{account}.password = secret
default_users.{account}.configure = .*
default_users.{account}.read = .*
default_users.{account}.write = .*
"""


def ip(*arguments: str) -> None:
    """Change the network."""
    subprocess.run([stack.tool("ip"), *arguments], check=True)


def _address(number: int) -> str:
    return f"198.19.0.{number}"


def _name(number: int) -> str:
    return f"rabbit@{_address(number)}"


class Node(RabbitMq):
    """A broker with two links: one for clients, and one for the other brokers."""

    def __init__(self, folder: Path, switch: str, number: int) -> None:
        self.host = f"198.18.{number}.2"
        self._place, self._switch, self._port = f"{switch}-{number}", switch, f"to-{number}"
        ip("netns", "add", self._place)
        link = ("type", "veth", "peer", "netns", self._place, "name")
        ip("link", "add", self._place, *link, "clients")
        ip("addr", "add", f"198.18.{number}.1/30", "dev", self._place)
        ip("link", "set", self._place, "up")
        ip("-n", switch, "link", "add", self._port, *link, "nodes")
        ip("-n", switch, "link", "set", self._port, "master", "switch", "up")
        addresses = {"clients": f"{self.host}/30", "nodes": f"{_address(number)}/24"}
        for device, address in addresses.items():
            ip("-n", self._place, "addr", "add", address, "dev", device)
        for device in ("lo", *addresses):
            ip("-n", self._place, "link", "set", device, "up")
        nodes = (NODE.format(number=one, name=_name(one)) for one in NODES)
        accounts = (ACCOUNT.format(account=account) for account in ACCOUNTS)
        env = {
            "RABBITMQ_NODENAME": _name(number),
            "RABBITMQ_USE_LONGNAME": "true",
            "ERL_EPMD_PORT": "4369",
        }
        place = folder / f"node{number}"
        place.mkdir()
        super().__init__(place, "0.0.0.0", "".join([CONFIG, *nodes, *accounts]), env)  # noqa: S104 - its own network
        self.name = f"node{number}"

    def entered(self, *command: str) -> list[str]:
        """Return how to run a command inside."""
        return [stack.tool("ip"), "netns", "exec", self._place, *super().entered(*command)]

    def url(self, account: str) -> str:
        """Return the URL with an account."""
        return f"mqtt://{account}:secret@{self.host}:{self.port}"

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Have it and the other brokers hear nothing of each other; clients still reach it."""
        ip("-n", self._switch, "link", "set", self._port, "down")
        try:
            yield
        finally:
            ip("-n", self._switch, "link", "set", self._port, "up")

    def can_be_spared(self) -> bool:
        """Say whether every queue, and what else the cluster agrees on, goes on without it."""
        ask = ("rabbitmq-diagnostics", "-q", "check_if_node_is_quorum_critical")
        return subprocess.run(self.tool(*ask), check=False, capture_output=True).returncode == 0

    def close(self) -> None:
        """End it and all that it started, and remove its data and its network."""
        super().close()
        ip("link", "del", self._place)
        ip("netns", "del", self._place)


class Cluster:
    """Three nodes."""

    def __init__(self, folder: Path) -> None:
        self._switch = f"rv{os.getpid()}"
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "switch", "up")
        self.nodes = [Node(folder, self._switch, number) for number in NODES]

    def start(self) -> None:
        """Start the nodes at once: the first waits for the others."""
        with ThreadPoolExecutor(len(self.nodes)) as beside:
            list(beside.map(Node.start, self.nodes))
        policy = self.nodes[0].tool("rabbitmqctl", "-q", "set_policy", *SESSIONS)
        subprocess.run(policy, check=True, capture_output=True)

    def close(self) -> None:
        """End the nodes, and remove their data and the network."""
        for node in self.nodes:
            node.close()
        ip("netns", "del", self._switch)

    def url(self, account: str) -> str:
        """Return the URL of the nodes with an account."""
        places = (f"{node.host}:{node.port}" for node in self.nodes)
        return f"mqtt://{account}:secret@{','.join(places)}"
