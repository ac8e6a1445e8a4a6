"""What docs/install.md, backup.md and upgrading.md promise, on a Debian that boots systemd; each test goes on where one ended."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from raven_setup.units import MONGO_RECORDER
from tests.pages import typed
from tests.system.system import wait_until
from tests.wheels import REGISTRY

from .conftest import NEWER
from .machine import Machine

BACKUPS = "/var/backups/raven"
SERVICES = ("raven-sql-writer", "raven-sql-relay", "raven-dashboard", "raven-reader")
READINGS = ("instantaneous_demand", "current_summation_delivered", "price_cluster")
MOST_EXPOSED = 2.0
WATCHDOG_S = 150.0
SETUP = ("raven-setup", "--yes", "--store", "mysql", "--device", "socket://localhost:2000")
NOBODY = "mqtt://house@localhost:1999"
"""An upstream broker that is away: the relay waits for it, and is well otherwise."""
VERIFY = "set -a; . /etc/raven/verify.env; exec raven-verify"


def stored(machine: Machine) -> int:
    query = "SELECT COUNT(*) FROM instantaneous_demand"
    done = machine.run("mariadb", "raven", "--batch", "-N", "-e", query, check=False)
    return int(done.stdout.strip() or 0) if done.returncode == 0 else 0


def wait_for_more(machine: Machine) -> None:
    """Wait until a reading is stored that is not yet."""
    before = stored(machine)
    wait_until(lambda: stored(machine) > before, "a reading is stored", 120)


def wait_for_all(machine: Machine) -> None:
    """Unplug the stick, and wait until the store has every reading that was accepted."""
    machine.run("systemctl", "stop", "stick")
    wait_until(
        lambda: machine.run("sh", "-c", VERIFY, check=False).returncode == 0,
        "the store has every reading that was accepted",
        60,
    )


def rows(machine: Machine) -> dict[str, int]:
    """Return how many rows each table has."""
    query = (
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'raven' AND table_type = 'BASE TABLE'"
    )
    names = machine.run("mariadb", "--batch", "-N", "-e", query).stdout.split()
    count = " UNION ALL ".join(
        f"SELECT '{name}', COUNT(*) FROM {name}"  # noqa: S608 - our own tables
        for name in names
    )
    lines = machine.run("mariadb", "raven", "--batch", "-N", "-e", count).stdout.splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines)}


def lines(page: str, having: str) -> list[str]:
    """Return the lines of the one block of a page in which a text stands, as root types them."""
    (text,) = [block.text for block in typed(page) if having in block.text]
    return [line.removeprefix("sudo ") for line in text.splitlines()]


def main_pid(machine: Machine, service: str) -> int:
    show = ("systemctl", "show", "--property=MainPID", "--value", service)
    return int(machine.run(*show).stdout)


def active(machine: Machine, service: str) -> bool:
    return machine.run("systemctl", "is-active", service, check=False).stdout == "active\n"


def wait_for_another(machine: Machine, service: str, pid: int, timeout_s: float) -> None:
    """Wait until a service runs that is not the process it was."""
    wait_until(
        lambda: main_pid(machine, service) not in {0, pid} and active(machine, service),
        f"{service} is started again",
        timeout_s,
    )


def etc(machine: Machine) -> dict[str, str]:
    """Return what every file of settings, units, rules and accounts holds."""
    places = ("raven", "mosquitto", "systemd/system", "udev/rules.d")
    files = [file for place in places for file in (machine.root / "etc" / place).rglob("*")]
    return {
        str(file.relative_to(machine.root)): file.read_text() for file in files if file.is_file()
    }


def test_a_line_sets_all_up(installed: Machine):
    """Packages, accounts, settings and services; what it says fits a terminal and names the pages."""
    said = installed.run(*SETUP, UPSTREAM_MQTT_URL=NOBODY).stdout
    assert max(map(len, said.splitlines())) <= 80
    assert "http://localhost:8080" in said
    assert [service for service in SERVICES if not active(installed, service)] == []
    modes = {file.stat().st_mode & 0o777 for file in (installed.root / "etc/raven").glob("*.env")}
    assert modes == {0o600}
    wait_for_more(installed)


def test_the_pages_open_with_the_password_that_was_said(installed: Machine):
    """And with no other; the time zone is the machine's."""
    fetch = (
        "import os, urllib.request as r\n"
        "for password in ('wrong', os.environ['RAVEN_DASHBOARD_PASSWORD']):\n"
        "    browser = r.build_opener(r.HTTPCookieProcessor())\n"
        "    data = b'password=' + password.encode()\n"
        "    print(browser.open('http://localhost:8080/login', data).url)\n"
    )
    shell = ". /etc/raven/dashboard.env; export RAVEN_DASHBOARD_PASSWORD; exec python3 -"
    wrong, right = installed.run("sh", "-euc", shell, text=fetch).stdout.split()
    assert wrong.startswith("http://localhost:8080/login")
    assert right == "http://localhost:8080/"


