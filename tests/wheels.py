"""The line with which docs/install.md has pipx install, and all that it asks a registry for then."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from raven_harness.stack import ROOT

GLIBC = ("2_34", "2_28", "2_17", "2_5")
"""What wheels for Debian 12 may ask of the C library, and those for older ones."""
REGISTRY = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}
"""Has pip look for packages in the machine itself."""


def fetch(folder: Path, python: str) -> None:
    """Fill a folder with the wheel of dist/ and what it needs on Debian with a version of Python."""
    for old in folder.glob("python_raven-*"):
        old.unlink()
    (wheel,) = (ROOT / "dist").glob("*.whl")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--only-binary", ":all:", "--python-version", python, "--dest", str(folder)]
    command += [f"--platform=manylinux_{libc}_x86_64" for libc in GLIBC]
    command += ["--constraint", str(ROOT / "dist" / "constraints.txt"), f"--find-links={folder}"]
    # The environment that pipx makes begins with the newest of these three.
    subprocess.run([*command, f"{wheel}[all]", "pip", "setuptools", "wheel"], check=True)


def install_line() -> str:
    """Return the line as root types it in /srv, where dist/ is."""
    page = (ROOT / "docs" / "install.md").read_text()
    (line,) = [one for one in page.splitlines() if re.match("sudo PIPX_.* install ", one)]
    return f"cd /srv; {line.removeprefix('sudo ')}"
