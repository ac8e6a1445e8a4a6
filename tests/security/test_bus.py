"""A hostile node with a valid account: what it sends is data or a dead letter, never more."""

from __future__ import annotations

import json
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raven_harness import stack
from ravenbus.messages import Run, encode
from ravenbus.mqtt import NO_SUBSCRIBERS, PACKET_RESERVE, TOO_LARGE, puback_name
from ravenbus.notifications import KINDS
from tests.system.system import NODE, wait_until

from .conftest import PACKET_MAX, Site

NOON = "2026-03-01T12:00:00Z"
DEMAND = {"kind": "instantaneous_demand", "device": None, "meter": None, "time": NOON}
DEMAND |= {"multiplier": 1, "divisor": 1000, "demand": 1437, "demand_kw": 1.437}


class Node:
    """A node with an account, and a run of its own for each test."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.client = site.client(NODE)
        self.hash = str(uuid.uuid4())
        self.seq = 0

    def reading(self, **changed: Any) -> dict[str, Any]:
        self.seq += 1
        envelope = {"v": 1, "node": NODE, "run": "default", "hash": self.hash, "seq": self.seq}
        return {**envelope, "received": NOON, **DEMAND, **changed}

    def send(self, payload: bytes | dict[str, Any], kind: str = "instantaneous_demand") -> None:
        body = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        self.client.publish(f"raven/v1/{NODE}/reading/{kind}", body)

    def fence(self) -> None:
        """Return when both stores have stored and buried all that was sent before."""
        last = self.reading()
        self.send(last)
        wait_until(
            lambda: self.site.db["instantaneous_demand"].find_one({"_id": self.id(last)}),
            f"MongoDB has the last one\n{self.site.recorder.text()[-1500:]}",
        )
        query = "SELECT 1 FROM instantaneous_demand WHERE hash = %s AND seq = %s"
        wait_until(
            lambda: self.site.sql(query, self.hash, last["seq"]),
            f"MySQL has the last one\n{self.site.writer.text()[-1500:]}",
        )
        # Its batch is stored; what was buried of that batch is when the next one is.
        run = Run(node=NODE, run="fence", hash=str(uuid.uuid4()), started=datetime.now(UTC))
        self.client.publish(f"raven/v1/{NODE}/run", encode(run))
        wait_until(lambda: self.site.db["runs"].find_one({"_id": run.hash}), "MongoDB has a run")
        query = "SELECT 1 FROM run_info WHERE hash = %s"
        wait_until(lambda: self.site.sql(query, run.hash), "MySQL has a run")

    def id(self, reading: dict[str, Any]) -> str:
        return f"{self.hash}/{reading['seq']}"

    def letters(self) -> list[dict[bytes, str]]:
        """Return what each store has buried of this node's: first bytes of the payload, reason."""
        topic = f"raven/v1/{NODE}/reading/"
        mongo = self.site.db["dead_letter"].find({"topic": {"$regex": f"^{topic}"}})
        sql = self.site.sql(
            "SELECT payload, reason FROM dead_letter WHERE topic LIKE %s", f"{topic}%"
        )
        return [
            {one["payload"][:HEAD]: one["reason"] for one in mongo},
            {payload[:HEAD]: reason for payload, reason in sql},
        ]


HEAD = 100
LARGEST = PACKET_MAX - PACKET_RESERVE
COMPOSE = (stack.ROOT / "docker-compose.yml").read_text()
CONTAINER_BYTES = int(COMPOSE.partition("mem_limit: ")[2].partition("m")[0]) * 2**20
"""What a service's container may use; 65 MB are under way to each store, 98 MB are sent."""


@pytest.fixture
def node(site: Site) -> Node:
    return Node(site)


ODD = {
    "sql": "'; DROP TABLE instantaneous_demand; --",
    "sql, quoted": "\\'; DROP TABLE instantaneous_demand; -- \" ` %s %(run)s {run}",
    "sql, of many bytes": "\u00bf' OR 1=1 -- ",
    "mongo": "$where",
    "mongo, JSON": '{"$gt": ""}',
    "mongo, a path": "a.b.$[].c",
    "prototype": "__proto__",
    "right to left": "\u202eesrever\u202c \u2066x",
    "8-bit terminal": "\x9b2J\x85next",
    "line separator": "a\u2028b\u2029c",
    "four bytes": "\U0001f50c\U0001f3e0" * 50,
    "combining": "e\u0301 \u00e9 \ufeff \ufffd \uffff",
    "blanks": "  x  ",
    "null": "NULL",
    "template": "${jndi:ldap://x/a} {{7*7}} %n%n",
}
"""Names that something behind us might obey."""
NOT_A_NAME = ["\0", "a\nb", "\x1b[2J", "x" * 101, "", 1, None, ["x"], {"$gt": ""}, True]