def test_a_backup_is_made_each_night_and_comes_back(installed: Machine):
    """Into an empty database, by the lines of docs/backup.md: each table has the rows that it had."""
    wait_for_all(installed)
    set_up, start, status, timers = lines("backup.md", "raven-setup --backup")
    assert BACKUPS in set_up
    installed.run("sh", "-euc", f"{set_up}\n{start}")
    assert "Finished" in installed.run("sh", "-c", status, check=False).stdout
    assert "raven-backup.timer" in installed.run("sh", "-c", timers).stdout
    settings = installed.root / "etc/raven/backup.env"
    assert settings.stat().st_mode & 0o777 == 0o600
    before = rows(installed)
    assert before["instantaneous_demand"] > 0
    stop, restore, start = lines("backup.md", "if there is one")
    installed.run("sh", "-euc", f"{stop}\nsystemctl stop raven-sql-relay")
    installed.run("mariadb", "-e", "DROP DATABASE raven; CREATE DATABASE raven")
    installed.run("sh", "-euc", restore)
    assert rows(installed) == before
    installed.run("sh", "-euc", f"{start}\nsystemctl start raven-sql-relay stick")
    wait_for_more(installed)


def test_a_database_that_is_gone_comes_back(installed: Machine):
    """With its accounts, by the lines of docs/backup.md; readings that come meanwhile wait for it."""
    wait_for_all(installed)
    installed.run("systemctl", "start", "raven-backup")
    users = ", ".join(f"'{name}'@'localhost'" for name in ("sql-writer", "dashboard", "verify"))
    installed.run("mariadb", "-e", f"DROP DATABASE raven; DROP USER {users}")
    away, *steps = lines("backup.md", "stop mosquitto")
    installed.run("sh", "-euc", f"{away}\nsystemctl start stick\nsystemctl stop raven-sql-relay")
    installed.run("sh", "-euc", "\n".join(steps).replace("stop ", "stop raven-sql-relay "))
    installed.run("systemctl", "start", "raven-sql-relay")
    wait_for_more(installed)
    wait_for_all(installed)
    installed.run("systemctl", "start", "stick")


def test_a_backup_fails_while_its_disk_is_away(installed: Machine):
    """It makes no folder in that place, nor does another setup; it is made again afterwards."""
    installed.run("mv", BACKUPS, "/var/backups/away")
    installed.run("raven-setup", "--yes")
    assert installed.run("systemctl", "start", "raven-backup", check=False).returncode != 0
    assert not (installed.root / BACKUPS[1:]).exists()
    installed.run("mv", "/var/backups/away", BACKUPS)
    installed.run("systemctl", "start", "raven-backup")
    assert len(list((installed.root / BACKUPS[1:]).glob("*/manifest.json"))) == 3


UNITS = [*SERVICES, "raven-reader@attic", "raven-mongo-recorder", "raven-backup"]


@pytest.mark.parametrize("service", UNITS)
def test_a_unit_is_hardened(installed: Machine, service: str):
    """By systemd's own count, of 10 at most 2; and it has nothing to say against a line of it."""
    if service == "raven-mongo-recorder":  # which this machine has no use for
        unit = installed.root / f"etc/systemd/system/{service}.service"
        unit.write_text(MONGO_RECORDER.text(Path("/usr/local/bin")))
        installed.run("systemctl", "daemon-reload")
    said = installed.run("systemd-analyze", "security", "--no-pager", f"{service}.service").stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(exposure) <= MOST_EXPOSED
    check = ("systemd-analyze", "verify", "--man=no", f"{service}.service")
    assert "raven" not in installed.run(*check).stderr
    if service == "raven-mongo-recorder":
        unit.unlink()


