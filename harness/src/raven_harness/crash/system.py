"""The whole system as processes on this machine, each of which may be held down or paused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families

from raven_harness import stack
from raven_harness.crash import hostile
from raven_harness.crash.links import Link, Links
from raven_harness.crash.script import LINKS, RECORDERS
from raven_harness.stack import Broker, MariaDb, Mongo, Process

NODE: Final = "home"
UPSTREAM_DATABASE: Final = "raven_upstream"
STATE: Final = stack.ROOT / ".crash"
START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 45.0
"""A service drains for 30 s at most; one that is paused meanwhile needs longer."""
DISK_MB: Final = 256
LINE_FAULTS: Final = (
    *("garbage:0.01", "nul:0.01", "cut:0.005", "overwrite:0.005", "letters:0.005"),
    *("chunks:0.1", "negative:0.05", "midstart"),
)
PERSISTENCE: Final = ("plugin_opt_flush_period 0", "plugin_opt_sync full")
BOUNDS: Final = ("max_packet_size 65536", "memory_limit 419430400")
"""As deploy/mosquitto/mosquitto.conf has them."""


class Part:
    """A process that is started again when it ends, unless somebody holds it down."""

    def __init__(self, process: Process, say: Callable[..., None]) -> None:
        self.process = process
        self.name = process.name
        self.gaps: list[tuple[float, float]] = []
        """Periods when it was away, in Unix time."""
        self.frail: list[tuple[float, float]] = []
        """Periods when it was paused."""
        self.ends: list[int | None] = []
        """Exit statuses of the ends that nobody had caused."""
        self.kills = 0
        self._say = say
        self._lock = threading.Lock()
        self._down = 0
        self._paused = 0
        self._asked = False
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keep {self.name}", daemon=True)

    def begin(self) -> None:
        """Look after a process that may run already."""
        self._keeper.start()

    def hold(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends it, and keep it down until ``release``."""
        with self._lock:
            self._down += 1
            self._asked = True
            self.kills += number == signal.SIGKILL
        self.process.send(number)

    def ended(self) -> None:
        """Wait until it ended after ``hold``; kill it if that takes too long."""
        try:
            status = self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._say("stopping takes too long", part=self.name)
            status = self.process.kill()
        if status not in (0, -signal.SIGKILL):
            self._say("stopped with a failure", part=self.name, status=status)

    def release(self) -> None:
        """Let it run again, and wait until it does or another one holds it."""
        with self._lock:
            self._down -= 1
        end = time.monotonic() + START_LIMIT_S
        while not (self._down or self.up or self._closing.wait(0.05)):
            if time.monotonic() > end:
                self._say("does not come up", part=self.name)
                return

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it stand still; what is started meanwhile runs."""
        with self._lock:
            self._paused += 1
        begun = time.time()
        self.process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1
                if not self._paused:
                    self.process.send(signal.SIGCONT)
            self.frail.append((begun, time.time()))

    @property
    def up(self) -> bool:
        """True if it runs, and listens if it is a server."""
        return self.process.running and not self._asked

    def close(self) -> None:
        """End it for good."""
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join()
        if self.process.running:
            self.process.kill()

    def _keep(self) -> None:
        while not self._closing.wait(0.05):
            if self.process.running:
                continue
            began = time.time()
            if not self._asked:
                self.ends.append(self.process.status)
                self._say("ended by itself", part=self.name, status=self.process.status)
                self._closing.wait(0.5)
            while self._down and not self._closing.wait(0.05):
                pass
            if self._closing.is_set():
                return
            with self._lock:
                if self._down:
                    continue
                self._asked = False
            try:
                self.process.start()
            except (RuntimeError, OSError) as error:
                if not self._asked:
                    self._say("does not start", part=self.name, reason=str(error))
            if self._asked:  # somebody ended it while it was not there yet
                self.process.send(signal.SIGKILL)
            self.gaps.append((began, time.time()))


class Stick(Process):
    """The simulated stick, steered while it runs."""

    stdin = subprocess.PIPE

    def __init__(
        self, folder: Path, rate: float, seed: int, line_faults: Sequence[str] = ()
    ) -> None:
        self.ledger = folder / "ledger"
        self.device = str(folder / "ttyRAVEN")
        self.gaps: list[tuple[float, float]] = []
        options = ["--pty", self.device, "--rate", f"{rate:g}", "--seed", str(seed), "--wait"]
        options += ["--control", "--ledger", str(self.ledger)]
        options += [word for fault in line_faults for word in ("--fault", fault)]
        super().__init__("stick", [str(stack.BIN / "raven-simulator"), *options], folder)
        self._lock = threading.Lock()
        self._unplugged = 0
        self._unplugged_at = 0.0

    def tell(self, line: str) -> None:
        """Give an order."""
        pipe = self._process.stdin if self._process else None
        if pipe:
            pipe.write(f"{line}\n".encode())
            pipe.flush()

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """Have it unplugged."""
        with self._lock:
            self._unplugged += 1
            if self._unplugged == 1:
                self._unplugged_at = time.time()
                self.tell("unplug")
        try:
            yield
        finally:
            with self._lock:
                self._unplugged -= 1
                if not self._unplugged:
                    self.tell("replug")
                    self.gaps.append((self._unplugged_at, time.time()))


class Disk:
    """A small disk in memory for the reader's state, where we are root and may mount it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frail: list[tuple[float, float]] = []
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}M", "tmpfs", str(folder)]
        self.mounted = (
            os.geteuid() == 0
            and not subprocess.run(mount, check=False, capture_output=True).returncode
        )

    @contextmanager
    def full(self) -> Iterator[None]:
        """Have it without a free byte."""
        ballast, begun = self.folder / "ballast", time.time()
        try:
            with suppress(OSError), ballast.open("ab", buffering=0) as file:
                for size in (2**20, 2**12, 1):
                    with suppress(OSError):
                        while True:
                            file.write(bytes(size))
            yield
        finally:
            ballast.unlink(missing_ok=True)
            self.frail.append((begun, time.time()))

    def close(self) -> None:
        """Unmount it, and keep what is on it beside it."""
        if self.mounted:
            shutil.copytree(self.folder, self.folder.with_suffix(".kept"), dirs_exist_ok=True)
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Clock:
    """The wall clock of one service, which ``clock.c`` moves; its monotonic clock stays."""

    LIBRARY: Final = STATE / "clock.so"

    def __init__(self, process: Process) -> None:
        self._file = process.log.with_suffix(".clock")
        self._file.write_bytes(bytes(8))
        self._lock = threading.Lock()
        self._offsets: list[int] = []
        if self.LIBRARY.exists():
            process.env |= {"LD_PRELOAD": str(self.LIBRARY), "CRASH_CLOCK": str(self._file)}

    @contextmanager
    def off_by(self, seconds: int) -> Iterator[None]:
        """Have it off by so many seconds."""
        with self._lock:
            self._offsets.append(seconds)
            self._write()
        try:
            yield
        finally:
            with self._lock:
                self._offsets.remove(seconds)
                self._write()

    def _write(self) -> None:
        # In place: the service has the file mapped.
        with self._file.open("r+b", buffering=0) as file:
            file.write(
                (self._offsets[-1] if self._offsets else 0).to_bytes(8, sys.byteorder, signed=True)
            )


