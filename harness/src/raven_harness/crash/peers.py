"""The command ``make crash PEER=raven2mqtt``: another program and our reader under one script.

Each has a stick, a broker and a durable subscriber of its own, and the same is done to both at
the same times.  What counts is what the subscriber got of what the stick said.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from raven_harness import stack
from raven_harness.crash import report
from raven_harness.crash.links import Links
from raven_harness.crash.play import FailureError, Player, Session
from raven_harness.crash.script import Kind, plan
from raven_harness.crash.stores import sent, stated_in_text, stated_of_reading
from raven_harness.crash.system import NODE, STATE, Breakable, Part, Stick, new_broker
from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import Broker as Connector
from ravenbus.mqtt import Events, Received
from ravenbus.settings import MqttUrl

RATE: Final = 20.0
"""Readings a second: what raven2mqtt keeps up with by far."""
QUIET_S: Final = 10.0
SETTLE_LIMIT_S: Final = 300.0
SESSION_S: Final = 86400
COUNTED: Final = {
    "instantaneous_demand": "InstantaneousDemand",
    "current_summation_delivered": "CurrentSummationDelivered",
    "price_cluster": "PriceCluster",
}
"""Kinds of readings that every such program is there for, by our name and by the stick's."""
PROGRAM, BROKER, LINK = "program", "broker", "program-broker"
BOTH: Final = (PROGRAM, BROKER)
KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind(4, BOTH, (0, 6)),
    "kill-pair": Kind(1, ("+".join(BOTH),), (0, 6)),
    "stop": Kind(2, BOTH, (0, 8)),
    "pause": Kind(3, BOTH, (1, 20)),
    "partition": Kind(4, (LINK,), (1, 30), ("cut", "refuse", "stall", "stall-out", "stall-back")),
    "unplug": Kind(2, ("stick",), (1, 10)),
}
"""The faults that a program with a broker can meet; a store is not part of it."""


class Subscriber(threading.Thread):
    """Takes all that comes to a topic, in a session that the broker keeps, QoS 1."""

    def __init__(self, url: str, topic: str) -> None:
        super().__init__(name="subscriber", daemon=True)
        self.received: list[bytes] = []
        self.ready = threading.Event()
        self.closing = threading.Event()
        self._topic = topic
        self._connect = Connector(
            MqttUrl(url), "crash-subscriber", session_expiry_s=SESSION_S, receive_maximum=1000
        )

    def run(self) -> None:
        """Receive; come back at once when the connection is lost."""
        while not self.closing.is_set():
            events: Events = SimpleQueue()
            try:
                connection = self._connect(events)
                connection.subscribe([self._topic])
                connection.settle()
            except BrokerAwayError:
                self.closing.wait(0.02)
                continue
            self.ready.set()
            while connection.alive() and not self.closing.is_set():
                try:
                    event = events.get(timeout=0.2)
                except Empty:
                    continue
                if isinstance(event, Received):
                    self.received.append(event.payload)
                    connection.acknowledge([event])
            connection.close()


class Side(NamedTuple):
    """One program, and what its subscriber makes of a message: its identity, and what it states."""

    name: str
    system: Breakable
    subscriber: Subscriber
    read: Callable[[bytes], tuple[str, int] | None]


class Kept(NamedTuple):
    """Counts of what a stick said, of that to an open port, and of what a subscriber has of it."""

    said: int
    heard: int
    kept: int
    lost: int
    twice: int
    altered: int


def ours(payload: bytes) -> tuple[str, int] | None:
    """Return a reading's identity and what it states."""
    reading = json.loads(payload)
    if reading["kind"] not in COUNTED:
        return None
    return f"{reading['hash']}/{reading['seq']}", stated_of_reading(reading)


def raven2mqtt(payload: bytes) -> tuple[str, int] | None:
    """Return a frame's text, the only identity that it has, and what it states."""
    frame = json.loads(payload)
    if frame["tag"] not in COUNTED.values():
        return None
    return frame["raw_xml"], stated_in_text(frame["tag"], frame["payload"])