@pytest.mark.parametrize("backslashes", ["as usual", "as text"])
def test_odd_names_are_stored_as_they_are(site: Site, node: Node, backslashes: str):
    """Run names, labels and texts come out byte for byte, and every table is still there."""
    tables = site.sql("SHOW TABLES")
    if backslashes == "as text":
        _another_default(site, "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT")
    runs: dict[str, str] = {}
    for text in ODD.values():
        demand = node.reading(run=text)
        node.send(demand)
        runs[node.id(demand)] = text
        price = {"price": 1, "trailing_digits": 0, "price_per_kwh": 1.0, "kind": "price_cluster"}
        node.send(node.reading(run=text, tier_label=f"\0\r\n{text}", **price), "price_cluster")
        node.send(node.reading(run=text, text=f"\0\x1b{text}", kind="warning"), "warning")
    node.fence()
    mongo = {kind: list(site.db[kind].find({"hash": node.hash})) for kind in KINDS}
    stored = {one["_id"]: one["run"] for one in mongo["instantaneous_demand"]}
    assert stored.items() >= runs.items()
    labels = {f"\0\r\n{text}" for text in ODD.values()}
    assert {one["tier_label"] for one in mongo["price_cluster"]} == labels
    assert {one["text"] for one in mongo["warning"]} == {f"\0\x1b{t}" for t in ODD.values()}

    query = "SELECT CONCAT(hash, '/', seq), run FROM instantaneous_demand WHERE hash = %s"
    assert dict(site.sql(query, node.hash)).items() >= runs.items()
    found = site.sql("SELECT tier_label FROM price_cluster WHERE hash = %s", node.hash)
    assert {label for (label,) in found} == labels
    bodies = site.sql("SELECT body FROM notification WHERE hash = %s", node.hash)
    assert {json.loads(body)["text"] for (body,) in bodies} == {f"\0\x1b{t}" for t in ODD.values()}
    assert site.sql("SHOW TABLES") == tables
    assert all(log.isprintable() for store in site.stores for log in store.text().split("\n"))


def _another_default(site: Site, mode: str) -> None:
    """Have the writer connect to a server that reads statements differently."""
    ((before,),) = site.sql.admin("SELECT @@GLOBAL.sql_mode")
    site.sql.admin(f"SET GLOBAL sql_mode = '{mode}'")
    try:
        site.writer.stop()
        site.writer.start()
        site.wait_for_log(site.writer, "connected to the broker")
    finally:
        site.sql.admin(f"SET GLOBAL sql_mode = '{before}'")


def test_odd_keys_are_neither_obeyed_nor_stored(site: Site, node: Node):
    """A document has the contract's fields, with the values that the contract takes from it."""
    usual = node.reading()
    keys = ["$where", "$set", "__proto__", "constructor", "_id", "a.b", "", "\0", "id", "seq "]
    node.send(usual | {key: {"$gt": ""} for key in keys})
    node.fence()
    (odd, plain) = site.db["instantaneous_demand"].find({"hash": node.hash}).sort("seq")
    assert odd.keys() == plain.keys()
    assert odd["_id"] == node.id(usual)
    assert [document for document in (odd, plain) if _has_operators(document)] == []


def _has_operators(value: Any) -> bool:
    if isinstance(value, dict):
        return any(key.startswith("$") or _has_operators(one) for key, one in value.items())
    return isinstance(value, list) and any(map(_has_operators, value))


