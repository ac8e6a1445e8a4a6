"""The commands of docker-compose.yml's databases: when a first start is marked, and begins anew."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import yaml

from raven_harness import stack

SERVICES: Final = yaml.safe_load((stack.ROOT / "docker-compose.yml").read_text())["services"]
FOLDERS: Final = {"mongo": "/data/db", "mysql": "/var/lib/mysql"}
MARK: Final = ".being-made"

Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=FOLDERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Run a database's command over `data` and `scripts`, with programs that only say their names."""
    programs = tmp_path / "programs"
    for folder in ("data", "scripts", "programs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "scripts" / "made.sh").touch()
    scripts = "/docker-entrypoint-initdb.d", str(tmp_path / "scripts")
    first = tmp_path / "first-start.sh"
    first.write_text((stack.ROOT / "deploy/container/first-start.sh").read_text().replace(*scripts))
    script = SERVICES[request.param]["command"][2].replace("$$", "$").replace(*scripts)
    script = script.replace(FOLDERS[request.param], str(tmp_path / "data"))
    script = script.replace("/first-start.sh", str(first))

    def run(**instead: str) -> subprocess.CompletedProcess[str]:
        own = {"docker-entrypoint.sh": 'echo "$@"', "mongosh": ":", "sleep": ":"}
        for name, does in (own | instead).items():
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
        path = f"{programs}:/usr/bin:/bin"
        return subprocess.run(
            ["sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False
        )

    return run


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(one.name for one in folder.iterdir())


def test_a_first_start_is_marked(start: Start, tmp_path: Path):
    """An empty folder: the image makes a database of it."""
    assert "--init-file" not in start().stdout
    assert names(tmp_path / "data") == [MARK]


def test_what_nobody_unmarks_is_not_marked(start: Start, tmp_path: Path):
    """The credentials of an older version hand out no script that takes the mark away."""
    (tmp_path / "scripts" / "made.sh").unlink()
    assert start().returncode == 0
    assert names(tmp_path / "data") == []


def test_a_database_stays(start: Start, tmp_path: Path):
    """What has no mark is a database, of whatever version."""
    (tmp_path / "data" / "table").touch()
    assert start().returncode == 0
    assert names(tmp_path / "data") == ["table"]


def test_what_was_cut_off_begins_anew(start: Start, tmp_path: Path):
    """All of it goes but the mark, and the log says so."""
    for name in (MARK, "table", ".hidden"):
        (tmp_path / "data" / name).touch()
    assert "the first start was cut off: it begins anew" in start().stdout
    assert names(tmp_path / "data") == [MARK]


@pytest.mark.parametrize("program", ["ls", "find"])
def test_a_folder_that_cannot_be_read_or_emptied_starts_nothing(
    start: Start, tmp_path: Path, program: str
):
    """It would be taken for an empty one, or for a whole database: the engine tries again."""
    found = ["table", *([MARK] if program == "find" else [])]
    for name in found:
        (tmp_path / "data" / name).touch()
    done = start(**{program: "exit 1"})
    assert done.returncode
    assert not any(server in done.stdout for server in ("mongod", "mysqld"))
    assert names(tmp_path / "data") == sorted(found)
