"""Sticks that come and go under containers that run, on cgroup v2, with Debian's kernel and engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine, booted, say, wait_until
from tests.pages import typed

FOLDER = "cd /srv/python-raven;"
TRY = """
import errno, json, os
def tried(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK))
        return "opened"
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps({path: tried(path, os.O_RDWR) for path in PATHS} | {"new": tried("/dev/new", os.O_CREAT)}))
"""


@pytest.fixture(scope="module")
def home(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Lend a machine in which somebody typed what docs/household.md says."""
    with booted(disk, tmp_path_factory.mktemp("containers")) as machine:
        (drivers,) = [one.text for one in typed("containers.md") if "modules-load" in one.text]
        machine.run(drivers.replace("sudo ", ""))
        machine.run("systemctl enable --now docker")
        say(
            machine.run(
                "docker info --format 'docker {{.ServerVersion}}, cgroup v{{.CgroupVersion}}'"
            )
        )
        machine.run(f"{FOLDER} printf 'COMPOSE_PROFILES=sql,mqtt\\nRAVEN_NODE=house\\n' >>.env")
        # A broker that runs takes an account with its next health check.
        made = "docker compose run --rm -T credentials"
        watcher = machine.run(f"{FOLDER} {made} account watcher")
        machine.run(f"{FOLDER} {made} ca >ca.pem")
        machine.run(f"{FOLDER} docker compose up --detach --no-build")
        machine.subscribe = (
            f"mosquitto_sub --cafile /srv/python-raven/ca.pem -C 1 -W 20 -L {watcher}"
        )
        machine.verify = f"{FOLDER} docker compose run --rm -T verify raven-verify --json"
        machine.stores = {"MySQL", "MongoDB"}
        yield machine


def reader(machine: Machine) -> str:
    """Return which container the reader is, and since when it runs."""
    ask = (
        "docker inspect --format '{{.Id}} {{.State.StartedAt}}' $(docker compose ps --quiet reader)"
    )
    return machine.run(f"{FOLDER} {ask}")


@pytest.mark.parametrize(("model", "node"), [("emu2", "ttyACM0"), ("raven", "ttyUSB0")])
def test_a_stick_is_found_read_and_lost(machine, stick, model, node):
    """It is plugged in after the container was started, which neither is made again nor restarts."""
    machine.wait_device("disconnected", "no RAVEn or EMU-2 is plugged in")
    before = reader(machine)
    one = stick(model)
    machine.attach(one.port)
    assert machine.wait_device("connected")["port"] == f"/dev/{node}"
    say(f"  {machine.complete(more_than=10)} readings in the database, none missing")
    one.order("unplug")
    machine.wait_device("disconnected")
    assert reader(machine) == before


def test_it_comes_back_under_another_name(machine, stick):
    """The number of its port is taken when it is plugged in again; the running container reads the other one."""
    one = stick("emu2")
    machine.attach(one.port)
    assert machine.wait_device("connected")["port"] == "/dev/ttyACM0"
    before = reader(machine)
    machine.hold("/dev/ttyACM0")
    one.order("reset")
    machine.wait_device("disconnected")
    machine.attach(one.port)
    assert machine.wait_device("connected")["port"] == "/dev/ttyACM1"
    machine.run("systemctl stop hold")
    machine.complete()
    assert reader(machine) == before


def test_the_reader_opens_its_stick_and_no_other_device(machine, stick):
    """The rules of its control group refuse disks and other serial ports, to root too; /dev is read-only."""
    machine.attach(stick("raven").port)
    machine.wait_device("connected")
    assert machine.run("stat --file-system --format %T /sys/fs/cgroup") == "cgroup2fs"
    machine.run("chmod 666 /dev/vda /dev/ttyS0 /dev/ttyUSB0")  # the kernel asks these first
    script = f"PATHS = ['/dev/vda', '/dev/ttyS0', '/dev/ttyUSB0']{TRY}"
    for user in ("10001", "0"):
        ask = f"docker compose exec -T --user {user} reader python -"
        tried = json.loads(machine.run(f"{FOLDER} {ask}", given=script.encode()))
        say(f"  user {user}: {tried}")
        assert tried == {
            "/dev/vda": "EPERM",
            "/dev/ttyS0": "EPERM",
            "/dev/ttyUSB0": "opened",
            "new": "EROFS",
        }


def test_everything_comes_back_by_itself(machine, stick):
    """After a reboot while readings come, all containers run as before, and the database has all that was accepted."""
    one = stick("raven")
    machine.attach(one.port)
    machine.wait_device("connected")
    before = machine.complete()
    machine.reboot()
    machine.attach(one.port)  # a real stick is in its port all the time
    machine.wait_device("connected")
    stored = machine.complete(more_than=before)
    say(f"  reboot: {before} readings before, {stored} after, none missing")

    def unwell() -> list[str]:
        ask = "docker compose ps --all --format '{{.Service}} {{.State}} {{.Health}}'"
        lines = machine.run(f"{FOLDER} {ask}").splitlines()
        return [
            one
            for one in lines
            if not one.startswith("credentials exited") and not one.endswith("running healthy")
        ]

    wait_until(lambda: not unwell(), "all are healthy")
