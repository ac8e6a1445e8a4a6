"""A whole system of real parts for one test: broker, stick, reader, recorder, and a database."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from pymongo import MongoClient

from raven_harness import stack
from raven_harness.stack import WAIT_S, wait_until
from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import Broker, Connection, Events, Received
from ravenbus.settings import MqttUrl
from tests import judge

NODE = "home"


def patiently(ask: Callable[[], Any]) -> Any:
    """Return what a broker answers, which on a busy machine may take longer than services wait."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return ask()
        except BrokerAwayError as error:
            if "does not" not in str(error) or time.monotonic() > end:
                raise


class Client:
    """A client of the broker, for looking and for making trouble."""

    def __init__(self, url: str) -> None:
        self.events: Events = SimpleQueue()
        name = f"test-{uuid.uuid4().hex[:8]}"
        broker = Broker(MqttUrl(url), name, receive_maximum=65535)
        self.connection: Connection = patiently(lambda: broker(self.events))

    def subscribe(self, *topics: str) -> None:
        """Subscribe, and return when the broker has confirmed it: what is said from now on comes."""
        self.connection.subscribe(list(topics))
        patiently(self.connection.settle)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        if qos:
            self.connection.publish(topic, payload)
        else:
            self.connection._client.publish(topic, payload, qos=0)

    def messages(self) -> Iterator[Received]:
        """Yield what has come so far."""
        while True:
            try:
                event = self.events.get_nowait()
            except Empty:
                return
            if isinstance(event, Received):
                self.connection.acknowledge([event])
                yield event


class System:
    """The parts, started on demand and all ended with the test; the database is of a running server.

    ``mongo`` is that server, None where MONGO_URL names one.
    """

    def __init__(
        self, folder: Path, mongo: stack.Mongo | None, *accounts: str, broker: Any = None
    ) -> None:
        self.folder = folder
        self.mongo = mongo
        self.broker = broker or stack.Broker(
            folder,
            [NODE, "mongo-recorder", "sql-writer", "watcher", "verify", "intruder", *accounts],
        )
        self.database = f"raven_test_{uuid.uuid4().hex[:12]}"
        self.device = str(folder / "ttyRAVEN")
        self.reader = stack.reader(folder, self.device, self.broker.url(NODE), NODE)
        self.recorder = stack.recorder(folder, self.broker.url("mongo-recorder"), self.mongo_url)
        self.simulator = stack.simulator(folder)
        self.others: list[stack.Process] = []
        self.clients: list[Client] = []
        self._mongo_client: MongoClient[dict[str, Any]] | None = None

    @property
    def mongo_url(self) -> str:
        server = self.mongo.url if self.mongo else os.environ["MONGO_URL"]
        return stack.in_database(server, self.database)

    @property
    def db(self) -> Any:
        if self._mongo_client is None:
            self._mongo_client = MongoClient(
                self.mongo_url, tz_aware=True, serverSelectionTimeoutMS=5000
            )
        return self._mongo_client.get_default_database()

    def start(self, *options: str, reader: bool = True, recorder: bool = True) -> None:
        """Start everything; the stick waits for its reader."""
        self.broker.start()
        if recorder:
            self.recorder.start()
            self.wait_for_log(self.recorder, "connected to the broker")
        self.plug_in(*options)
        if reader:
            self.reader.start()

    def plug_in(self, *options: str) -> None:
        """Start the stick and wait until it is there."""
        self.simulator.command[1:] = [
            *("--pty", self.device, "--wait", "--ledger", str(self.folder / "ledger")),
            *options,
        ]
        self.simulator.start()
        self.wait_for_log(self.simulator, "ready")

    def wait_for_log(self, process: stack.Process, text: str) -> str:
        """Return what a process has printed since its start once ``text`` is in it."""
        return wait_until(
            lambda: process.said() if text in process.said() else None,
            f"{process.name} says {text!r}; it says:\n{process.text()[-2000:]}",
        )

    def outage(self, server: stack.Process, client: stack.Process) -> None:
        """Kill a server, and start it again; each time wait until its client has noticed."""
        before = len(client.text())
        server.kill()
        wait_until(
            lambda: "problem check=" in client.text()[before:],
            f"{client.name} misses {server.name}",
        )
        server.start()
        wait_until(
            lambda: "recovered check=" in client.text()[before:].rpartition("problem check=")[2],
            f"{client.name} has {server.name} back",
        )

    def watch(self, *topics: str) -> Client:
        """Return a client that sees the topics."""
        client = self.client("watcher")
        client.subscribe(*topics)
        return client

    def client(self, account: str) -> Client:
        """Return a client with an account."""
        client = Client(self.broker.url(account))
        self.clients.append(client)
        return client

    def run_process(self, process: stack.Process) -> stack.Process:
        """Start another process, which the test's end stops."""
        self.others.append(process)
        process.start()
        return process

    def sent(self) -> Counter[str]:
        """Count, by kind, what the stick sent whole and a reader has to accept once."""
        lines = (self.folder / "ledger").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return Counter(r["kind"] for r in records if r.get("whole") and not r["cached"])

    def accepted(self) -> tuple[str, int]:
        """Return the run's hash and the number of readings that the reader accepted in it."""
        return stack.accepted(self.folder, NODE)

    def stored(self) -> tuple[Counter[str], list[int]]:
        """Return what is stored of the run: a count by kind, and every number."""
        return judge.in_mongo(self.db, self.accepted()[0])

    def wait_until_stored(self, count: int) -> list[int]:
        """Return the stored numbers once there are ``count`` of them."""
        wait_until(
            lambda: len(self.stored()[1]) >= count,
            f"{count} readings are stored; accepted {self.accepted()}, "
            f"stored {len(self.stored()[1])}",
        )
        return self.stored()[1]

    def assert_complete(self) -> None:
        """Wait for the stick to finish; then device, reader and store agree exactly."""
        self.simulator.wait(WAIT_S)
        sent = self.sent()
        self.wait_until_stored(sent.total())
        kinds, numbers = self.stored()
        assert numbers == list(range(1, self.accepted()[1] + 1))
        assert kinds == sent

    def close(self) -> None:
        for client in self.clients:
            client.connection.close()
        if self._mongo_client:
            if not self.mongo:
                self._mongo_client.drop_database(self.database)
            self._mongo_client.close()
        for process in (self.reader, self.simulator, *self.others, self.recorder, self.broker):
            if process.running:
                process.kill()