class Breakable:
    """Targets of faults: every part and link by its name, and the stick."""

    def __init__(self, folder: Path, stick: Stick, links: dict[str, Link]) -> None:
        self.folder = folder
        self.stick = stick
        self.links = links
        self.parts: dict[str, Part] = {}
        self._saying = threading.Lock()

    def say(self, event: str, **facts: Any) -> None:
        """Write what happens into the folder's log of faults."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **facts})
        with self._saying, (self.folder / "faults.log").open("a") as log:
            log.write(line + "\n")

    def through(self, link: str, url: str) -> str:
        """Return the URL by way of a link."""
        at = "@" if "@" in url else "://"
        before, _, rest = url.rpartition(at)
        port = rest.partition(":")[2].partition("/")[0]
        return f"{before}{at}{rest.replace(f':{port}', f':{self.links[link].port}', 1)}"

    def close(self) -> None:
        """End every part."""
        closing = [threading.Thread(target=part.close) for part in self.parts.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        if self.stick.running:
            self.stick.kill()


class System(Breakable):
    """The whole system, and what stands behind it."""

    def __init__(self, folder: Path, seed: int, rate: float, links: Links, disk: Disk) -> None:
        accounts = [NODE, "mongo-recorder", "sql-writer", hostile.ACCOUNT]
        self.disk = disk
        self.broker = new_broker(folder, accounts)
        self.upstream = new_broker(folder, accounts, "upstream")
        self.mongo, self.mariadb = Mongo(folder), MariaDb(folder)
        self.servers = (self.broker, self.upstream, self.mongo, self.mariadb)
        behind = {server.name: server.port for server in self.servers}
        made = {name: links.add(behind[name.rpartition("-")[2]]) for name in LINKS}
        super().__init__(folder, Stick(folder, rate, seed, LINE_FAULTS), made)
        self.clocks: dict[str, Clock] = {}
        self.mysql_url = ""

    @classmethod
    @contextmanager
    def started(cls, folder: Path, seed: int, rate: float) -> Iterator[Self]:
        """Start everything; end it, however this ends."""
        with ExitStack() as ending:
            links = ending.enter_context(Links())
            disk = Disk(folder / f"state-{NODE}")
            ending.callback(disk.close)
            system = cls(folder, seed, rate, links, disk)
            ending.callback(system.close)
            for server in system.servers:
                system.parts[server.name] = Part(server, system.say)
            for server in system.servers:
                server.start()
            system.mysql_url = system.mariadb.database()
            system._add_services()
            system._begin()
            yield system

    def _add_services(self) -> None:
        upstream = self.upstream
        services = [
            *(
                stack.recorder(
                    self.folder,
                    self.through("recorders-broker", self.broker.url("mongo-recorder")),
                    self.through(f"{name}-mongo", self.mongo.url),
                    name,
                )
                for name in RECORDERS
            ),
            stack.sql_writer(
                self.folder,
                self.through("writer-broker", self.broker.url("sql-writer")),
                self.through("writer-mariadb", self.mysql_url),
            ),
            stack.recorder(
                self.folder,
                self.through("recorder-upstream", upstream.url("mongo-recorder")),
                self.through(
                    "upstream-recorder-mongo", stack.in_database(self.mongo.url, UPSTREAM_DATABASE)
                ),
                "upstream-recorder",
            ),
            stack.sql_relay(
                self.folder,
                self.through("relay-mariadb", self.mysql_url),
                self.through("relay-upstream", upstream.url(NODE)),
                RAVEN_NODE=NODE,
            ),
            stack.reader(
                self.folder,
                self.stick.device,
                self.through("reader-broker", self.broker.url(NODE)),
                NODE,
            ),
        ]
        services[-1].name = "reader"
        for service in services:
            service.env["RAVEN_METRICS_PORT"] = str(stack.free_port())
            self.parts[service.name] = Part(service, self.say)
        for name in ("reader", *RECORDERS, "sql-writer"):
            self.clocks[name] = Clock(self.parts[name].process)

    def _begin(self) -> None:
        """Start the services, the reader when every store has its session."""
        for name, part in self.parts.items():
            if name != "reader":
                if not part.process.running:
                    part.process.start()
                part.begin()
        stores = [*RECORDERS, "sql-writer", "upstream-recorder"]
        stack.wait_until(
            lambda: all("connected to the broker" in self.parts[n].process.said() for n in stores),
            f"the stores are connected, see {self.folder}",
            START_LIMIT_S,
        )
        self.stick.start()
        self.parts["reader"].process.start()
        self.parts["reader"].begin()

    def metrics(self, part: str) -> dict[str, float] | None:
        """Return a service's counters and gauges, labels added up; None while it says nothing."""
        text = stack.metrics(int(self.parts[part].process.env["RAVEN_METRICS_PORT"]))
        if text is None:
            return None
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
        return found

    def accepted(self) -> tuple[str, int]:
        """Return the run's hash and how many readings the reader has accepted in it."""
        return stack.accepted(self.folder, NODE)