def _poison(node: Node) -> dict[str, tuple[bytes, str]]:
    """Return messages that no store can take, each with the reason for it."""

    def with_(**changed: Any) -> bytes:
        return json.dumps(node.reading(**changed)).encode()

    def number(name: str, text: str) -> bytes:
        return with_(**{name: 424242}).replace(b"424242", text.encode())

    deep = 20_000
    found: dict[str, tuple[bytes, str]] = {
        "nothing": (b"", "not-json"),
        "zero bytes": (bytes(1000), "not-json"),
        "a byte order mark": (b"\xef\xbb\xbf" + with_(), "not-json"),
        "not UTF-8": (with_(run="@@").replace(b"@@", b"\xff\xfe"), "not-json"),
        "half a character": (with_(run="\ud800"), "not-json"),
        "nested objects": (b'{"a":' * (deep // 2), "not-json"),
        "nested in a field": (with_(node="@@").replace(b'"@@"', b"[" * deep), "not-contract"),
        "nested lists": (b"[" * 3 * deep, "not-contract"),
        "nested in a reading": (
            with_(x="@@").replace(b'"@@"', b"[" * deep + b"]" * deep),
            "not-json",
        ),
        "as large as can be": (b"x" * LARGEST, "not-json"),
        "5000 digits": (number("seq", "9" * 5000), "not-contract"),
        "5000 digits of a float": (number("demand_kw", "9" * 5000), "not-contract"),
        "beyond a float": (number("demand_kw", "1e999"), "not-contract"),
        "a float for a number": (number("demand", "1e3"), "not-contract"),
        "not a number": (number("demand_kw", "NaN"), "not-json"),
        "another node": (with_(node="neighbour"), "not-contract"),
        "another kind": (with_(kind="warning", text="x"), "not-contract"),
        "a local time": (with_(time="2026-03-01T12:00:00+01:00"), "not-contract"),
        "an operator for a hash": (with_(hash={"$ne": None}), "not-contract"),
        "an operator for a number": (with_(seq={"$inc": 1}), "not-contract"),
        "another contract": (with_(v=2), "contract-version"),
    }
    for name in NOT_A_NAME:
        found[f"run {str(name)[:9]!r}"] = with_(run=name), "not-contract"
    return found


def test_poison_is_buried_and_the_next_reading_stored(site: Site, node: Node):
    """Each message that is no reading is in both stores' dead letters, with the reason."""
    poison = _poison(node)
    for payload, _ in poison.values():
        node.send(payload)
    node.fence()
    expected = {payload[:HEAD]: reason for payload, reason in poison.values()}
    mongo, sql = node.letters()
    assert {head: mongo.get(head) for head in expected} == expected
    assert {head: sql.get(head) for head in expected} == expected
    stored = site.db["instantaneous_demand"].count_documents({"hash": node.hash})
    assert stored == 1, "the fence alone"
    for store in site.stores:
        assert "connection lost" not in store.text()


def test_more_poison_than_the_broker_takes_letters_at_once_blocks_nobody(site: Site, node: Node):
    """A store has more to bury in one batch than it may publish without an answer."""
    lost = [store.text().count("connection lost") for store in site.stores]
    for store in site.stores:
        store.send(signal.SIGSTOP)
    letters = [b"poison %d" % number for number in range(1000)]
    for letter in letters:
        node.send(letter)
    for store in site.stores:
        store.send(signal.SIGCONT)
    node.fence()
    assert [store.text().count("connection lost") for store in site.stores] == lost
    assert all({*letters} <= found.keys() for found in node.letters())


def test_what_is_said_twice_counts_as_said_last(site: Site, node: Node):
    """Doubled keys and a flood of keys make one reading, the same in both stores."""
    twice = json.dumps(node.reading()).encode()[:-1] + b',"seq":77,"demand":2}'
    node.send(twice)
    flood = b"".join(b'"a":0,' for _ in range(10_000))
    node.send(b"{" + flood + json.dumps(node.reading()).encode()[1:])
    node.fence()
    expected = [(2, 1437), (3, 1437), (77, 2)]
    found = site.db["instantaneous_demand"].find({"hash": node.hash}).sort("seq")
    assert [(one["seq"], one["demand"]) for one in found] == expected
    query = "SELECT seq, demand FROM instantaneous_demand WHERE hash = %s ORDER BY seq"
    assert list(site.sql(query, node.hash)) == expected


def test_a_flood_of_large_messages_fits_into_a_container(site: Site, node: Node):
    """More than a store may have unanswered, each as large as can be: no limit is hit."""
    for store in site.stores:
        store.send(signal.SIGSTOP)
    count = 1500
    for number in range(count):
        node.send(b"%08d" % number + bytes(LARGEST - 8))
    for store in site.stores:
        store.send(signal.SIGCONT)
    node.fence()
    assert site.db["dead_letter"].count_documents({"size": LARGEST}) >= count
    query = "SELECT COUNT(*) >= %s FROM dead_letter WHERE size = %s"
    assert site.sql(query, count, LARGEST) == ((1,),)
    for store in site.stores:
        assert peak_bytes(store.pid) < CONTAINER_BYTES, store.name


def test_what_is_too_large_is_refused_and_the_connection_goes_on(site: Site):
    """A broker ends the connection for it, again and again; so it is not sent."""
    client = site.client(NODE)
    topic = f"raven/v1/{NODE}/raw"
    wanted = {
        client.connection.publish(topic, bytes(size)): reason
        for size, reason in ((PACKET_MAX, TOO_LARGE), (LARGEST, NO_SUBSCRIBERS))
    }
    got = [client.events.get(timeout=30) for _ in wanted]
    assert {event.mid: event.reason for event in got} == wanted
    assert puback_name(TOO_LARGE) == "Packet too large"


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(one for one in status.splitlines() if "VmHWM" in one).split()[1])
