"""One disk for all machines, with what people install on it, and sticks to plug in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raven_harness import stack
from tests.machine.machine import HOME, Machine, say
from tests.wheels import REGISTRY, fetch, install_line

DEBIAN = HOME / "root"
PYTHON = "3.13"
FILES = Path(__file__).parent / "files"
PATIENCE = {"interval": "10m", "start_interval": "2m", "start_period": "30m", "timeout": "5m"}
"""Of health checks: those of a home each 30 s are all that a processor in software can do."""


LOAD = """
dockerd --bridge=none --iptables=false --ip6tables=false --log-level=error &
until docker info; do kill -0 $!; sleep 1; done >/dev/null 2>&1
docker load --quiet --input /images
docker image prune --force
kill $!
wait
"""


def inside(script: str, *options: str) -> None:
    """Run a script of the shell in .machine's Debian, by this host's own processor."""
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"]
    command += ["--pipe", "--resolv-conf=off", "--machine=raven-machine", f"--directory={DEBIAN}"]
    # The engine wants the hierarchy of control groups that its own kernel will have.
    environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    subprocess.run([*command, *options, "sh", "-euc", script], check=True, env=environ)


@pytest.fixture(scope="session")
def disk() -> Path:
    """Return a disk with all that people fetch: the package by pipx, docker-compose.yml and its images."""
    fetch(DEBIAN / "srv" / "wheels", PYTHON)
    shutil.rmtree(DEBIAN / "srv" / "dist", ignore_errors=True)
    shutil.copytree(stack.ROOT / "dist", DEBIAN / "srv" / "dist")
    registry = [f"--setenv={name}={value}" for name, value in REGISTRY.items()]
    inside(f"rm -rf /opt/pipx; {install_line()}", *registry)
    folder = DEBIAN / "srv" / "python-raven"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stack.ROOT / "deploy", folder / "deploy")
    compose = (stack.ROOT / "docker-compose.yml").read_text()
    for each, patience in PATIENCE.items():
        compose = re.sub(rf"\b{each}: \d+s", f"{each}: {patience}", compose)
    (folder / "docker-compose.yml").write_text(compose)
    images = HOME / "images"
    subprocess.run(["tests/compose/run", "save", images], cwd=stack.ROOT, check=True)
    inside(LOAD, f"--bind-ro={images}:/images")
    shutil.copytree(FILES, DEBIAN, dirs_exist_ok=True)
    inside("SYSTEMD_OFFLINE=1 systemctl --quiet enable network")
    image = HOME / "disk"
    image.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", DEBIAN, image, "12G"], check=True)
    return image


class Stick(stack.Simulator):
    """A stick that is a USB device of this host's, at ``port``; it obeys its control lines."""

    stdin = subprocess.PIPE

    def __init__(self, folder: Path, model: str, *options: str) -> None:
        self.port = stack.free_port()
        self.ledger = folder / f"{model}-{self.port}.ledger"
        command = [str(stack.BIN / "raven-simulator"), "--model", model, "--control"]
        command += ["--usbip", f"127.0.0.1:{self.port}", "--ledger", str(self.ledger)]
        super().__init__(f"{model}-{self.port}", [*command, *options], folder)

    def order(self, line: str) -> None:
        """Have it do something, and wait until it is done."""
        answers = self.text().count("\nok ")
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        stack.wait_until(lambda: self.text().count("\nok ") > answers, line)

    def stop(self) -> int | None:
        """End it."""
        assert self._process
        assert self._process.stdin
        self._process.stdin.close()
        return super().stop()


@pytest.fixture
def machine(home: Machine) -> Iterator[Machine]:
    """Lend the ``home`` of a module, and take all sticks from it afterwards."""
    yield home
    home.detach()


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Callable[..., Stick]]:
    """Make sticks."""
    made: list[Stick] = []

    def make(model: str, *options: str) -> Stick:
        one = Stick(tmp_path, model, *(options or ("--speed", "8")))
        made.append(one)
        one.start()
        stack.wait_until(lambda: "ready" in one.text(), "the stick is ready")
        say(f"\n  a stick: {model}")
        return one

    yield make
    for one in made:
        one.stop()