def new_broker(folder: Path, accounts: Sequence[str], name: str = "broker") -> Broker:
    """Return a Mosquitto 2.1 that saves each message as it comes."""
    program, plugin = mosquitto()
    persistence = (f"global_plugin {plugin}", *PERSISTENCE, *BOUNDS)
    return Broker(folder, accounts, name, program=program, persistence=persistence)


def mosquitto() -> tuple[Sequence[str], Path]:
    """Return how to start Mosquitto 2.1, and its SQLite persistence.

    It is the one that ``fetch.sh`` unpacked, with its own libraries, or else the installed one.
    """
    root = STATE / "mosquitto"
    plugin = "lib/*/mosquitto/mosquitto_persist_sqlite.so"
    if root.exists():
        (loader,) = (root / "usr" / "lib").glob("*/ld-linux*.so.*")
        (found,) = (root / "usr").glob(plugin)
        program = [str(loader), "--library-path", str(loader.parent)]
        return [*program, str(root / "usr" / "sbin" / "mosquitto")], found
    installed = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    plugins = [*Path("/usr").glob(plugin), *Path("/usr/lib").glob("mosquitto_persist_sqlite.so")]
    if not installed or not plugins:
        raise RuntimeError("there is no Mosquitto 2.1 with SQLite persistence: run make crash")
    return [installed], plugins[0]
