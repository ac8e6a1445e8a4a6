"""The lines of docs/household.md and docs/laboratory.md, typed in their order with real containers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable

from tests.compose.project import Project, Stick, docker, say
from tests.pages import BARE, Block, typed

ENDS = {"raven-status": {0, 1}, "mosquitto_sub": {27}}
"""Exit statuses of a block whose last command is not to end with 0: readings are on their way; the
time that it was given is over."""


def type_(home: Project, block: Block, **env: str) -> str:
    """Type a block at a terminal in the project's folder, as its owner would; return what is said."""
    say("\n$ " + "\n$ ".join(block.text.splitlines()))
    keep = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG")
    done = subprocess.run(
        [
            "script",
            "--quiet",
            "--return",
            "/dev/null",
            "--command",
            f"bash -ec {shlex.quote(block.text)}",
        ],
        cwd=home.folder,
        env={
            **{name: os.environ[name] for name in keep if name in os.environ},
            "COMPOSE_PROJECT_NAME": home.name,
            "TERM": "dumb",
            **env,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.replace("\r", "")
    say(said[-3000:])
    expected = [ends for word, ends in ENDS.items() if word in block.text] or [{0}]
    assert done.returncode in expected[0], said[-3000:]
    return said


def typed_under(heading: str, page: str) -> list[Block]:
    """Return the blocks under a heading of a page."""
    return [block for block in typed(page) if block.heading == heading]


def left(home: Project) -> str:
    """Return what the engine has of a project."""
    of = f"label=com.docker.compose.project={home.name}"
    return docker("ps", "-aq", "--filter", of) + docker("volume", "ls", "-q", "--filter", of)


def test_a_household_sees_its_power(project: Callable[..., Project], stick: Callable[..., Stick]):
    """From the first `up` to the last `down` each block does what the page says of it."""
    home = project(RAVEN_DEVICE=stick().path)
    said: dict[str, str] = {}
    for block in typed("household.md"):
        if block.text.startswith(BARE):
            continue
        said[block.heading] = said.get(block.heading, "") + type_(home, block)
        if "up --detach" in block.text or "start" in block.text:
            home.wait_healthy("broker", "mysql", "sql-writer", "sql-relay", "dashboard", "reader")
            home.wait_complete(home.in_mysql, "MySQL", more_than=20)
    assert "port opened" in said["See that it works"]
    assert "connected" in said["See that it works"]
    assert "demand_kw" in said["Where your data is"]
    assert "INSERT INTO `instantaneous_demand`" in (home.folder / "raven.sql").read_text()
    assert left(home) == ""


def test_a_laboratory_has_its_homes(project: Callable[..., Project], stick: Callable[..., Stick]):
    """The server makes forty accounts, a home fills MongoDB with its own, and leaves again."""
    page = "laboratory.md"
    gateway = ["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]
    of_server = {"SERVER_NAME": docker(*gateway).strip(), "DASHBOARD_PUBLISH": "127.0.0.1:8080"}
    server, home = project(), project()
    for block in typed_under("The server", page):
        type_(server, block, **of_server)
    assert len(list((server.folder / "homes").glob("house-*.env"))) == 40
    server.wait_healthy("broker", "mongo", "mongo-recorder", "dashboard")

    for name in ("house-7.env", "ca.pem"):
        shutil.copy(server.folder / "homes" / name, home.folder)
    for block in typed_under("Each home", page):
        type_(home, block, RAVEN_DEVICE=stick().path)
    home.wait_healthy("reader")
    home.wait_complete(lambda: server.in_mongo("house-7"), "the server, of house-7", more_than=20)

    (status,) = typed_under("Looking after them", page)
    assert "house-7" in type_(server, status, **of_server)
    (data,) = typed_under("Data for a paper", page)
    type_(server, data, **of_server)
    assert (server.folder / "house-7.csv").read_text().startswith("start")
    home.all("stop")
    (leave,) = typed_under("A home that leaves", page)
    assert "removed raven/v1/house-7/status" in type_(server, leave, **of_server)
    for machine in (home, server):
        for block in typed_under("Stop, and remove", page):
            type_(machine, block, **of_server)
        assert left(machine) == ""
