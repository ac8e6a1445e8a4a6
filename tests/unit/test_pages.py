"""The pages that describe the code say what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import raven_simulator
from raven_harness.crash import faults
from raven_harness.crash.script import KINDS
from raven_harness.stack import ROOT
from raven_simulator.faults import CHANCES
from ravenbus import __version__

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
LOGS = (ROOT / "docs" / "trouble.md").read_text().partition("## What the logs say")[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("[a-z]*/**/pyproject.toml"))
IN_EVERY_PACKAGE = {"__init__", "main", "settings"}


def told(folder: str) -> set[str]:
    """Return the modules that the architecture names in a folder."""
    block = ARCHITECTURE.partition("## Where things live")[2].split("```")[1]
    lines = re.split(rf"^{re.escape(folder)}/ .*\n", block, flags=re.MULTILINE)[1].splitlines()
    found: set[str] = set()
    for line in lines:
        if not line.startswith("  "):
            break
        found |= set(re.split(r"\s{2,}", line.strip())[0].split(", "))
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_the_architecture_names_every_module(package: Path):
    """And none that is not there; what every package has goes without saying."""
    (sources,) = (package / "src").iterdir()
    found = {path.stem for path in sources.glob("*.py")}
    found |= {f"{path.parent.name}/" for path in sources.glob("*/*") if path.suffix != ".pyc"}
    named = told(str(package.relative_to(ROOT)))
    assert named - found - IN_EVERY_PACKAGE == set()
    assert found - named - IN_EVERY_PACKAGE - {"__pycache__/"} == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_all_packages_are_of_one_version(package: Path):
    """Which every command says, also the simulator's, which has nothing of ours beside it."""
    found = tomllib.loads((package / "pyproject.toml").read_text())
    assert found["project"]["version"] == __version__ == raven_simulator.__version__


@pytest.mark.parametrize(
    "line", re.findall(r"^\| `([^`]+)` \|", LOGS.partition("\n## ")[0], re.MULTILINE)
)
def test_a_log_line_that_is_explained_is_said_by_somebody(line: str):
    """The words of the line stand in a program, whatever else it names."""
    words = re.split(r"problem check=|[a-z_]+=.*|reason=|…|\"", line)
    words = [word.strip() for word in words if len(word.strip()) > 3]
    sources = "".join(path.read_text() for path in ROOT.glob("*/*/src/**/*.py"))
    for word in words:
        assert word in sources


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+/[\w.*/-]*)`", ARCHITECTURE))))
def test_a_path_that_the_architecture_names_exists(path: str):
    """Files and folders move; the page moves with them."""
    assert list(ROOT.glob(path.rstrip("/")))


def test_every_fault_is_done_by_somebody_and_listed():
    """The crash run's and the stick's: none is only a name, and none is unexplained."""
    reliability = (ROOT / "docs" / "reliability.md").read_text()
    simulator = (ROOT / "tools" / "simulator" / "README.md").read_text()
    assert {*faults._STATES, *faults._KINDS} == KINDS.keys()
    assert [kind for kind in KINDS if f"`{kind}`" not in reliability] == []
    assert [fault for fault in CHANCES if f"`{fault}" not in simulator] == []