def count(side: Side) -> Kept:
    """Compare what a subscriber got with the stick's ledger, each report as often as it was said.

    A message whose identity came before is a redelivery, which any store leaves out.
    """
    every = list(sent(side.system.stick.ledger, COUNTED))
    said = [one for one in every if one.whole]
    wanted = Counter(one.stated for one in said if not one.cached)
    known = {one.stated for one in said}
    got: dict[str, int] = {}
    for payload in side.subscriber.received:
        if found := side.read(payload):
            got[found[0]] = found[1]
    stated = Counter(got.values())
    kept = (wanted & stated).total()
    return Kept(
        said=sum(not one.cached for one in every),
        heard=wanted.total(),
        kept=kept,
        lost=wanted.total() - kept,
        twice=sum(max(0, n - max(1, wanted[one])) for one, n in stated.items() if one in known),
        altered=sum(n for one, n in stated.items() if one not in known),
    )


@contextmanager
def _side(folder: Path, name: str, seed: int) -> Iterator[Side]:
    with ExitStack() as ending:
        folder.mkdir()
        links = ending.enter_context(Links())
        watcher = "mongo-recorder" if name == "ours" else NODE
        broker = new_broker(folder, [NODE, "mongo-recorder"])
        stick = Stick(folder, RATE, seed)
        system = Breakable(folder, stick, {LINK: links.add(broker.port)})
        ending.callback(system.close)
        url = system.through(LINK, broker.url(NODE))
        topic, read, program = {"ours": _ours, "raven2mqtt": _raven2mqtt}[name](folder, stick, url)
        if name != "ours":
            _open_to_all(broker)
        subscriber = Subscriber(broker.url(watcher), topic)
        ending.callback(subscriber.join)
        ending.callback(subscriber.closing.set)
        broker.start()
        subscriber.start()
        if not subscriber.ready.wait(30):
            raise FailureError(f"nobody can subscribe, see {folder}")
        stick.start()
        system.parts = {BROKER: Part(broker, system.say), PROGRAM: Part(program, system.say)}
        system.parts[BROKER].begin()
        stack.wait_until(lambda: "ready" in stick.said(), f"the stick is ready, see {folder}")
        program.start()
        system.parts[PROGRAM].begin()
        yield Side(name, system, subscriber, read)


def _open_to_all(broker: stack.Broker) -> None:
    """Let the one account of a broker use the peer's topics: our access list knows them not."""
    config = Path(broker.command[-1])
    acl = config.with_name("acl")
    acl.write_text(f"user {NODE}\ntopic readwrite #\n")
    acl.chmod(0o600)
    config.write_text(config.read_text().replace(str(stack.ACL), str(acl)))


def _ours(folder: Path, stick: Stick, url: str) -> tuple[str, Any, stack.Process]:
    program = stack.reader(folder, stick.device, url, NODE)
    return "raven/v1/+/reading/+", ours, program


def _raven2mqtt(folder: Path, stick: Stick, url: str) -> tuple[str, Any, stack.Process]:
    where = MqttUrl(url)
    host, port = where.addresses[0]
    config = folder / "raven2mqtt.toml"
    config.write_text(
        f'[serial]\ndevice = "{stick.device}"\nstartup_flush_seconds = 0.0\n'
        f'[mqtt]\nhost = "{host}"\nport = {port}\n'
        f'username = "{where.username}"\npassword = "{where.password}"\n'
        f'[service]\nstate_file = "{folder}/raven2mqtt.json"\n'
    )
    command = [str(stack.peers() / "raven2mqtt"), "--config", str(config), "run"]
    return "raven2mqtt/emu2/raw", raven2mqtt, stack.Process("raven2mqtt", command, folder)


