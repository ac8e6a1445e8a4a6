"""One project of docker-compose.yml: a copy of what a stranger has, run for real and taken away."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from raven_harness import stack

ROOT = stack.ROOT
BIN = stack.BIN
wait_until = partial(stack.wait_until, timeout_s=300.0)

COUNT_MYSQL = """
import pymysql
from raven_sql_writer.settings import WriterSettings
import os
url = WriterSettings.load(os.environ).mysql_url
host = url.addresses[0].host if hasattr(url, "addresses") else url.host  # of 1.0.0
trust = {"ssl_ca": url.ssl_ca} if getattr(url, "ssl_ca", None) else {}
db = pymysql.connect(
    host=host, user=url.user, password=url.password, database=url.database, **trust
)
seqs = {}
with db.cursor() as cursor:
    for table in TABLES:
        cursor.execute(f"SELECT hash, seq FROM {table} WHERE seq IS NOT NULL")
        for hash, seq in cursor.fetchall():
            seqs.setdefault(hash, []).append(seq)
"""
DISK = """
services:
  other:
    image: python:3.13-slim-trixie
    init: true
    command: [sleep, infinity]
    volumes: ["{volume}:/disk"]
volumes:
  {volume}: {{driver_opts: {{type: tmpfs, device: tmpfs, o: "size={size},uid={user}"}}}}
"""
PRINT = """
import json
print(json.dumps(seqs))
"""
SPOOL = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/raven-reader/spool.sqlite?mode=ro", uri=True)
"""
ACCEPTED = 'print(json.dumps(dict(db.execute("SELECT hash, seq FROM run"))))'
WAITING = (
    'print(json.dumps(db.execute("SELECT COUNT(*) FROM outbox WHERE sent IS NULL").fetchone()))'
)


def say(text: str) -> None:
    """Print a line of the log that the tests leave."""
    print(text, flush=True)


