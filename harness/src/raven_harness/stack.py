"""Starts the parts of the system on free ports of this host: for the demo, tests and benches."""

from __future__ import annotations

import atexit
import hashlib
import os
import random
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pymysql  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
ACL = ROOT / "deploy" / "mosquitto" / "acl"
PEERS_LOCK = ROOT / "bench" / "peers.txt"
START_TIMEOUT_S = 120.0
WAIT_S = 60.0
STOP_TIMEOUT_S = 30.0
PORTS_AT_ONCE = 64
_ports: list[int] = []


def free_port() -> int:
    """Return a TCP port of the loopback that nothing uses now.

    It is none of those that outgoing connections get, and no other process is given it here, so
    that it stays free while its server is down.
    """
    while True:
        if not _ports:
            _ports.extend(_claimed())
        port = _ports.pop()
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _claimed() -> range:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        start = random.randrange(first // 2, first - PORTS_AT_ONCE, PORTS_AT_ONCE)  # noqa: S311 - a port is no secret
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0raven-ports-{start}")
        except OSError:
            claim.close()
        else:
            atexit.register(claim.close)  # this process has the range as long as it lives
            return range(start, start + PORTS_AT_ONCE)


class Process:
    """A process of ours, its output in a file; it can be started again after it ended."""

    stdin = subprocess.DEVNULL

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = folder / f"{name}.log"
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0

    def start(self) -> None:
        """Start it; the log goes on where it was."""
        self._began = len(self.text())
        clean = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("RAVEN_", "MQTT_", "MONGO_", "MYSQL_", "UPSTREAM_"))
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=self.stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**clean, **self.env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; raise RuntimeError if it was not started."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """True if it runs now."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self._process and self.running:
            self._process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for its end and return the exit status."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.wait(timeout_s)

    def stop(self) -> int | None:
        """End it with SIGTERM, or SIGKILL if that takes too long; return the exit status."""
        if self._process is None:
            return None
        self.send(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it with SIGKILL, as a power cut would."""
        self.send(signal.SIGKILL)
        return self.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it answer nobody, as if it hung."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def said(self) -> str:
        """Return what it has printed since it was last started."""
        return self.text()[self._began :]


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Return what ``true`` returns once it is true; other processes make it so.

    Raise RuntimeError that says ``what`` was waited for in vain.
    """
    end = time.monotonic() + timeout_s
    while (began := time.monotonic()) < end:
        if found := true():
            return found
        # Other processes cannot be waited on; to look takes a small part of the time at any cost.
        time.sleep(min(max(0.02, 5 * (time.monotonic() - began)), 0.5))
    raise RuntimeError(f"waited {timeout_s:.0f} s in vain until {what}")


class Server(Process):
    """A process that listens on a TCP port, of the loopback unless it has another ``host``."""

    host = "127.0.0.1"

    def __init__(self, name: str, command: Sequence[str], folder: Path, port: int) -> None:
        super().__init__(name, command, folder)
        self.port = port

    def start(self) -> None:
        """Start it and return once it listens; raise RuntimeError with its log if it does not."""
        super().start()
        wait_until(
            lambda: self._listens or not self.running, f"{self.name} listens", START_TIMEOUT_S
        )
        if not self.running:
            raise RuntimeError(f"{self.name} does not start:\n{self.text()[-2000:]}")

    @property
    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False


class Broker(Server):
    """A Mosquitto with an account for each name and the project's access list.

    ``program`` is another Mosquitto than the installed one, ``persistence`` how it keeps ``data``,
    ``listener`` another one.
    """

    def __init__(
        self,
        folder: Path,
        accounts: Sequence[str],
        name: str = "broker",
        *,
        program: Sequence[str] = (),
        persistence: Sequence[str] = ("persistence true",),
        listener: Sequence[str] = (),
    ) -> None:
        made = folder / name
        self.data = made / "data"
        self.data.mkdir(parents=True)
        self.passwords = {account: secrets.token_hex(12) for account in accounts}
        passwords = made / "passwords"
        passwords.touch(0o600)
        passwords.write_text("".join(f"{name}:{one}\n" for name, one in self.passwords.items()))
        encrypt = [tool("mosquitto_passwd"), "-U", str(passwords)]
        subprocess.run(encrypt, check=True, capture_output=True)
        port = free_port()
        config = made / "mosquitto.conf"
        config.write_text(
            "\n".join(
                [
                    f"persistence_location {self.data}/",
                    *persistence,
                    f"listener {port} 127.0.0.1",
                    *listener,
                    "allow_anonymous false",
                    f"password_file {passwords}",
                    f"acl_file {ACL}",
                    "max_queued_messages 200000",
                    "max_inflight_messages 200",
                    "log_type warning",
                    "log_type error",
                    "log_type notice",
                    # Mosquitto started by root would become a user that cannot read the folder.
                    *(["user root"] if os.geteuid() == 0 else []),
                    "",
                ]
            )
        )
        command = [*(program or [tool("mosquitto")]), "-c", str(config)]
        super().__init__(name, command, folder, port)

    def url(self, account: str) -> str:
        """Return the URL with an account and its password."""
        return f"mqtt://{account}:{self.passwords[account]}@127.0.0.1:{self.port}"


class Mongo(Server):
    """SecantusDB, which speaks MongoDB's protocol; its data survives a kill."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        data = folder / "mongo"
        command = [str(BIN / "secantusd-py"), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--storage-path", str(data), "--log-level", "WARNING"]
        command += ["--standalone", "--sync-on-commit", "--cache-size", "256M"]
        super().__init__("mongo", command, folder, port)

    @property
    def url(self) -> str:
        """The connection string."""
        return f"mongodb://127.0.0.1:{self.port}/raven"


class NoStore(Server):
    """A double of MongoDB that acknowledges what is inserted and keeps none of it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [sys.executable, "-m", "raven_harness.mongodb.nothing", str(port)]
        super().__init__("no-store", command, folder, port)

    @property
    def url(self) -> str:
        """The connection string."""
        return f"mongodb://127.0.0.1:{self.port}/raven?replicaSet=rs0"


class MariaDb(Server):
    """A MariaDB with a data folder of its own and an administrator who is not `root`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.password = secrets.token_hex(12)
        self.folder, port = folder / "mariadb", free_port()
        data, temporary = self.folder / "data", self.folder / "tmp"
        temporary.mkdir(parents=True)
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        small = ["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M"]
        # A server that starts removes what others have in the folder that they would share.
        small.append(f"--tmpdir={temporary}")
        subprocess.run(
            [
                *(
                    tool("mariadb-install-db"),
                    "--no-defaults",
                    "--skip-test-db",
                    f"--datadir={data}",
                ),
                *("--auth-root-authentication-method=normal", *as_root, *small),
            ],
            check=True,
            capture_output=True,
        )
        accounts = self.folder / "accounts.sql"
        accounts.write_text(
            "CREATE USER IF NOT EXISTS admin@'127.0.0.1';\n"
            f"ALTER USER admin@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            "GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        accounts.chmod(0o600)
        command = [tool("mariadbd"), "--no-defaults", f"--datadir={data}", *as_root, *small]
        command += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        command += [f"--socket={self.folder}/s", f"--pid-file={self.folder}/pid"]
        command += [f"--init-file={accounts}", *options]
        super().__init__("mariadb", command, folder, port)

    @property
    def admin_url(self) -> str:
        """The URL with the administrator's account."""
        return f"mysql://admin:{self.password}@127.0.0.1:{self.port}/mysql"

    def database(self) -> str:
        """Make a database and an account that may use nothing else; return the account's URL."""
        name, password = f"raven_{secrets.token_hex(6)}", secrets.token_hex(12)
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user="admin", password=self.password
        ) as connection:
            for query in (
                f"CREATE DATABASE {name}",
                f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'",
                f"GRANT ALL ON {name}.* TO {name}@'%'",
            ):
                connection.cursor().execute(query)
        return f"mysql://{name}:{password}@127.0.0.1:{self.port}/{name}"


