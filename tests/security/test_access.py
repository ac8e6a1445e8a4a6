"""Who gets in, and what each account may do: every pair of account and topic is tried for real."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from credentials import relay_lines
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from raven_harness import stack
from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import Published, Received
from ravenbus.topics import CHANNELS, DASHBOARD, IMPORT, READER, RELAY, STORE, VERIFY, Topics
from tests.system.system import Client

NODES = ("home", "neighbour")
STORES = ("mongo-recorder", "sql-writer")
NOT_AUTHORIZED = 0x87
WAITING = "$SYS/broker/store/messages/count"
DROPPED = "$SYS/broker/publish/messages/dropped"
START = "homeassistant/status"

# An account may always speak as the node of its own name.
ACCOUNTS = (*NODES, *STORES, "dashboard", "verify", "watcher", "home-assistant", "health", "street")


def sent_by(role: str, **names: str) -> set[str]:
    """Return where a service with these names sends to, for each node there may be."""
    return {
        Topics().of(channel, **({"node": node, "kind": "warning"} | names))
        for channel in CHANNELS
        if role in channel.senders
        for node in ACCOUNTS
    }


def received_by(role: str, **names: str) -> set[str]:
    """Return where a service with these names hears from, for each node there may be."""
    return {
        Topics().of(channel, **({"node": node, "kind": "warning"} | names | others))
        for channel in CHANNELS
        if role in channel.receivers
        for node in ACCOUNTS
        for others in ({"store": f"raven-{store}", "service": "reader"} for store in STORES)
    }


def said_by(node: str) -> set[str]:
    """Return where a reader sends to, one before version 1.1 too."""
    return sent_by(READER, node=node) | {"raven/v1/dead/reader"}


OF_NODES = set().union(*(said_by(account) for account in ACCOUNTS))
OF_STORES = {s: sent_by(STORE, service=s, store=f"raven-{s}") for s in STORES}
COMMANDS = {f"raven/v1/{account}/command" for account in ACCOUNTS}
GONE = {f"raven/v1/gone/raven-{store}" for store in STORES}
HOMEASSISTANT = {START, "homeassistant/sensor/x/config"}
HOMEASSISTANT |= {topic for topic in OF_NODES if topic.startswith("homeassistant/")}
ELSEWHERE = {"raven", "raven/v1", "raven/v2/home/reading/warning", "raven/v1/home", "other/topic"}
ELSEWHERE |= {"raven/v1/home/reading", "raven/v1/home/reading/warning/x", "raven/v1/home/status/x"}
ELSEWHERE |= {"$SYS/broker/version", "raven/v1//status", "raven/v1/home/settings"}
OTHERS_STORE = {"raven/v1/neighbour/stored/other-store"}
ELSEWHERE |= OTHERS_STORE
TOPICS = (
    OF_NODES.union(*OF_STORES.values()) | COMMANDS | HOMEASSISTANT | ELSEWHERE | {WAITING, DROPPED}
)

NOBODYS = {"raven/v1//status"}
"""The status of no node: a wildcard stands for a level without a name too."""
MAY_WRITE = {account: said_by(account) for account in ACCOUNTS}
MAY_READ = {account: TOPICS & received_by(READER, node=account) for account in ACCOUNTS}
MAY_READ["neighbour"] |= OTHERS_STORE
for store in STORES:
    MAY_WRITE[store] |= OF_STORES[store]
    MAY_READ[store] |= received_by(STORE)
MAY_READ["dashboard"] |= received_by(DASHBOARD) | OTHERS_STORE | NOBODYS
# It also removes what is retained of a home that is gone.
MAY_WRITE["verify"] |= sent_by(VERIFY, store="raven-mongo-recorder") | OF_NODES | NOBODYS | GONE
MAY_WRITE["verify"] |= sent_by(IMPORT)
MAY_READ["verify"] |= NOBODYS | OF_NODES - {"raven/v1/dead/reader"}
MAY_READ["verify"] |= {f"raven/v1/dead/{store}" for store in STORES}
# A relay of several homes: those that its account names, here the one and not its neighbour.
MAY_WRITE["street"] |= sent_by(RELAY, node="home")
MAY_READ["street"] |= received_by(RELAY, node="home")
MAY_WRITE["watcher"] |= COMMANDS | HOMEASSISTANT
MAY_READ["watcher"] = HOMEASSISTANT | {topic for topic in TOPICS if topic.startswith("raven/v1/")}
MAY_READ["watcher"] |= {"raven/v1", DROPPED}
SHOWN = ("/latest/warning", "/status", "/reply")
MAY_WRITE["home-assistant"] |= {START}
MAY_READ["home-assistant"] |= HOMEASSISTANT | NOBODYS
MAY_READ["home-assistant"] |= {topic for topic in OF_NODES if topic.endswith(SHOWN)}
MAY_READ["health"] |= {WAITING}

WILDCARDS = ["#", "+/#", "$SYS/#", "raven/v1/+/+", "raven/v1/+/+/+", "homeassistant/#"]
WILDCARDS += ["$share/thieves/#", "$share/mongo-recorder/raven/v1/+/reading/+"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Broker]:
    """The project's access list, and an account beyond it that may do everything."""
    folder = tmp_path_factory.mktemp("broker")
    built = stack.Broker(folder, [*ACCOUNTS, "observer"])
    acl = folder / "acl"
    ours = stack.ACL.read_text()
    observer = "\nuser observer\ntopic readwrite #\ntopic read $SYS/#\n"
    acl.write_text(ours + relay_lines(ours, "street", ["home"]) + observer)
    config = Path(built.command[-1])
    config.write_text(config.read_text().replace(str(stack.ACL), str(acl)))
    built.start()
    yield built
    built.kill()


