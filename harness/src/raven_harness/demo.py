"""The demo: a stick, every service and what they store in, in one terminal.

It ends on Ctrl-C, or by itself after DURATION seconds, and then compares what the device sent
with what each store has.  Whatever is killed meanwhile is started again, as a container would be.
What it stored is removed at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from textwrap import fill
from typing import Any
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from raven_harness import stack
from ravenbus.errors import BrokerAwayError, RavenError
from ravenbus.messages import Reading, decode_reading
from ravenbus.mqtt import Broker as Connector
from ravenbus.mqtt import Events, Received
from ravenbus.notifications import Notification, ProfileData
from ravenbus.ranges import count, without
from ravenbus.readback import Holding, Store, in_order
from ravenbus.settings import MqttUrl
from ravenbus.topics import LATEST, Topics
from ravenmongo.readback import MongoStore
from ravenmongo.settings import MongoUrl
from ravensql.readback import MysqlStore
from ravensql.settings import MysqlUrl

NODE = "demo"
TOPICS = Topics()
SPEED = "8"
"""A RAVEn reports its demand every 8 s: so one comes every second."""
REGISTER_WH = "20000000"
"""The simulated meter's at the start, which is where its past ends."""
PAST = ("history", "--days", "400", "--homes", "2", "--node", NODE, "--every", "3600")
"""The MongoDB-speaking server takes some 150 readings a second: each home is there in two minutes."""
SETTLE_S = 30.0
SILENT_S = 60.0
"""A stick says something within this time, if it is one."""
SILENT = """
The stick has said nothing for a minute.
- Is it the right device?  `.venv/bin/raven-reader devices` lists the sticks that
  are plugged in; RAVEN_DEVICE=auto takes the only one.
- Does another program read it?  A device has one reader.
- Has the utility paired it with the meter?  `.venv/bin/raven-reader capture -`
  shows what it says, once the demo has ended.
"""
WIDTH = 80
INDENT = 12
KILLED_MARGIN = timedelta(seconds=1.5)
"""Time around the reader's end in which what a stick says may be in no one's hands."""


class Past(stack.Process):
    """A pipe that brings a simulated past into the stores; all of it ends at once."""

    def __init__(self, folder: Path) -> None:
        made = [str(stack.BIN / "raven-simulator"), *PAST, "--register", REGISTER_WH]
        taken = [str(stack.BIN / "raven-import"), "--format", "jsonl", "-"]
        pipe = f"set -o pipefail; {shlex.join(made)} | {shlex.join(taken)}"
        super().__init__("past", ["bash", "-c", pipe], folder)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every part."""
        if self.running:
            os.killpg(self.pid, number)


class Demo:
    """The parts that run, and what is known of them; ``upstream`` is another listener there."""

    def __init__(
        self,
        device: str | None,
        mongo_url: str | None,
        speed: str = SPEED,
        *,
        past: bool = True,
        upstream: Sequence[str] = (),
    ) -> None:
        self.folder = folder = Path(tempfile.mkdtemp(prefix="raven-demo-"))
        accounts = [NODE, "mongo-recorder", "sql-writer", "dashboard", "watcher", "verify"]
        self.broker = stack.Broker(folder, accounts)
        accounts = [NODE, "mongo-recorder", "watcher"]
        self.upstream = stack.Broker(folder, accounts, "upstream", listener=upstream)
        self.mongo = None if mongo_url else stack.Mongo(folder)
        self.mongo_url = mongo_url or (self.mongo.url if self.mongo else "")
        self.mariadb = stack.MariaDb(folder)
        self.recorder = stack.recorder(folder, self.broker.url("mongo-recorder"), self.mongo_url)
        upstream_mongo = stack.in_database(self.mongo_url, "raven_upstream")
        upstream_url = self.upstream.url("mongo-recorder")
        self.upstream_recorder = stack.recorder(
            folder, upstream_url, upstream_mongo, "upstream-recorder"
        )
        self.writer = stack.sql_writer(folder, self.broker.url("sql-writer"), "")
        self.relay = stack.sql_relay(folder, "", self.upstream.url(NODE), RAVEN_NODE=NODE)
        self.dashboard = stack.dashboard(
            folder,
            self.broker.url("dashboard"),
            RAVEN_DASHBOARD_PASSWORD=secrets.token_hex(4),
            RAVEN_TIME_ZONE=os.environ.get("RAVEN_TIME_ZONE", ""),
        )
        self.simulator: stack.Process | None = None
        if not device:
            device = str(folder / "ttyRAVEN")
            options = ["--pty", device, "--speed", speed, "--wait"]
            options += ["--ledger", str(folder / "ledger"), "--register", REGISTER_WH]
            self.simulator = stack.simulator(folder, *options)
        self.reader = stack.reader(folder, device, self.broker.url(NODE), NODE)
        self.reader.name = "reader"
        # What is somebody's own gets no past that never was.
        self.past = Past(folder) if past and self.simulator and self.mongo else None
        self.stores: dict[str, Store] = {}
        self.deaf: list[tuple[datetime, datetime]] = []

    @property
    def supervised(self) -> list[stack.Process]:
        """Processes that are started again when they end."""
        servers = [s for s in (self.broker, self.upstream, self.mongo, self.mariadb) if s]
        stores = [self.recorder, self.writer, self.upstream_recorder, self.relay]
        return [*servers, *stores, self.dashboard, self.reader]

    @property
    def everything(self) -> list[stack.Process]:
        """All parts, those first that depend on the others."""
        return [p for p in (self.past, self.simulator, *reversed(self.supervised)) if p]

    def accepted(self) -> tuple[str, int]:
        """Return the run's hash and how many readings the reader has accepted in it."""
        return stack.accepted(self.folder, NODE)

    def stored(self) -> dict[str, Holding | None]:
        """Return which numbers of the run each store has, None for one that is away."""
        run, _ = self.accepted()
        found: dict[str, Holding | None] = {}
        for name, store in self.stores.items():
            try:
                found[name] = store.holding(run)
            except RavenError:
                found[name] = None
        return found

    def kinds(self, store: Store) -> Counter[str]:
        """Return how many readings of each kind a store has."""
        return Counter(reading.kind for reading in in_order(store, self.accepted()[0]))