class Simulator(Process):
    """A simulated stick, whose port is gone when it is, as a device's is."""

    def kill(self) -> int:
        """End it with SIGKILL; its link could lead to a terminal that another one has by then."""
        if "--pty" in self.command:
            Path(self.command[self.command.index("--pty") + 1]).unlink(missing_ok=True)
        return super().kill()


def simulator(folder: Path, *options: str, name: str = "simulator") -> Simulator:
    """Return a simulated stick with the given options."""
    return Simulator(name, [str(BIN / "raven-simulator"), *options], folder)


def reader(folder: Path, device: str, mqtt_url: str, node: str, **settings: str) -> Process:
    """Return a reader of a device; its state is in the folder."""
    env = {
        "RAVEN_DEVICE": device,
        "MQTT_URL": mqtt_url,
        "RAVEN_NODE": node,
        "RAVEN_STATE": str(folder / f"state-{node}"),
        **settings,
    }
    return Process(f"reader-{node}", [str(BIN / "raven-reader"), "run"], folder, env)


def recorder(
    folder: Path, mqtt_url: str, mongo_url: str, name: str = "recorder", **settings: str
) -> Process:
    """Return a recorder, or one of its replicas; one that was killed is soon believed dead."""
    env = {"MQTT_URL": mqtt_url, "MONGO_URL": mongo_url, "RAVEN_LEASE_S": "2", **settings}
    return Process(name, [str(BIN / "raven-mongo-recorder")], folder, env)


