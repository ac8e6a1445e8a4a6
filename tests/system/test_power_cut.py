"""What a power cut leaves of our files, whatever the disk had written of what was not synced."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from raven_backup import backups, manifest
from raven_harness import cuts
from raven_reader.spool import Spool
from ravenbus import archives

from . import recorded


def recording(tmp_path: Path, *program: str) -> cuts.Recording:
    """Return what a Python program did to a folder, its last argument."""
    folder = tmp_path / "written"
    folder.mkdir()
    command = ["env", "PYTHONPATH=deploy/container", sys.executable, *program, str(folder)]
    return cuts.record(command, folder, tmp_path / "strace")


def disks(
    tmp_path: Path, done: cuts.Recording, points: int | None = None
) -> Iterator[tuple[cuts.Left, Path]]:
    """Yield what cuts may leave, each in a folder that is there until the next one."""
    folder = tmp_path / "left"
    for left in cuts.left(done, Random(1), points):
        left.disk.put(folder)
        yield left, folder
        shutil.rmtree(folder)


def contents(tmp_path: Path, done: cuts.Recording) -> set[tuple[str | None, ...]]:
    """Return what cuts may leave of a file ``a``, each after what was said before."""
    files = ((left.said, folder / "a") for left, folder in disks(tmp_path, done))
    return {(*said, file.read_text() if file.exists() else None) for said, file in files}


def test_a_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    """A file that took another's place without a sync may be empty, or as it was."""
    program = """
import os, sys
folder = sys.argv[1]
for text in ("old", "new"):
    with open(folder + "/b", "w") as file:
        file.write(text)
        if text == "old":
            file.flush()
            os.fsync(file.fileno())
    os.replace(folder + "/b", folder + "/a")
    os.write(1, b"said\\n")
"""
    found = contents(tmp_path, recording(tmp_path, "-c", program))
    assert ("said", "said", "") in found
    assert ("said", "said", "old") in found
    assert ("said", "said", "new") in found


def test_a_cut_leaves_what_was_synced(tmp_path: Path) -> None:
    """Once a file and its folder were synced there is nothing else that a cut may leave."""
    program = """
import os, sys
folder = sys.argv[1]
with open(folder + "/b", "w") as file:
    file.write("new")
    file.flush()
    os.fsync(file.fileno())
os.replace(folder + "/b", folder + "/a")
os.fsync(os.open(folder, os.O_RDONLY))
os.write(1, b"said\\n")
"""
    found = contents(tmp_path, recording(tmp_path, "-c", program))
    assert found == {(None,), ("new",), ("said", "new")}


def test_the_spool_has_what_was_accepted(tmp_path: Path) -> None:
    """After a cut a spool opens, has each accepted reading that no store has, and gives no number twice."""
    done = recording(tmp_path, "-m", recorded.__name__, "spool")
    points = 0
    for left, folder in disks(tmp_path, done, points=50):
        said = dict(line.split() for line in left.said)
        accepted, stored = int(said.get("accepted", 0)), int(said.get("stored", 0))
        spool = Spool(folder / recorded.SPOOL, recorded.TOPICS, max_mb=16)
        spool.begin(None, "power", recorded.START)
        spool.close()
        with sqlite3.connect(folder / recorded.SPOOL) as db:
            (whole,) = db.execute("PRAGMA integrity_check").fetchone()
            (seq,) = db.execute("SELECT seq FROM run").fetchone()
            kept = [seq for (seq,) in db.execute("SELECT seq FROM outbox WHERE seq IS NOT NULL")]
        db.close()
        assert whole == "ok"
        assert accepted <= seq <= accepted + 1
        assert said.get("node", spool.node) == spool.node
        assert sorted(kept)[-1:] == ([seq] if seq else [])
        assert set(kept) >= set(range(stored + 1, seq + 1))
        assert len(kept) == len(set(kept))
        points += left.uncertain > 0
    assert points > 30


def test_an_archive_is_whole_once_it_has_its_name(tmp_path: Path) -> None:
    """After a cut a month's file is one that was written, or there is none; what was recorded stays."""
    done = recording(tmp_path, "-m", recorded.__name__, "archive")
    for left, folder in disks(tmp_path, done):
        files = [file for file in folder.glob("month.csv.gz*") if not file.name.endswith(".sha256")]
        digests = {archives.sha256(file) for file in files}
        assert digests >= set(left.said)
        for file in files:
            rows = list(archives.read(file))
            assert rows in (recorded.ROWS[:30], recorded.ROWS)


def test_a_backup_is_whole_once_it_has_its_name(tmp_path: Path) -> None:
    """After a cut the last one that was said to be made is there, and no other is there by halves."""
    done = recording(tmp_path, "-m", recorded.__name__, "backup")
    for left, folder in disks(tmp_path, done, points=50):
        made = [line.split()[1] for line in left.said if line.startswith("backed-up")]
        there = backups.newest_last(folder)
        for one in there:
            assert list(manifest.faults(one, manifest.read(one))) == []
        assert {one.name for one in there} >= set(made[-1:])


def test_credentials_stay_what_they_were_said_to_be(tmp_path: Path) -> None:
    """After a cut the next start makes what is missing, and an account has the URL that was printed."""
    done = recording(tmp_path, "-m", recorded.__name__, "credentials")
    for left, folder in disks(tmp_path, done, points=8):
        found = recorded.made(folder)
        assert left.said in ((), (found,))