def main() -> int:
    """Run the demo; return 0 if everything agrees."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    text = os.environ.get("DURATION", "")
    try:
        duration_s = float(text) if text else float("inf")
    except ValueError:
        duration_s = 0.0
    if not duration_s > 0:
        print(f"DURATION: {text!r} cannot be used: allowed is a number of seconds", file=sys.stderr)
        return 78
    mongo_url = os.environ.get("MONGO_URL")
    if mongo_url and (problem := _problem(mongo_url)):
        print(f"MONGO_URL cannot be used: {problem}", file=sys.stderr)
        return 78
    with started(Demo(os.environ.get("RAVEN_DEVICE"), mongo_url), stop) as demo:
        _introduce(demo)
        _watch(demo, stop, time.monotonic() + duration_s)
        if not demo.accepted()[1]:
            print("\nstopped before the stick had said anything; the reader's last words:")
            print(demo.reader.text()[-1000:] or "none")
            return 0 if stop.is_set() else 1
        if demo.past:
            demo.past.stop()
        print("\nstopping the stick, waiting for what is on its way ...", flush=True)
        if demo.simulator:
            demo.simulator.stop()
        _settle(demo)
        return _compare(demo)


def _problem(mongo_url: str) -> str | None:
    """Say what keeps the database that the user named away, if anything does."""
    try:
        with MongoClient[dict[str, Any]](mongo_url, serverSelectionTimeoutMS=5000) as client:
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        return str(error).partition(" (configured timeouts")[0]
    return None


@contextmanager
def started(demo: Demo, stop: threading.Event) -> Iterator[Demo]:
    """Start every part and end it again."""
    writer, relay, upstream_recorder = demo.writer, demo.relay, demo.upstream_recorder
    try:
        for server in (demo.broker, demo.upstream, demo.mongo, demo.mariadb):
            if server:
                server.start()
        mysql_url = demo.mariadb.database()
        for one in (writer, relay, demo.dashboard):
            one.env["MYSQL_URL"] = mysql_url
        demo.stores = {
            "MongoDB": MongoStore(MongoUrl(demo.mongo_url)),
            "MySQL": MysqlStore(MysqlUrl(writer.env["MYSQL_URL"])),
            "upstream": MongoStore(MongoUrl(upstream_recorder.env["MONGO_URL"])),
        }
        stores = [demo.recorder, writer, upstream_recorder]
        for process in (*stores, relay, demo.dashboard, demo.simulator):
            if process:
                process.start()
        # A store has what is published from the moment its session exists.
        while any("connected to the broker" not in p.text() for p in stores):
            if stop.wait(0.1):
                break
        demo.reader.start()
        if demo.past:
            demo.past.env = {"MQTT_URL": demo.broker.url("verify"), "MONGO_URL": demo.mongo_url}
            demo.past.env["MYSQL_URL"] = mysql_url
            demo.past.start()
        yield demo
    finally:
        for store in demo.stores.values():
            store.close()
        for process in demo.everything:
            process.stop()
        shutil.rmtree(demo.folder, ignore_errors=True)


def _introduce(demo: Demo) -> None:
    """Say what runs, how to look at it and what becomes of it, in lines of a terminal."""
    mysql = urlsplit(demo.writer.env["MYSQL_URL"])
    listener = demo.broker.passwords["watcher"]
    processes = ", ".join(f"{process.name}~{process.pid}" for process in demo.supervised)
    shown = {
        "look": f"http://127.0.0.1:{demo.dashboard.port}  "
        f"password {demo.dashboard.env['RAVEN_DASHBOARD_PASSWORD']}",
        "stick": demo.reader.env["RAVEN_DEVICE"] + ("" if demo.simulator else " (yours)"),
        "listen": f"mosquitto_sub -p {demo.broker.port} -u watcher -P {listener} \\\n"
        "-v -t 'raven/v1/+/latest/+'",
        "MySQL": f"mariadb -h 127.0.0.1 -P {mysql.port} -u {mysql.username} \\\n"
        f"-p{mysql.password} {mysql.path[1:]}",
        "MongoDB": demo.mongo_url if demo.mongo else "yours (MONGO_URL)",
        "processes": fill(processes, WIDTH - INDENT, break_on_hyphens=False).replace("~", " "),
        "logs": str(demo.folder),
    }
    if demo.past:
        shown["past"] = "400 days of two simulated homes, coming in meanwhile"
    print("python-raven demo")
    for name, text in shown.items():
        print(f"  {name:{INDENT - 2}}" + text.replace("\n", "\n" + " " * INDENT))
    print("Kill any process: it is started again.")
    print("Ctrl-C ends the demo and removes its data.\n", flush=True)


def _watch(demo: Demo, stop: threading.Event, end: float) -> None:
    """Print readings as they pass the broker, and totals now and then, until the end."""
    live = threading.Thread(target=_print_live, args=(demo, stop), daemon=True)
    live.start()
    totals_at = time.monotonic() + 5
    silent_at = time.monotonic() + SILENT_S
    while not stop.wait(0.1) and time.monotonic() < end:
        _supervise(demo)
        if demo.past and not demo.past.running:
            there = "is there" if demo.past.status == 0 else f"is not complete: see {demo.past.log}"
            print(f"--- the past of 400 days {there}", flush=True)
            demo.past = None
        if time.monotonic() >= silent_at:
            silent_at = float("inf")
            if not demo.accepted()[1]:
                print(SILENT, flush=True)
        if time.monotonic() >= totals_at:
            totals_at += 5
            _print_totals(demo)


def _supervise(demo: Demo) -> None:
    """Start again what has ended."""
    for process in demo.supervised:
        if not process.running:
            ended = datetime.now(UTC)
            status = process.status
            process.start()
            print(
                f"--- {process.name} ended ({status}): started again, pid {process.pid}", flush=True
            )
            if process is demo.reader:
                opened = ended + timedelta(seconds=3)
                demo.deaf.append((ended - KILLED_MARGIN, opened + KILLED_MARGIN))
    if demo.simulator and not demo.simulator.running:
        raise RuntimeError(f"the simulator ended:\n{demo.simulator.text()}")


def _print_live(demo: Demo, stop: threading.Event) -> None:
    """Follow the last readings as a dashboard does.

    It leaves the event stream to the stores: with another subscriber there, the broker could no
    longer tell the reader that a store's session is missing.
    """
    shown: set[int] = set()
    connector = Connector(MqttUrl(demo.broker.url("watcher")), "raven-demo-watcher")
    while not stop.is_set():
        events: Events = SimpleQueue()
        try:
            connection = connector(events)
        except BrokerAwayError:
            stop.wait(0.5)
            continue
        connection.subscribe([TOPICS.of(LATEST, node="+", kind="+")])
        while not stop.is_set() and connection.alive():
            try:
                event = events.get(timeout=0.5)
            except Empty:
                continue
            if isinstance(event, Received):
                connection.acknowledge([event])
                reading = decode_reading(event.payload)
                if reading.envelope.seq not in shown:
                    shown.add(reading.envelope.seq)
                    print(_line(reading), flush=True)
        connection.close()


def _line(reading: Reading) -> str:
    received = reading.envelope.received.astimezone().strftime("%H:%M:%S")
    line = (
        f"{received}  #{reading.envelope.seq:<5} {reading.kind:27} {_value(reading.notification)}"
    )
    return line[:WIDTH]


def _value(notification: Notification) -> str:
    """Return the fields that a person looks for first."""
    if isinstance(notification, ProfileData):
        channel = notification.interval_channel or "register unknown"
        return f"{len(notification.intervals)} intervals, {channel}"
    units = {
        "demand_kw": "kW",
        "delivered_kwh": "kWh taken",
        "received_kwh": "given",
        "usage_kwh": "kWh",
        "price_per_kwh": "per kWh",
        "link_strength": "% link",
        "status": "",
        "text": "",
        "queue": "",
        "model_id": "",
        "fw_version": "",
    }
    found = ((getattr(notification, name, None), unit) for name, unit in units.items())
    return ", ".join(f"{value} {unit}".strip() for value, unit in found if value is not None)


def _print_totals(demo: Demo) -> None:
    counts = ", ".join(
        f"{name} {'is away' if holding is None else count(holding.held)}"
        for name, holding in demo.stored().items()
    )
    _, accepted = demo.accepted()
    sent = f"sent {len(_sent(demo))}, " if demo.simulator else ""
    print(f"--- {sent}accepted {accepted}, stored: {counts}", flush=True)


def _sent(demo: Demo) -> list[dict[str, Any]]:
    """Return the reports that a reader could hear whole, each once, as the stick's ledger has them."""
    path = demo.folder / "ledger"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [r for r in records if r.get("whole") and r.get("heard") and not r.get("cached")]


