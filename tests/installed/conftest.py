"""One machine for all tests, set up as docs/install.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raven_harness.stack import ROOT
from ravenbus import __version__

from .machine import REGISTRY, Machine, machine

RELEASE = os.environ.get("DEBIAN", "trixie")
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
GLIBC = ("2_34", "2_28", "2_17", "2_5")
"""What wheels for Debian 12 may ask of the C library, and those for older ones."""
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
    version = PYTHON[RELEASE]
    folder = ROOT / ".installed" / f"wheels-{version}"
    for old in folder.glob("python_raven-*"):
        old.unlink()
    (wheel,) = (ROOT / "dist").glob("*.whl")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--only-binary", ":all:", "--python-version", version, "--dest", str(folder)]
    command += [f"--platform=manylinux_{libc}_x86_64" for libc in GLIBC]
    command += ["--constraint", str(ROOT / "dist" / "constraints.txt"), f"--find-links={folder}"]
    # The environment that pipx makes begins with the newest of these three.
    subprocess.run([*command, f"{wheel}[all]", "pip", "setuptools", "wheel"], check=True)
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
        page = (ROOT / "docs" / "install.md").read_text()
        (line,) = [one for one in page.splitlines() if re.match("sudo PIPX_.* install ", one)]
        made.run("sh", "-euc", f"cd /srv; {line.removeprefix('sudo ')}", **REGISTRY)
        (made.root / "etc/systemd/system/stick.service").write_text(STICK)
        made.run("systemctl", "enable", "--now", "stick")
        yield made
