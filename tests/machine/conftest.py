"""One machine for all tests, with the programs installed from wheels, and sticks to plug into it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raven_harness import stack
from tests.machine.machine import HOME, Machine, say

PROJECTS = (
    "libs/ravenbus",
    "libs/ravensql",
    "libs/ravenmongo",
    "libs/raventools",
    "services/reader",
    "services/sql-writer",
    "tools/verify",
)
GLIBC = ("2_34", "2_28", "2_17", "2_5")
"""What wheels for Debian may ask of the C library, and those for older ones."""
FILES = Path(__file__).parent / "files"


@pytest.fixture(scope="session")
def disk() -> Path:
    """Return the disk of .machine with our programs and the udev rule on it."""
    root = HOME / "root"
    wheels = root / "srv" / "wheels"
    for old in wheels.glob("raven*"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    ours = [str(stack.ROOT / project) for project in PROJECTS]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, "wheel", *options, *ours], check=True)
    options = ["--only-binary", ":all:", "--python-version", "3.13", "--dest", str(wheels)]
    options += [f"--platform=manylinux_{libc}_x86_64" for libc in GLIBC]
    for name in ("reader", "sql-writer", "verify"):
        lock = stack.ROOT / "requirements" / f"{name}.txt"
        command = [*pip, "download", "--no-deps", "--require-hashes", *options]
        subprocess.run([*command, "-r", str(lock), f"--find-links={wheels}"], check=True)
    inside = ["chroot", str(root), "sh", "-euc"]
    install = """
    [ -d /opt/raven ] || python3 -m venv /opt/raven
    /opt/raven/bin/pip --quiet install --no-index --force-reinstall /srv/wheels/*.whl
    """
    subprocess.run([*inside, install], check=True)
    shutil.copytree(FILES, root, dirs_exist_ok=True)
    shutil.copy(stack.ROOT / "deploy" / "udev" / "99-raven.rules", root / "etc/udev/rules.d")
    subprocess.run(
        [*inside, "systemctl --quiet enable network raven-reader raven-sql-writer"], check=True
    )
    image = HOME / "disk"
    image.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image), "6G"], check=True)
    return image


@pytest.fixture(scope="session")
def booted(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Lend the machine, up and without a stick."""
    machine = Machine(disk, tmp_path_factory.mktemp("machine"))
    try:
        machine.boot()
        yield machine
    finally:
        machine.end()


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
def machine(booted: Machine) -> Iterator[Machine]:
    """Lend the machine, and take all sticks from it afterwards."""
    yield booted
    booted.run("for n in 0 1 2; do usbip detach --port $n; done", check=False)
    own = "/etc/default/raven-reader"
    booted.run(f"[ ! -e {own} ] || {{ rm {own}; systemctl stop raven-reader; }}")
    booted.run("systemctl start raven-reader")


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