def _play(sides: Sequence[Side], rounds: Sequence[Any], stop: threading.Event) -> Counter[str]:
    """Do the same to every side at the same times; return how often each kind was done."""
    players = [Player(side.system, stop, _progress_of(side)) for side in sides]
    problems: list[BaseException] = []

    def play(player: Player) -> None:
        try:
            for one in rounds:
                player.play(one)
        except BaseException as error:  # noqa: BLE001 - raised again where the run can end on it
            problems.append(error)

    threads = [threading.Thread(target=play, args=(player,), daemon=True) for player in players]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    if found := [problem for player in players for problem in player.problems]:
        raise FailureError("; ".join(found))
    for side, player in zip(sides, players, strict=True):
        side.system.stick.tell("stop")
        _settle(side, player)
    return players[0].done


def _progress_of(side: Side) -> Callable[[], str]:
    return lambda: f"{side.name}: {len(side.subscriber.received)} messages received"


def _settle(side: Side, player: Player) -> None:
    """Wait until nothing more comes."""
    begun = since = time.monotonic()
    last = -1
    while time.monotonic() - since < QUIET_S:
        player.wait(0.2)
        if len(side.subscriber.received) != last:
            since, last = time.monotonic(), len(side.subscriber.received)
        if time.monotonic() - begun > SETTLE_LIMIT_S:
            raise FailureError(f"{side.name} does not come to an end")


def _table(result: Mapping[str, Any]) -> str:
    lines = [
        (
            f"{result['minutes']:g} minutes, {sum(result['faults'].values())} faults, "
            f"seed {result['seed']}, {result['rate']:g} readings a second."
        ),
        "",
        "| program | said | to an open port | kept | of these lost | twice | altered |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, kept in result["programs"].items():
        lost = f"{kept['lost']:,} ({kept['lost'] / kept['heard']:.1%})" if kept["heard"] else "-"
        shown = [f"{kept[key]:,}" for key in ("said", "heard", "kept", "twice", "altered")]
        shown.insert(3, lost)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    faults = ", ".join(f"{kind} {times}" for kind, times in result["faults"].items())
    versions = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    return "\n".join([*lines, "", f"Done to each: {faults}.", f"Measured on: {versions}."])


def main() -> int:
    """Run; return the exit status: 0 if our reader kept everything."""
    parser = argparse.ArgumentParser(prog="crash.peers", description=__doc__)
    parser.add_argument("peer", choices=("raven2mqtt",))
    session = Session.begun(parser)
    arguments, seed, folder = session.arguments, session.seed, session.folder
    print(f"make crash PEER={arguments.peer} MINUTES={arguments.minutes:g} SEED={seed}: {folder}")
    rounds = plan(seed, arguments.minutes, KINDS)
    try:
        with ExitStack() as ending:
            names = ("ours", arguments.peer)
            sides = [ending.enter_context(_side(folder / name, name, seed)) for name in names]
            faults = _play(sides, rounds, session.stop)
            kept = {side.name: count(side)._asdict() for side in sides}
    except KeyboardInterrupt:
        print(f"stopped; logs in {folder}")
        return 130
    except (FailureError, RuntimeError) as error:
        print(f"\nFAILED: {error}\nlogs: {folder}")
        return 1
    result = {
        "seed": seed,
        "minutes": arguments.minutes,
        "rate": RATE,
        "faults": dict(sorted(faults.items())),
        "programs": kept,
        "machine": report.machine() | {arguments.peer: _version(arguments.peer)},
    }
    (STATE / f"{arguments.peer}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{_table(result)}")
    if arguments.write:
        report.write(arguments.write, f"crash PEER={arguments.peer}", _table(result))
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _version(peer: str) -> str:
    lines = stack.PEERS_LOCK.read_text().splitlines()
    return next(one.split()[0].partition("==")[2] for one in lines if one.startswith(f"{peer}=="))


if __name__ == "__main__":
    sys.exit(main())