def _settle(demo: Demo) -> None:
    """Wait until everything that was accepted is stored, as long as that is going on."""

    def complete() -> bool:
        for process in demo.supervised:
            if not process.running:
                process.start()
        _, accepted = demo.accepted()
        expected = len(_sent(demo)) if demo.simulator and not demo.deaf else accepted
        whole = [(1, accepted)] if accepted else []
        return accepted >= expected and all(s and s.held == whole for s in demo.stored().values())

    with suppress(RuntimeError):  # what is missing then is printed
        stack.wait_until(complete, "all is stored", SETTLE_S)


def _compare(demo: Demo) -> int:
    """Print what the device sent beside what each store has; return 0 if they agree."""
    stored = {name: found or Holding([], [], []) for name, found in demo.stored().items()}
    kinds_in = {
        name: demo.kinds(demo.stores[name]) if holding.held else Counter[str]()
        for name, holding in stored.items()
    }
    run, accepted = demo.accepted()
    sent = _sent(demo)
    sent_kinds = Counter(str(r["kind"]) for r in sent)
    columns = {"sent": sent_kinds} if demo.simulator else {}
    columns |= kinds_in
    print(f"\nrun {run}\n")
    print(f"{'kind':30}" + "".join(f"{name:>10}" for name in columns))
    for kind in sorted(set().union(*columns.values())):
        print(f"{kind:30}" + "".join(f"{counts[kind]:>10}" for counts in columns.values()))
    print(f"{'all':30}" + "".join(f"{counts.total():>10}" for counts in columns.values()))
    print(f"\naccepted by the reader   {accepted}\n")
    agree = accepted > 0
    for name, (held, _, doubled) in stored.items():
        gaps = count(without([(1, accepted)], held))
        agree = agree and count(held) == kinds_in[name].total() == accepted
        agree = agree and not gaps and not doubled
        print(f"{name:10} stored {count(held)}, gaps {gaps}, stored twice {count(doubled)}")
    if demo.simulator:
        times = [datetime.fromisoformat(r["at"]) for r in sent]
        unheard = [at for at in times if any(start <= at <= end for start, end in demo.deaf)]
        missed = max((sent_kinds - kinds).total() for kinds in kinds_in.values())
        excess = [kinds - sent_kinds for kinds in kinds_in.values()]
        print(f"\nsent but not accepted    {missed}")
        if demo.deaf:
            print(f"sent while the reader was down or starting: {len(unheard)}")
            print("(what a stick says while nobody listens is lost: it repeats nothing)")
        agree = agree and not any(excess) and missed <= len(unheard)
    else:
        print("A stick keeps no list of what it sent: reader and stores are compared.")
    says = "AGREE: every store has each reading that the reader accepted, once."
    print(f"\n{says}" if agree else "\nDISAGREE: see the logs below", flush=True)
    if not agree:
        for process in demo.everything:
            print(f"\n--- {process.name}\n{process.text()[-1500:]}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
