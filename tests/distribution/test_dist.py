"""The distribution as people get it: built, compared, installed where nothing else is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest

from raven_harness.stack import ROOT
from ravenbus import __version__

EXTRAS = {
    "raven-sql-writer": "mysql",
    "raven-sql-relay": "mysql",
    "raven-mongo-recorder": "mongo",
    "raven-dashboard": "dashboard",
}
COMMANDS = sorted(
    name
    for path in ROOT.glob("[lst]*/*/pyproject.toml")
    for name in tomllib.loads(path.read_text())["project"].get("scripts", {})
)


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )


def built(source: Path, target: Path, *what: str) -> dict[str, str]:
    """Return the digests of what is built from a folder of sources."""
    epoch = ["env", "SOURCE_DATE_EPOCH=1767225600"]
    done = run(*epoch, sys.executable, "-m", "hatchling", "build", *what, "-d", target, cwd=source)
    assert done.returncode == 0, done.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.iterdir()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    built(ROOT, target)
    return target


@pytest.fixture(scope="module")
def bare(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the distribution without extras."""
    return environment(dist, tmp_path_factory.mktemp("bare"), "")


@pytest.fixture(scope="module")
def full(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with all extras, in the versions that the tests use."""
    return environment(dist, tmp_path_factory.mktemp("full"), "[all]")


def environment(dist: Path, folder: Path, extra: str) -> Path:
    venv.create(folder, with_pip=True)
    (wheel,) = dist.glob("*.whl")
    pip = [folder / "bin" / "pip", "--disable-pip-version-check", "install", "--quiet"]
    versions = run("make", "--no-print-directory", "constraints", cwd=ROOT).stdout
    (folder / "constraints.txt").write_text(versions)
    done = run(*pip, "-c", folder / "constraints.txt", f"{wheel}{extra}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_two_builds_are_the_same_bytes(dist: Path, tmp_path: Path):
    """From another folder, with another mask of rights, and from the sdist as from the sources."""
    first = built(ROOT, dist)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    files = "git ls-files -z --cached --others --exclude-standard | tar -c --null -T - -f -"
    done = run("sh", "-c", f"umask 077; {files} | tar -x --no-same-permissions -C {copy}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert built(copy, tmp_path / "second") == first
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("python_raven-*")
    again = built(source, tmp_path / "third", "-t", "wheel")
    assert again.items() <= first.items()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(full: Path, command: str):
    """With all extras each says its version, and its help."""
    version = run(full / command, "--version")
    assert (version.stdout, version.returncode) == (f"{command} {__version__}\n", 0), version.stderr
    assert run(full / command, "--help").stdout.startswith(f"usage: {command}")


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in EXTRAS])
def test_without_extras_the_reader_and_what_needs_no_driver_run(bare: Path, command: str):
    """The base has what the reader, the simulator and the tools begin with."""
    assert run(bare / command, "--version").returncode == 0


@pytest.mark.parametrize(("command", "extra"), EXTRAS.items())
def test_a_command_says_in_a_sentence_which_extra_it_lacks(bare: Path, command: str, extra: str):
    """Status 78, no traceback, and what to type."""
    done = run(bare / command, "--version")
    assert done.returncode == 78
    assert done.stderr.startswith(f"{command}: ")
    wheel = f"python_raven-{__version__}-py3-none-any.whl"
    assert done.stderr.endswith(f"pipx install --force '{wheel}[{extra}]'\n")
    assert done.stderr.count("\n") == 1