def test_the_reader_may_ask_for_the_clock_and_not_set_it(installed: Machine):
    """Its unit's filter of system calls leaves adjtimex; the right to set the clock is taken."""
    unit = (installed.root / "etc/systemd/system/raven-reader.service").read_text()
    wanted = ("SystemCall", "CapabilityBoundingSet", "NoNewPrivileges", "DynamicUser")
    lines = [line for line in unit.splitlines() if line.startswith(wanted)]
    ask = (
        "import ctypes; ask = ctypes.CDLL(None).adjtimex; timex = (ctypes.c_uint32 * 128)()\n"
        "print(ask(timex) >= 0); timex[0] = 1; print(ask(timex) >= 0)\n"
    )
    options = [f"--property={line}" for line in lines]
    done = installed.run("systemd-run", "--pipe", "--quiet", *options, "python3", "-c", ask)
    assert done.stdout.split() == ["True", "False"]


def test_again_it_changes_nothing_and_keeps_what_the_user_changed(installed: Machine):
    """Settings that were added, an account of the broker, a broker's setting; nothing restarts."""
    settings = installed.root / "etc/raven/reader.env"
    settings.write_text(settings.read_text() + "# mine\nRAVEN_LOG_LEVEL=warning\n")
    broker = installed.root / "etc/mosquitto/conf.d/raven.conf"
    broker.write_text(broker.read_text() + "listener 1883\n")
    added = ("mosquitto_passwd", "-b", "/etc/mosquitto/raven.passwords", "watcher", "secret")
    installed.run(*added)
    before = etc(installed)
    pids = {service: main_pid(installed, service) for service in SERVICES}
    said = installed.run("raven-setup", "--yes").stdout
    assert "kept as it is: /etc/mosquitto/conf.d/raven.conf" in said
    changed = {name for name, text in etc(installed).items() if before.get(name) != text}
    assert {name.rpartition("/")[2] for name in changed} <= {"made.json"}
    assert {service: main_pid(installed, service) for service in SERVICES} == pids


def test_another_stick_has_a_reader_of_its_own(installed: Machine):
    """By the lines of docs/install.md."""
    installed.run("systemd-run", "--unit=stick2", "raven-simulator", "--tcp", "127.0.0.1:2001")
    env = installed.root / "etc/raven/reader-attic.env"
    env.touch(0o600)
    env.write_text(
        "RAVEN_DEVICE=socket://localhost:2001\nRAVEN_NODE=attic\n"
        "MQTT_URL=mqtt://attic:secret@localhost\n"
    )
    added = ("mosquitto_passwd", "-b", "/etc/mosquitto/raven.passwords", "attic", "secret")
    installed.run(*added)
    installed.run("systemctl", "reload", "mosquitto")
    installed.run("systemctl", "enable", "--now", "raven-reader@attic")
    query = "SELECT COUNT(*) FROM run_info WHERE node = 'attic'"
    ask = ("mariadb", "raven", "--batch", "-N", "-e", query)
    wait_until(lambda: installed.run(*ask).stdout == "1\n", "the other home is stored", 120)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_killed_comes_back(installed: Machine, service: str):
    """At once, and readings go on."""
    before = main_pid(installed, service)
    installed.run("kill", "-KILL", str(before))
    wait_for_another(installed, service, before, WATCHDOG_S)
    wait_for_more(installed)


def test_a_service_that_makes_no_progress_is_restarted(installed: Machine):
    """Each was stopped in its tracks; systemd misses its word within a minute."""
    before = {service: main_pid(installed, service) for service in SERVICES}
    for pid in before.values():
        installed.run("kill", f"-{signal.SIGSTOP}", str(pid))
    for service, pid in before.items():
        wait_for_another(installed, service, pid, WATCHDOG_S)
        show = ("systemctl", "show", "--property=NRestarts", "--value", service)
        assert int(installed.run(*show).stdout) >= 2
    wait_for_more(installed)


def test_a_full_journal_stops_nothing(installed: Machine):
    """The disk of the journal has no room at all, and services log on; readings go on."""
    pids = {service: main_pid(installed, service) for service in SERVICES}
    installed.run(
        "sh",
        "-euc",
        "mkdir -p /var/log/journal && mount -t tmpfs -o size=8m tmpfs /var/log/journal\n"
        "journalctl --flush; systemctl restart systemd-journald\n"
        "dd if=/dev/zero of=/var/log/journal/full bs=64k 2>/dev/null || true\n"
        "seq 100000 | systemd-cat",
    )
    # Each loses its broker, and says so.
    installed.run("systemctl", "restart", "mosquitto")
    wait_for_more(installed)
    assert {service: main_pid(installed, service) for service in SERVICES} == pids
    installed.run("umount", "--lazy", "/var/log/journal")