@pytest.fixture
def connect(broker: stack.Broker) -> Iterator[dict[str, Client]]:
    """A client of each account, made when it is asked for."""

    class Clients(dict[str, Client]):
        def __missing__(self, account: str) -> Client:
            return self.setdefault(account, Client(broker.url(account)))

    clients = Clients()
    yield clients
    for client in clients.values():
        client.connection.close()


def next_message(client: Client) -> Received:
    while True:
        event = client.events.get(timeout=30)
        if isinstance(event, Received):
            client.connection.acknowledge([event])
            return event


def pubacks(client: Client, wanted: dict[int, str]) -> dict[str, int]:
    """Return the reason that the broker gives for each topic."""
    reasons: dict[str, int] = {}
    while len(reasons) < len(wanted):
        event = client.events.get(timeout=30)
        if isinstance(event, Published):
            reasons[wanted[event.mid]] = event.reason
    return reasons


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_writes_its_own_topics_and_no_other(connect: dict[str, Client], account: str):
    """Every other publish is answered with Not authorized, and nobody ever sees it."""
    observer, client = connect["observer"], connect[account]
    observer.subscribe("#", "$SYS/#")
    token = uuid.uuid4().hex.encode()
    mids = {client.connection.publish(topic, token): topic for topic in sorted(TOPICS)}
    reasons = pubacks(client, mids)
    observer.publish("fence", token)
    seen: set[str] = set()
    while (message := next_message(observer)).topic != "fence":
        if message.payload == token:
            seen.add(message.topic)
    assert seen == MAY_WRITE[account]
    assert {topic for topic, reason in reasons.items() if reason < 0x80} == MAY_WRITE[account]
    refused = {reason for topic, reason in reasons.items() if topic not in MAY_WRITE[account]}
    assert refused == {NOT_AUTHORIZED}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_reads_its_own_topics_and_no_other(connect: dict[str, Client], account: str):
    """Whatever it subscribes to, with wildcards and shared: nothing comes that is not for it."""
    observer, client = connect["observer"], connect[account]
    client.subscribe(*sorted(TOPICS), *WILDCARDS)
    token = uuid.uuid4().hex.encode()
    for topic in sorted(TOPICS):
        if not topic.startswith("$SYS"):  # the broker's own, retained
            observer.publish(topic, token)
    observer.publish(START, b"fence")  # for everybody, and sent last
    seen: set[str] = set()
    while (message := next_message(client)).payload != b"fence":
        seen.add(message.topic)
    assert seen == MAY_READ[account]


def test_a_will_says_nothing_that_its_account_may_not(
    broker: stack.Broker, connect: dict[str, Client]
):
    """A client that dies with a will on another node's status leaves no word there."""
    observer = connect["observer"]
    observer.subscribe("raven/v1/+/status", "fence")
    for node in reversed(NODES):  # home dies last
        client = Paho(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set("home", broker.passwords["home"])
        client.will_set(f"raven/v1/{node}/status", b"will", qos=1, retain=True)
        connected = threading.Event()
        client.on_connect = lambda *_, connected=connected: connected.set()
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        assert connected.wait(30)
        client.socket().shutdown(socket.SHUT_RDWR)
        client.loop_stop()
    assert next_message(observer).topic == "raven/v1/home/status"
    observer.publish("fence", b"")
    assert next_message(observer).topic == "fence"


@pytest.mark.parametrize(
    "account",
    [
        "",
        "home:",
        "home:wrong",
        "nobody:wrong",
        "home:{neighbour}",
        "observer%00:{observer}",
        "HOME:{home}",
        "%2B:{home}",
    ],
)
def test_nobody_else_gets_in(broker: stack.Broker, account: str):
    """Without an account, with a wrong password, another's, or a name that is nearly one."""
    who = account.format(**broker.passwords)
    with pytest.raises(BrokerAwayError, match=r"Not authorized|Malformed|Unspecified"):
        Client(f"mqtt://{who}@127.0.0.1:{broker.port}")