def sql_writer(
    folder: Path, mqtt_url: str, mysql_url: str, name: str = "sql-writer", **settings: str
) -> Process:
    """Return a writer."""
    env = {"MQTT_URL": mqtt_url, "MYSQL_URL": mysql_url, **settings}
    return Process(name, [str(BIN / "raven-sql-writer")], folder, env)


def sql_relay(
    folder: Path, mysql_url: str, upstream_url: str, name: str = "sql-relay", **settings: str
) -> Process:
    """Return a relay."""
    env = {"MYSQL_URL": mysql_url, "UPSTREAM_MQTT_URL": upstream_url, **settings}
    return Process(name, [str(BIN / "raven-sql-relay")], folder, env)


def dashboard(folder: Path, mqtt_url: str, **settings: str) -> Server:
    """Return a dashboard at a free port; its store and its password are among the settings."""
    port = free_port()
    found = Server("dashboard", [str(BIN / "raven-dashboard")], folder, port)
    found.env = {"MQTT_URL": mqtt_url, "RAVEN_DASHBOARD_PORT": str(port), **settings}
    return found


def metrics(port: int) -> str | None:
    """Return what a service says of itself, None while it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except (URLError, OSError):
        return None


def metric(port: int, name: str) -> float | None:
    """Return a service's counter or gauge, None while it does not answer."""
    for line in (metrics(port) or "").splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return None


def accepted(folder: Path, node: str) -> tuple[str, int]:
    """Return the hash of a reader's run, and how many readings it has accepted in it."""
    spool = folder / f"state-{node}" / "spool.sqlite"
    try:
        with closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True)) as db:
            query = "SELECT hash, seq FROM run ORDER BY number DESC LIMIT 1"
            return db.execute(query).fetchone() or ("", 0)
    except sqlite3.OperationalError:  # the reader has not made it yet
        return "", 0


def in_database(mongo_url: str, name: str) -> str:
    """Return the URL of another database on a MongoDB."""
    base, _, options = mongo_url.partition("?")
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.split('/')[0]}/{name}{'?' if options else ''}{options}"


def peers() -> Path:
    """Return the folder of the programs of bench/peers.txt, made unless it is there already."""
    made = ROOT / ".peers"
    stamp = made / "lock.sha256"
    wanted = hashlib.sha256(PEERS_LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(made, ignore_errors=True)
        for command in (
            ["venv", "--quiet", "--python", sys.executable, str(made)],
            [
                "pip",
                "install",
                "--quiet",
                "--python",
                str(made),
                "--require-hashes",
                "-r",
                str(PEERS_LOCK),
            ],
        ):
            subprocess.run([str(BIN / "uv"), *command], check=True)
        stamp.write_text(wanted)
    return made / "bin"


def tool(name: str) -> str:
    """Return where a program is; raise RuntimeError that names the packages."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if path is None:
        raise RuntimeError(
            f"{name} is not installed: Debian's packages mosquitto, mosquitto-clients, "
            "mariadb-server-core and mariadb-client-core"
        )
    return path


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process's end; return the most memory that it had resident.

    ``wait4`` would say what the process had from which it was forked, if that is more.
    """
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while True:
        with suppress(OSError):
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = 1024 * int(line.split()[1])
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            return peak