def docker(*arguments: str, check: bool = True) -> str:
    """Run a command of the engine and return what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments[:4])}: {done.stderr.strip()}")
    return done.stdout


def in_mongo(url: str, node: str | None) -> dict[str, list[int]]:
    """Return the numbers of the readings that a MongoDB has, by run; containers run it too."""
    from pymongo import MongoClient  # noqa: PLC0415 - its text has to be enough

    from ravenbus.notifications import KINDS  # noqa: PLC0415

    seqs: dict[str, list[int]] = {}
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    with client:
        for kind in KINDS:
            found = client["raven"][kind].find(
                {"node": node} if node else {}, {"hash": 1, "seq": 1}
            )
            for one in found:
                seqs.setdefault(one["hash"], []).append(one["seq"])
    return seqs


class Project:
    """docker-compose.yml and deploy/ in a folder of their own, under a name of their own."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.name = f"raven-test-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        folder.mkdir()
        self.take(ROOT)
        anywhere = "127.0.0.1:0"
        ports = ("MQTTS", "DASHBOARD", "PROMETHEUS", "ALERTMANAGER")
        self.set(**{f"{port}_PUBLISH": anywhere for port in ports} | env)

    def take(self, version: Path) -> None:
        """Take the files of a version, as `git pull` does."""
        shutil.copytree(version / "deploy", self.folder / "deploy", dirs_exist_ok=True)
        text = (version / "docker-compose.yml").read_text()
        # Tests look more often than a Raspberry Pi should.
        text = text.replace("interval: 30s", "interval: 3s").replace(
            "interval: 120s", "interval: 5s"
        )
        (self.folder / "docker-compose.yml").write_text(text)

    def set(self, **env: str) -> None:
        """Write `.env`, with what it held before."""
        self.env = {**getattr(self, "env", {}), **env}
        lines = [f"{name}={value}" for name, value in self.env.items()]
        (self.folder / ".env").write_text("\n".join(lines) + "\n")

    def override(self, text: str) -> None:
        """Change the services as their owner would."""
        (self.folder / "docker-compose.override.yml").write_text(text + "\n")

    def give_disk(self, volume: str, user: int, size: str) -> None:
        """Give a volume a small disk of its own, on which another program writes too."""
        self.override(DISK.format(volume=volume, user=user, size=size))

    def fill_disk(self) -> None:
        """Have the other program take all that is left."""
        fill = ["dd", "if=/dev/zero", "of=/disk/other", "bs=64K", "oflag=append", "conv=notrunc"]
        self.all("exec", "-T", "other", *fill, check=False)

    def free_disk(self) -> None:
        """Have it give that back."""
        self.all("exec", "-T", "other", "rm", "/disk/other")

    def compose(
        self, *arguments: str, check: bool = True, shown: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` in the folder, with nothing of this process's own settings."""
        if shown:
            say(f"\n$ docker compose {' '.join(arguments)}")
        keep = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG")
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, *arguments],
            cwd=self.folder,
            env={name: os.environ[name] for name in keep if name in os.environ},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(arguments)}:\n{done.stderr[-2000:]}")
        return done

    def up(self, *arguments: str, options: Sequence[str] = (), check: bool = True) -> str:
        """Start what profiles name, in the background; return what was said."""
        say(f"\n$ docker compose {' '.join([*arguments, 'up', *options])}")
        return self.compose(
            *arguments, "up", "--detach", "--no-build", *options, check=check
        ).stderr

    def all(self, *arguments: str, check: bool = True) -> str:
        """Run a command over the services of all profiles and return what it printed."""
        return self.compose("--profile", "*", *arguments, check=check).stdout

    def down(self) -> None:
        """Take it away with its volumes."""
        self.all("down", "--volumes", "--timeout", "3", check=False)

    def ps(self) -> dict[str, dict[str, Any]]:
        """Return what `docker compose ps` says, by service; the last replica of each."""
        lines = self.all("ps", "--all", "--format", "json").splitlines()
        return {one["Service"]: one for one in map(json.loads, lines)}

    def health(self, service: str) -> str:
        """Return healthy, unhealthy, starting, or the state of what has no health."""
        found = self.ps().get(service, {})
        return str(found.get("Health") or found.get("State"))

    def _is_healthy(self, service: str) -> bool:
        return self.health(service) == "healthy"

    def wait_healthy(self, *services: str) -> None:
        """Wait until services are healthy."""
        for service in services:
            try:
                wait_until(partial(self._is_healthy, service), f"{service} is healthy")
            except RuntimeError as error:
                raise AssertionError(f"{error}\n{self.logs(service)[-3000:]}") from None
        say(f"  healthy: {' '.join(services)}")

    def wait_unhealthy(self, service: str, log: str) -> None:
        """Wait until a service is unhealthy and its log says why."""
        wait_until(lambda: log in self.logs(service), f"{service} says {log!r}")
        wait_until(lambda: self.health(service) == "unhealthy", f"{service} is unhealthy")
        line = next(one for one in self.logs(service).splitlines() if log in one)
        say(f"  {service} unhealthy: {line.strip()[:230]}")

    def logs(self, service: str) -> str:
        """Return a service's log."""
        return self.all("logs", "--no-log-prefix", "--no-color", service).replace("\x1b[2K", "")

    def python(self, service: str, script: str) -> Any:
        """Run Python in a service's container and return what it printed as JSON, or nothing."""
        done = self.compose(
            "--profile", "*", "exec", "-T", service, "python", "-c", script, check=False
        )
        return json.loads(done.stdout) if not done.returncode else {}

    def kill(self, service: str) -> None:
        """Kill every process of a service at once; the engine starts it again."""
        self.all("exec", "-T", service, "sh", "-c", "kill -9 -1", check=False)

    def accepted(self) -> dict[str, int]:
        """Return how many readings the reader has accepted, by run."""
        return dict(self.python("reader", SPOOL + ACCEPTED))

    def waiting(self) -> int:
        """Return how many entries nobody has taken from the reader."""
        (count,) = self.python("reader", SPOOL + WAITING)
        return int(count)

    def in_mongo(self, node: str | None = None) -> dict[str, list[int]]:
        """Return the numbers of the readings that MongoDB has, by run."""
        count = f'seqs = in_mongo(open("/credentials/mongo_url").read(), {node!r})\n'
        return dict(self.python("mongo-recorder", inspect.getsource(in_mongo) + count + PRINT))

    def in_mysql(self) -> dict[str, list[int]]:
        """Return the same of MySQL."""
        tables = "instantaneous_demand current_summation_delivered price_cluster notification"
        return dict(self.python("sql-writer", f"TABLES = {tables.split()}" + COUNT_MYSQL + PRINT))

    def wait_complete(
        self, stored: Callable[[], dict[str, list[int]]], where: str, more_than: int = 0
    ) -> int:
        """Wait until a store has every reading that the reader accepted, each once; say how many."""
        goal: dict[str, int] = {}

        def complete() -> tuple[int, int] | None:
            if not goal:
                # What the reader accepts from here on may be under way at any look.
                accepted = self.accepted()
                goal.update(accepted if sum(accepted.values()) > more_than else {})
                return None
            found = stored()
            for run, numbers in found.items():
                assert len(numbers) == len(set(numbers)), f"{where} has readings of {run} twice"
            there = all(set(range(1, n + 1)) <= set(found.get(run, [])) for run, n in goal.items())
            return (sum(map(len, found.values())), len(found)) if there else None

        try:
            found: tuple[int, int] = wait_until(complete, f"{where} has every reading")
        except RuntimeError as error:
            there = {run: (len(numbers), max(numbers)) for run, numbers in stored().items()}
            raise AssertionError(f"{error}: wanted {goal}, there {there}") from None
        total, runs = found
        say(f"  {where}: {total} readings of {runs} run(s), none missing, none twice")
        return total

    def port(self, service: str = "broker", inside: int = 8883) -> int:
        """Return the host's port of the broker's TLS listener, or of another service."""
        return int(self.all("port", service, str(inside)).strip().rpartition(":")[2])


class Stick:
    """A simulated stick on a pseudo-terminal of this host, under a path that containers see."""

    def __init__(self, rate: float = 10, path: str = "") -> None:
        # Of what a container sees of the host's devices, this is where anybody may make a link.
        self._folder = Path("/dev/shm") / f"raven-test-{uuid.uuid4().hex[:8]}"  # noqa: S108
        self._folder.mkdir()
        self.path = path or str(self._folder / "ttyRAVEN")
        command = [str(BIN / "raven-simulator"), "--pty", self.path, "--rate", str(rate)]
        self._process = subprocess.Popen(
            [*command, "--control"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer("ready")

    def unplug(self) -> None:
        """Take it out."""
        self._say("unplug")

    def plug(self, path: str = "") -> None:
        """Put it in again: another device, under another path if one is given."""
        self.path = path or self.path
        self._say(f"replug {path}".strip())

    def end(self) -> None:
        """Take it away."""
        self._process.terminate()
        self._process.communicate(timeout=10)
        shutil.rmtree(self._folder)

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._answer("ok")

    def _answer(self, wanted: str) -> None:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line.startswith(wanted), line
        if Path(self.path).exists():
            # The container's user is in the group that owns a real port; here it is nobody's.
            Path(self.path).resolve().chmod(0o666)
