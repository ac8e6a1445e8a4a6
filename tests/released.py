"""The last version that was released, as this repository's history has it: for tests of upgrades."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from raven_harness import stack

VERSION = "1.0.0"
COMMIT = "707c5d0a62dc7b3d040f97e686fa2feb30a20e3f"


def unpack(folder: Path) -> Path:
    """Put its files into a new folder and return that; skip the test if the history lacks them."""
    git = ["git", "-C", stack.ROOT, "archive", COMMIT]
    try:
        archive = subprocess.run(git, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"{VERSION} comes out of the history, and git is not installed")
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode().strip()
        pytest.skip(f"the history of this checkout does not have {VERSION} ({COMMIT[:7]}): {why}")
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def python_path(folder: Path) -> str:
    """Return the PYTHONPATH that has our programs run what is in the folder."""
    return ":".join(str(one) for one in sorted(folder.glob("*/*/src")))