def test_a_newer_release_takes_over_while_readings_come(installed: Machine, newer: Path):
    """By the lines of docs/upgrading.md: each service is another process, and nothing is missing."""
    (older,) = (installed.root / "srv" / "dist").glob("*.whl")
    older.unlink()
    shutil.copy(newer, older.parent)
    services = [*SERVICES, "raven-reader@attic"]
    before = {service: main_pid(installed, service) for service in services}
    *upgrade, verify = lines("upgrading.md", "pipx install --force")
    installed.run("sh", "-euc", "\n".join(["cd /srv", *upgrade]), **REGISTRY)
    assert installed.run("raven-reader", "--version").stdout == f"raven-reader {NEWER}\n"
    assert [one for one in services if main_pid(installed, one) in {0, before[one]}] == []
    wait_for_more(installed)
    wait_for_all(installed)
    installed.run("sh", "-c", verify)
    installed.run("systemctl", "start", "stick")


def test_all_is_back_after_a_reboot(installed: Machine):
    """Nobody logs in: services are up, and not one reading is missing or there twice."""
    installed.reboot()
    assert [service for service in SERVICES if not active(installed, service)] == []
    wait_for_more(installed)
    installed.run("systemctl", "stop", "raven-reader@attic")
    wait_for_all(installed)


def test_the_rule_has_the_stick_start_the_reader(installed: Machine):
    """Every line of it is one that udev takes, and systemd is told which unit a stick wants."""
    rule = installed.root / "etc/udev/rules.d/99-raven.rules"
    assert rule.read_text().count('ENV{SYSTEMD_WANTS}+="raven-reader.service"') == 2
    if installed.run("udevadm", "verify", "--help", check=False).returncode == 0:
        installed.run("udevadm", "verify", "--no-style", "/etc/udev/rules.d/99-raven.rules")


def test_remove_takes_all_away_and_keeps_the_readings(installed: Machine):
    """Nothing of ours is left in /etc, no unit, no account; the readings and the spool are there."""
    count = stored(installed)
    said = installed.run("raven-remove", "--yes").stdout
    assert "apt-get remove mosquitto mariadb-server" in said
    assert f"the backups in {BACKUPS}" in said
    assert list((installed.root / BACKUPS[1:]).glob("*/manifest.json"))
    assert max(map(len, said.splitlines())) <= 80
    assert stored(installed) >= count
    assert [name for name in etc(installed) if "raven" in name] == []
    left = installed.run("grep", "-rlI", "raven", "/etc", check=False).stdout
    assert left == "/etc/systemd/system/stick.service\n", "the test's own simulator alone"
    units = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "raven-*")
    assert installed.run(*units).stdout == ""
    users = "SELECT User FROM mysql.user WHERE User IN ('sql-writer', 'dashboard', 'verify')"
    assert installed.run("mariadb", "--batch", "-N", "-e", users).stdout == ""
    assert (installed.root / "var/lib/private/raven-reader/spool.sqlite").exists()


def test_remove_takes_the_readings_too_if_told(installed: Machine):
    """After another setup over the old readings, which are all there."""
    count = stored(installed)
    installed.run("systemctl", "start", "stick")
    installed.run(*SETUP)
    wait_for_more(installed)
    assert stored(installed) > count
    installed.run("raven-remove", "--yes", "--data")
    # Where nothing is left there is nothing to do.
    installed.run("raven-remove", "--yes")
    names = installed.run("find", "/var/lib", "/etc", "/run", "-xdev", "-name", "*raven*").stdout
    assert names == ""
    assert "raven" not in installed.run("mariadb", "-N", "-e", "SHOW DATABASES").stdout


def test_an_empty_machine_goes_on_where_another_one_ended(installed: Machine):
    """By the lines of docs/backup.md, from its backup: the same accounts, home and readings."""
    installed.run("systemctl", "stop", "stick")
    move = "\n".join(lines("backup.md", "raven-restore --credentials")).replace(
        "/mnt/backups", BACKUPS
    )
    installed.run("sh", "-euc", move)
    manifest = max((installed.root / BACKUPS[1:]).glob("*/manifest.json"))
    kept = json.loads(manifest.read_text())["stores"]["MySQL"]
    held = rows(installed)
    assert {name: held[name] for name in READINGS} == {name: kept[name] for name in READINGS}
    installed.run("systemctl", "start", "stick")
    wait_for_more(installed)
