"""One home with an account of its own, against the others: what it does costs itself alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from msgspec.structs import replace

from raven_harness import stack
from ravenbus.messages import DeadLetter, encode
from ravenbus.mqtt import Broker
from ravenbus.settings import MqttUrl
from tests.system.system import NODE, Client, System, patiently, wait_until
from tests.unit.reader.examples import demand

from .conftest import Site
from .test_bus import Node

VICTIM = "neighbour"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FORGED = DeadLetter(
    id="f" * 32,
    service="reader",
    node=VICTIM,
    at=NOON,
    reason="demand-too-large",
    detail="nothing of it is true",
    payload=demand(),
    size=len(demand()),
)
ID_OF = "raven-reader-{0}", "raven-mongo-recorder", "raven-mongo-recorder-2", "raven-sql-writer"


@pytest.fixture
def home(site: Site) -> Client:
    return site.client(NODE)


def letters(site: Site, id_: str) -> dict[str, Any] | None:
    """Return the dead letter that MongoDB and MySQL agree on, None while one lacks it."""
    mongo = site.db["dead_letter"].find_one({"_id": id_})
    sql = site.sql("SELECT service, node, topic, reason FROM dead_letter WHERE id = %s", id_)
    if not mongo or not sql:
        return None
    assert sql[0] == (mongo["service"], mongo["node"], mongo["topic"], mongo["reason"])
    return dict(mongo)


def tool(site: Site, *arguments: str) -> tuple[int, str]:
    """Run one of the operator's commands over both stores."""
    env = {
        "PATH": os.environ["PATH"],
        "MQTT_URL": site.broker.url("verify"),
        "MONGO_URL": site.mongo_url,
        "MYSQL_URL": site.sql.url,
    }
    command = [str(stack.BIN / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_nobody_takes_the_session_of_another(site: Site):
    """A home connects under every id that it can know: no store and no reader is thrown out."""
    reader = stack.reader(site.folder, "/dev/none", site.broker.url(VICTIM), VICTIM)
    site.run_process(reader)
    site.wait_for_log(reader, "connected to the broker")
    before = reader.text().count("connected to")
    url = MqttUrl(site.broker.url(NODE))
    for name in (pattern.format(VICTIM) for pattern in ID_OF):
        for secret in (False, True):
            Broker(url, name, secret=secret)(SimpleQueue()).close(end_session=True)
    Node(site).fence()
    for process in (*site.stores, reader):
        assert "connection lost" not in process.text()
        assert "client id" not in process.text()
    assert reader.text().count("connected to") == before
    assert reader.stop() == 0


def test_a_letter_in_the_name_of_another_is_seen_to_be_none(site: Site, home: Client):
    """On its own topic it is no letter; on the one that readers of 1.0 share it says where it came."""
    named = replace(FORGED, id="d" * 32, topic=f"raven/v1/{VICTIM}/reading/warning")
    home.publish(f"raven/v1/{NODE}/dead", encode(FORGED))
    home.publish("raven/v1/dead/reader", encode(named))
    shared = replace(FORGED, id="e" * 32)
    home.publish("raven/v1/dead/reader", encode(shared))
    letter = wait_until(lambda: letters(site, shared.id), "what any reader may have sent is there")
    assert letter["topic"] == "raven/v1/dead/reader"
    Node(site).fence()
    for id_ in (FORGED.id, named.id):
        assert letters(site, id_) is None
    refused = site.db["dead_letter"].find({"topic": f"raven/v1/{NODE}/dead"})
    assert [one["reason"] for one in refused] == ["not-contract"]

    status, said = tool(site, "raven-dead-letters", "replay", shared.id)
    assert (status, "it came from the serial line" in said) == (0, True)
    status, listed = tool(site, "raven-dead-letters", "show", "--json", shared.id)
    state = site.folder / f"state-{VICTIM}"
    env = {"PATH": os.environ["PATH"], "RAVEN_STATE": str(state), "RAVEN_NODE": VICTIM}
    command = [str(stack.BIN / "raven-reader"), "replay"]
    done = subprocess.run(
        command, env=env, input=listed, capture_output=True, text=True, check=False
    )
    assert "its sender is not known" in done.stdout
    assert "Nothing is accepted yet" in done.stdout
    assert stack.accepted(site.folder, VICTIM)[1] == 0


def test_a_replay_sends_nothing_in_the_name_of_another(site: Site):
    """Letters that 1.0 stored may say that a reader sent them on another's topic: they stay."""
    topic = f"raven/v1/{VICTIM}/reading/instantaneous_demand"
    reading = Node(site).reading(node=VICTIM)
    payload = json.dumps(reading).encode()
    old = {"service": "reader", "node": VICTIM, "at": NOON, "reason": "r", "detail": "d"}
    old |= {"topic": topic, "payload": payload, "size": len(payload), "v": 1}
    site.db["dead_letter"].insert_one({"_id": "c" * 32, **old})
    status, said = tool(site, "raven-dead-letters", "replay", "--yes", "c" * 32)
    assert (status, "it came from the serial line" in said) == (1, True)
    Node(site).fence()
    assert site.db["instantaneous_demand"].find_one({"hash": reading["hash"]}) is None
    site.db["dead_letter"].delete_one({"_id": "c" * 32})


def test_sessions_runs_and_kinds_without_number_stop_nobody(site: Site):
    """100 sessions that never come back, 300 runs, every kind: the neighbour is stored at once."""
    for _ in range(100):
        broker = Broker(MqttUrl(site.broker.url(NODE)), uuid.uuid4().hex, session_expiry_s=3600)
        connection = patiently(lambda b=broker: b(SimpleQueue()))
        connection.subscribe([f"raven/v1/{NODE}/command", f"raven/v1/{NODE}/stored/+"])
        patiently(connection.settle)
        connection.close()
    node = Node(site)
    for _ in range(300):
        node.hash = str(uuid.uuid4())
        node.send(node.reading())
    other = site.client(VICTIM)
    theirs = node.reading(node=VICTIM, hash=str(uuid.uuid4()), seq=2**63 - 1)
    other.publish(f"raven/v1/{VICTIM}/reading/instantaneous_demand", json.dumps(theirs).encode())
    for store in (
        lambda: site.db["instantaneous_demand"].find_one({"hash": theirs["hash"]}),
        lambda: site.sql("SELECT 1 FROM instantaneous_demand WHERE hash = %s", theirs["hash"]),
    ):
        wait_until(store, "the neighbour's reading is stored")
    node.fence()


@pytest.fixture
def measured(tmp_path: Path, mongo: stack.Mongo | None) -> Iterator[int]:
    """A reader whose metrics are served."""
    system, port = System(tmp_path, mongo), stack.free_port()
    system.reader.env["RAVEN_METRICS_PORT"] = str(port)
    try:
        system.start("--rate", "20", recorder=False)
        system.wait_for_log(system.reader, "connected to the broker")
        yield port
    finally:
        system.close()


def test_metrics_answer_whoever_else_is_connected(measured: int):
    """Connections that say nothing, or too much, and every path: numbers, and nothing else."""

    def ask(path: str, method: str = "GET") -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{measured}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    idle = [socket.create_connection(("127.0.0.1", measured)) for _ in range(20)]
    loud = socket.create_connection(("127.0.0.1", measured))
    loud.sendall(b"GET /" + b"x" * 2**20)
    for path in (
        "/metrics",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/proc/self/environ",
        "/?x=<script>",
    ):
        status, body = ask(path)
        assert status in (200, 404)
        assert b"root:" not in body
        assert b"PATH=" not in body
        assert b"<script>" not in body
    assert ask("/metrics", "POST")[0] >= 400
    assert b"raven_fragments_total" in ask("/metrics")[1]
    for one in (*idle, loud):
        one.close()
