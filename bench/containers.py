"""Measures docker-compose.yml with real containers, and writes docs/performance-containers.md.

`make compose-bench` starts it where an engine and the images are.
"""

from __future__ import annotations

import http.client
import json
import platform
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from tests.compose.project import ROOT, Project, docker

import system

PAGE: Final = ROOT / "docs" / "performance-containers.md"
OURS: Final = ("reader", "mongo-recorder", "sql-writer", "sql-relay", "simulator", "credentials")
MESSAGES: Final = 20_000
RECORDERS: Final = (1, 2, 4)
GOAL_MB: Final = 90
LOOK_S: Final = 60.0
SETTLE_S: Final = 20
"""After the last service is healthy: what a start costs is not what it costs to run."""

PUBLISHED: Final = """
services:
  broker: {ports: ["127.0.0.1:0:1883"]}
  mongo: {ports: ["127.0.0.1:0:27017"], networks: [default]}
  mongo-recorder: {environment: {RAVEN_METRICS_PORT: 9100}}
"""
METRICS: Final = (
    "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100').read().decode())"
)
LEAST_SHARE: Final = 0.5
"""A recorder that stored less than this part of its share of the messages was not at work."""


def main() -> int:
    """Measure and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            _head(),
            _sizes(),
            _first_readings(Path(folder)),
            _idle_and_busy(Path(folder)),
            _rates(Path(folder)),
        ]
    PAGE.write_text("\n".join(parts))
    print(PAGE.read_text())
    return 0


def _head() -> str:
    version = docker("version", "--format", "{{.Server.Version}}").strip()
    versions = json.loads(
        docker("compose", "-f", str(ROOT / "docker-compose.yml"), "config", "--format", "json")
    )["x-versions"].values()
    stands_in = '{{index .Config.Labels "raven.stand-in"}}'
    stand_ins = [
        f"`{v}`" for v in versions if "yes" in docker("image", "inspect", "-f", stands_in, v)
    ]
    return f"""# Performance of the containers

