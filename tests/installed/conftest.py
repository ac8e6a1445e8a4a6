"""One machine for all tests, set up as docs/install.md says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raven_harness.stack import ROOT
from ravenbus import __version__
from tests.wheels import REGISTRY, fetch, install_line

from .machine import Machine, machine

RELEASE = os.environ.get("DEBIAN", "trixie")
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
NEWER = f"{__version__}.post1"
STICK = """\
[Unit]
Description=a simulated stick
[Service]
ExecStart=/usr/local/bin/raven-simulator --tcp 127.0.0.1:2000 --speed 20
Restart=always
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="session")
def wheels() -> Path:
    """Return a folder with all that pipx asks a registry for: the machine has no network."""
    folder = ROOT / ".installed" / f"wheels-{PYTHON[RELEASE]}"
    fetch(folder, PYTHON[RELEASE])
    return folder


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of the same sources that says that it is of a newer release."""
    folder = tmp_path_factory.mktemp("newer")
    (archive,) = (ROOT / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(folder, filter="data")
    (source,) = folder.glob("python_raven-*")
    (source / "PKG-INFO").unlink()
    for file in ("pyproject.toml", "src/ravenbus/__init__.py"):
        path = source / "libs" / "ravenbus" / file
        text = path.read_text()
        path.write_text(text.replace(f'"{__version__}"', f'"{NEWER}"', 1))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheels: Path) -> Iterator[Machine]:
    """Lend the machine after the line of docs/install.md for pipx, with a stick on a TCP port."""
    base = ROOT / ".installed" / RELEASE
    with machine(base, base.with_name(f"raven-test-{os.getpid()}")) as made:
        shutil.copytree(wheels, made.root / "srv" / "wheels")
        shutil.copytree(ROOT / "dist", made.root / "srv" / "dist")
        (made.root / "etc/apt/apt.conf.d/99-no-network").write_text('Acquire::Retries "0";\n')
        made.boot()
        made.run("sh", "-euc", install_line(), **REGISTRY)
        (made.root / "etc/systemd/system/stick.service").write_text(STICK)
        made.run("systemctl", "enable", "--now", "stick")
        yield made
