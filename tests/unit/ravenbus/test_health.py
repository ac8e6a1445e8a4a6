"""Health by progress, and logs that do not repeat themselves."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ravenbus import health as module
from ravenbus.health import Health, Watchdog
from ravenbus.logs import Sparse

from .fakes import Clock


def test_a_problem_is_logged_when_it_starts_changes_and_ends(caplog):
    """A thousand tries make no thousand lines."""
    caplog.set_level(logging.INFO)
    health = Health(clock=Clock())
    for _ in range(1000):
        health.failing("broker", "away")
    health.failing("broker", "refuses")
    for _ in range(1000):
        health.ok("broker")
    assert [record.getMessage() for record in caplog.records] == ["problem", "problem", "recovered"]


def test_a_check_that_makes_no_progress_in_time_is_a_problem():
    """ok(for_s) runs out by the clock."""
    clock = Clock()
    health = Health(clock=clock)
    health.ok("line", for_s=60)
    clock.now += 59
    assert health.problems() == {}
    clock.now += 2
    assert "line" in health.problems()
    health.ok("line", for_s=60)
    assert health.problems() == {}
    clock.now += 100
    health.beat()
    assert health.overdue_s() == 40, "what hangs beside the main loop counts too"


def report(path: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "ravenbus.health", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_file_that_cannot_be_written_ends_nothing_and_follows_no_link(tmp_path: Path, caplog):
    """A full disk, or a link that somebody put there, is logged once; the link's target stays."""
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "health.new").symlink_to(target)
    clock = Clock()
    health = Health(tmp_path / "health", clock)
    for _ in range(3):
        clock.now += 10
        health.beat()
    assert target.read_text() == "mine"
    assert not (tmp_path / "health").exists()
    assert [record.getMessage() for record in caplog.records] == ["health file not written"]
    (tmp_path / "health.new").unlink()
    clock.now += 10
    health.beat()
    assert report(tmp_path / "health") == (0, "healthy\n")


def test_the_file_tells_healthy_failing_and_stuck_apart(tmp_path: Path):
    """The command exits with 0 only for a fresh file without problems."""
    path = tmp_path / "health"
    assert report(path)[0] == 1
    clock = Clock()
    health = Health(path, clock)
    health.beat()
    assert report(path) == (0, "healthy\n")
    health.failing("store", "away")
    clock.now += module.WRITE_EVERY_S
    health.beat()
    assert report(path) == (1, "unhealthy: store: away\n")
    old = json.loads(path.read_text())
    path.write_text(json.dumps({"at": old["at"] - 120, "problems": {}}))
    status, text = report(path)
    assert status == 1
    assert "has not turned" in text


def test_a_main_loop_that_hangs_ends_the_process():
    """The watchdog exits with its own status and shows where the loop hangs."""
    script = (
        "import threading\n"
        "from ravenbus.health import Health, Watchdog\n"
        "Watchdog(Health(), 0.2).start()\n"
        "threading.Event().wait(30)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 70
    assert "most recent call first" in done.stderr


@pytest.mark.parametrize("name", ["{}/notify", "{}/at@home", "@{}"])
def test_systemd_is_told_that_the_service_is_up_turns_and_how_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """READY once, then WATCHDOG and the problems as long as the loop turns; @ is a name of no file."""
    address = name.format(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{address[1:]}" if name == "@{}" else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        health = Health()
        health.failing("broker", "away")
        Watchdog(health, 1000).start()
        systemd.settimeout(20)
        assert systemd.recv(1000) == b"READY=1"
        assert systemd.recv(1000) == b"WATCHDOG=1\nSTATUS=broker: away"


def test_what_comes_by_the_thousand_is_logged_once_an_hour_with_a_count(caplog):
    """The first of a kind at once, the next after an hour, with what was left out."""
    clock = Clock()
    sparse = Sparse(logging.getLogger("test"), clock)
    for _ in range(1000):
        sparse.warning("rejected", "bad-value", detail="x")
    sparse.warning("rejected", "clock-far-off", detail="x")
    clock.now += Sparse.EVERY_S
    sparse.warning("rejected", "bad-value", detail="x")
    assert [getattr(one, "not_logged_since", 0) for one in caplog.records] == [0, 0, 999]