Made by `make compose-bench` on {platform.machine()} with {_cores()} cores, Docker {version}.
Images that stand in for the official ones here: {", ".join(stand_ins) or "none"}.
"""


def _cores() -> int:
    return int(docker("info", "--format", "{{.NCPU}}"))


def _sizes() -> str:
    """Say how large our images are as a registry sends them, and what each adds to the base."""
    base = _layers("python:3.13-slim-trixie")
    rows, largest = [], 0.0
    for name in OURS:
        layers = _layers(f"raven-{name}:1.1.0")
        size = sum(layers.values()) / 1e6
        added = sum(size for layer, size in layers.items() if layer not in base) / 1e6
        rows.append((f"raven-{name}", f"{size:.1f}", f"{added:.2f}"))
        largest = max(largest, size)
    rows.append(("the base alone", f"{sum(base.values()) / 1e6:.1f}", ""))
    head = ("image", "MB", "of which it adds to the base")
    text = f"The goal is less than {GOAL_MB} MB each; the largest has {largest:.0f}. All share the base.\n"
    return _table("Images, compressed", head, rows, text)


def _layers(image: str) -> dict[str, int]:
    """Return an image's layers and how many bytes each has compressed."""
    (found,) = json.loads(docker("image", "inspect", image))
    with tempfile.TemporaryFile() as file:
        subprocess.run(["docker", "save", image], stdout=file, check=True)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            (manifest,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
            sizes = [_compressed(archive.extractfile(name)) for name in manifest["Layers"]]
    return dict(zip(found["RootFS"]["Layers"], sizes, strict=True))


def _compressed(file: Any) -> int:
    packer = zlib.compressobj(6)
    size = sum(len(packer.compress(piece)) for piece in iter(lambda: file.read(2**20), b""))
    return size + len(packer.flush())


def _first_readings(folder: Path) -> str:
    """Say how long it takes from `up` to the first reading in a store."""
    rows = []
    for profile, store in (("mqtt", "MongoDB"), ("sql", "MySQL")):
        with _project(folder, f"first-{profile}") as home:
            counts = home.in_mongo if profile == "mqtt" else home.in_mysql
            for when in ("first start, volumes made", "start again, volumes kept"):
                before = _total(counts)
                home.all("down")
                begin = time.monotonic()
                home.up("--profile", "demo", "--profile", profile)
                started = time.monotonic() - begin
                _wait(lambda c=counts, n=before: _total(c) > n)
                took = time.monotonic() - begin
                rows.append((f"{store}, {when}", f"{started:.1f}", f"{took:.1f}"))
    return _table(
        "From `up` to the first reading stored",
        ("what", "`up -d` took, s", "first reading stored after, s"),
        rows,
    )


def _total(counts: Callable[[], dict[str, list[int]]]) -> int:
    return sum(map(len, counts().values()))


def _idle_and_busy(folder: Path) -> str:
    """Say what each container takes without a stick, and with one at its real pace."""
    found: dict[str, list[str]] = {}
    for busy in (False, True):
        with _project(folder, f"busy-{busy}") as home:
            profiles = ["--profile", "sql", "--profile", "mqtt", *(["--profile", "demo"] * busy)]
            home.up(*profiles)
            home.wait_healthy("broker", "mysql", "mongo", "sql-writer", "mongo-recorder")
            time.sleep(SETTLE_S)  # what a start costs is not what idling does
            ids = home.all("ps", "--quiet").split()
            before = {one: _stats(one) for one in ids}
            time.sleep(LOOK_S)  # the span that is measured
            for one in ids:
                name, cpu_s, memory = _stats(one)
                percent = 100 * (cpu_s - before[one][1]) / LOOK_S
                cells = found.setdefault(name, ["", ""] if busy else [])
                cells.extend([f"{memory / 2**20:.0f}", f"{percent:.2f}"])
    rows = [(name, *cells) for name, cells in sorted(found.items())]
    head = (
        "container",
        "idle, MiB",
        "idle, % of a core",
        "one meter, MiB",
        "one meter, % of a core",
    )
    text = f"All of `sql` and `mqtt` together, {LOOK_S:.0f} s; memory without the file cache.\n"
    return _table("Memory and processor", head, rows, text)


def _stats(container: str) -> tuple[str, float, int]:
    """Return a container's service, its processor time in s, and its resident bytes."""
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/var/run/docker.sock")
    connection.request("GET", f"/containers/{container}/stats?stream=false&one-shot=true")
    found = json.load(connection.getresponse())
    connection.close()
    (details,) = json.loads(docker("inspect", container))
    memory = found["memory_stats"]
    cache = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    name = details["Config"]["Labels"]["com.docker.compose.service"]
    return name, found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, memory["usage"] - cache


def _rates(folder: Path) -> str:
    """Say how fast recorders store what waits at the broker, each for its own session.

    They are paused while it is published: who is stopped leaves, and one session has all.
    """
    spool = folder / "full.sqlite"
    rows = []
    for number in RECORDERS:
        scale = ["--scale", f"mongo-recorder={number}"]
        with _project(folder, f"rate-{number}", RAVEN_NODE=system.NODE) as home:
            home.override(PUBLISHED)
            path = home.folder / "docker-compose.yml"
            path.write_text(path.read_text().replace("mongo: {internal: true}", "mongo: {}"))
            home.up("--profile", "server", options=scale)
            _wait(lambda h=home, n=number: _at_work(h, n))
            system.filled_spool(spool, MESSAGES, seed=number)
            password = _secret(home, f"mqtt-{system.NODE}")
            port = home.all("port", "broker", "1883").strip().rpartition(":")[2]
            home.all("pause", "mongo-recorder")
            system.client("load", f"mqtt://{system.NODE}:{password}@127.0.0.1:{port}", spool, 100)
            spool.unlink()
            rate, shares = _stored_rate(home), _shares(home)
            if len(shares) != number or min(shares) < LEAST_SHARE / number:
                raise RuntimeError(f"{number} recorders stored these shares: {shares}")
            rows.append((str(number), f"{rate:,.0f}", ", ".join(f"{one:.0%}" for one in shares)))
    text = (
        f"{MESSAGES:,} readings wait at the broker in the sessions of recorders that are paused, then "
        "these go on; the broker and MongoDB share the machine's cores with them, and every commit "
        "is synced.\n"
    )
    return _table("Recorders", ("recorders", "messages stored a second", "of each"), rows, text)


def _at_work(home: Project, number: int) -> bool:
    """Say whether so many recorders are connected and, if they are several, share what comes.

    One that was there first has all that comes until it has seen the others.
    """
    lines = home.all("logs", "--no-color", "mongo-recorder").splitlines()
    said = {line.partition("|")[0]: line for line in lines if "shared=" in line}
    return len(said) == number and all(f"shared={number > 1}" in line for line in said.values())


def _shares(home: Project) -> list[float]:
    """Return the part of the messages that each recorder stored."""
    found = []
    for one in home.all("ps", "--quiet", "mongo-recorder").split():
        (stored,) = re.findall(
            r"^raven_stored_total (.+)$", docker("exec", one, "python", "-c", METRICS), re.MULTILINE
        )
        found.append(float(stored) / MESSAGES)
    return found


def _stored_rate(home: Project) -> float:
    password = _secret(home, "mongo-mongo-recorder")
    port = int(home.all("port", "mongo", "27017").strip().rpartition(":")[2])
    looks: list[tuple[float, int]] = []
    with MongoClient[dict[str, Any]](
        "127.0.0.1", port, username="mongo-recorder", password=password, authSource="raven"
    ) as client:
        names = [
            n for n in client.raven.list_collection_names() if n not in ("runs", "dead_letter")
        ]

        def done() -> bool:
            count = sum(client.raven[name].estimated_document_count() for name in names)
            if count:
                looks.append((time.monotonic(), count))
            return count >= MESSAGES

        home.all("unpause", "mongo-recorder")
        system.wait_until(done, "all are stored", pause_s=0.1)
    (start, before), (end, after) = looks[0], looks[-1]
    return (after - before) / (end - start)


def _secret(home: Project, name: str) -> str:
    return home.compose("run", "--rm", "--entrypoint", "cat", "credentials", f"/made/{name}").stdout


@contextmanager
def _project(folder: Path, name: str, **env: str) -> Iterator[Project]:
    home = Project(folder / name, **env)
    # What is measured is what is shipped, with its own pace of health checks.
    (home.folder / "docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    try:
        yield home
    finally:
        home.down()


def _wait(true: Any) -> None:
    system.wait_until(true, "the containers are as far", pause_s=0.2)


def _table(
    title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], text: str = ""
) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)]
    return f"## {title}\n\n{text}" + "\n" * bool(text) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
