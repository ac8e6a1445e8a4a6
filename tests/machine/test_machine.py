"""Sticks that are USB devices, on a Debian with its own kernel, udev, systemd and ModemManager."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine, booted, say, wait_until

EMU2 = "usb-Rainforest_Automation__Inc._RFA-Z105-2_HW2.7.3_EMU-2-if00"
RAVEN = "usb-Rainforest_RFA-Z106-RA-PC_RAVEn_v2.3.21-if00-port0"
PROPERTIES = "udevadm info --query property --name"
RULES = "/etc/udev/rules.d/99-raven.rules"
SETTINGS = "/etc/raven/reader.env"


@pytest.fixture(scope="module")
def home(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Lend a machine that was set up as docs/install.md says, without a stick."""
    with booted(disk, tmp_path_factory.mktemp("machine")) as machine:
        machine.run("raven-setup --yes --store mysql --node house")
        machine.run(f"cp {SETTINGS} /srv")
        settings = "set -a; . /etc/raven/verify.env;"
        machine.subscribe = f"{settings} mosquitto_sub -C 1 -W 20 -L $MQTT_URL"
        machine.verify = f"{settings} raven-verify --json"
        machine.stores = {"MySQL"}
        yield machine


@pytest.fixture(autouse=True)
def own_settings(home: Machine) -> Iterator[None]:
    """Put back settings that a test changed, once its sticks are taken."""
    yield
    home.run(
        f"cmp {SETTINGS} /srv/reader.env || {{ cp /srv/reader.env {SETTINGS}; systemctl stop raven-reader; }}"
    )
    home.run("systemctl start raven-reader")


def change(machine: Machine, *lines: str) -> None:
    """Have the reader take other settings."""
    machine.run(f"printf '%s\\n' {' '.join(lines)} >>{SETTINGS}; systemctl restart raven-reader")


@pytest.mark.parametrize(
    ("model", "node", "name", "link"),
    [("emu2", "ttyACM0", EMU2, "emu2"), ("raven", "ttyUSB0", RAVEN, "raven")],
)
def test_a_stick_that_is_plugged_in_is_found(machine, stick, model, node, name, link):
    """The kernel's driver makes a port of it, udev its names and its group, and `auto` reads it."""
    machine.wait_device("disconnected", "no RAVEn or EMU-2 is plugged in")
    machine.attach(stick(model).port)
    status = machine.wait_device("connected")
    assert status["port"] == f"/dev/{node}"
    assert machine.run("ls /dev/serial/by-id") == name
    assert machine.run(f"readlink -f /dev/{link}") == f"/dev/{node}"
    assert machine.run(f"stat -c '%G %a' /dev/{node}") == "dialout 660"
    listed = machine.run("raven-reader devices")
    assert f"/dev/{node}" in listed
    assert f"/dev/serial/by-id/{name}" in listed
    say(f"  {listed}")
    assert "ID_MM_PORT_IGNORE=1" in machine.run(f"{PROPERTIES} /dev/{node}")
    assert "ID_SERIAL_SHORT" not in machine.run(f"{PROPERTIES} /dev/{node}")
    assert machine.run("mmcli -L") == "No modems were found"


def test_modemmanager_leaves_a_stick_alone(machine, stick):
    """It looks at a stick where the udev rule is not; with it, it passes over the stick and writes not a byte."""

    def looked() -> int:
        return machine.run("journalctl --unit ModemManager").count("vhci_hcd.0/usb1/1-1': not supp")

    machine.run("systemctl stop raven-reader; systemctl is-active ModemManager")
    one = stick("emu2", "--rate", "10")
    before = looked()
    machine.run(f"mv {RULES} {RULES}.off; udevadm control --reload")
    try:
        machine.attach(one.port)
        wait_until(lambda: looked() > before, "ModemManager looks at it")
        machine.run("usbip detach --port 0")
        wait_until(lambda: machine.run("ls /dev/ttyACM0", check=False) == "", "it is unplugged")
        # But for the lines that have a stick start the reader.
        machine.run(f"grep -v SYSTEMD_WANTS {RULES}.off >{RULES}; udevadm control --reload")
        before, reports = looked(), one.ledger.read_text().count("\n")
        machine.attach(one.port)
        wait_until(lambda: one.ledger.read_text().count("\n") > reports + 400, "40 s have passed")
        assert looked() == before
    finally:
        machine.run(f"mv {RULES}.off {RULES}; udevadm control --reload")
    since = one.ledger.read_text().splitlines()[reports:]
    assert not [line for line in since if '"heard": true' in line or '"command"' in line]


def test_a_stick_starts_the_reader(machine, stick):
    """The rule has systemd start a reader that was stopped, as soon as the stick is plugged in."""
    machine.run("systemctl stop raven-reader")
    machine.attach(stick("raven").port)
    machine.wait_device("connected")


def test_unplugged_in_mid_fragment_it_comes_back_under_another_name(machine, stick):
    """The reader says that it is unplugged, finds it as ttyACM1, and has lost what was under way alone."""
    one = stick("emu2")
    machine.attach(one.port)
    assert machine.wait_device("connected")["port"] == "/dev/ttyACM0"
    machine.hold("/dev/ttyACM0")
    one.order("reset")
    machine.wait_device("disconnected")
    machine.attach(one.port)
    assert machine.wait_device("connected")["port"] == "/dev/ttyACM1"
    machine.run("systemctl stop hold")
    machine.complete()


def test_a_stall_is_overcome(machine, stick):
    """cdc_acm clears it by itself; ftdi_sio stops reading, and the reader opens the port again."""
    change(machine, "RAVEN_SILENCE_ASK_S=10", "RAVEN_SILENCE_REOPEN_S=20")
    for model in ("emu2", "raven"):
        one = stick(model)
        machine.attach(one.port)
        machine.wait_device("connected")
        one.order("stall")
        before = one.ledger.read_text().count('"heard": true')
        wait_until(
            lambda one=one, before=before: (
                one.ledger.read_text().count('"heard": true') > before + 3
            ),
            "it is heard again",
        )
        machine.wait_device("connected")
        machine.run("usbip detach --port 0 || true")
        machine.wait_device("disconnected")
    assert re.search(r"silent for 2\d s, reopening", machine.run("journalctl -u raven-reader"))


def test_two_sticks_at_once(machine, stick):
    """`auto` takes neither and names both; a reader that is given one of them reads that one."""
    emu2, raven = stick("emu2"), stick("raven")
    machine.attach(emu2.port)
    machine.attach(raven.port)
    machine.run("systemctl restart raven-reader")
    machine.wait_device("disconnected", "has to name one of /dev/ttyACM0, /dev/ttyUSB0")
    change(machine, "RAVEN_DEVICE=/dev/raven")
    assert machine.wait_device("connected")["port"] == "/dev/raven"
    emu2.order("unplug")
    assert machine.wait_device("connected")["port"] == "/dev/raven"


def test_two_sticks_of_a_kind(machine, stick):
    """They share a name in by-id, and each has one of its own in by-path."""
    for _ in range(2):
        machine.attach(stick("raven").port)
    wait_until(lambda: machine.run("ls /dev/ttyUSB*", check=False).count("tty") == 2, "two ports")
    machine.run("udevadm settle")
    assert machine.run("ls /dev/serial/by-id") == RAVEN
    paths = machine.run("ls -d /dev/serial/by-path/*").split()
    assert len({machine.run(f"readlink -f {path}") for path in paths}) == 2


@pytest.mark.parametrize("how", ["reboot", "cut_power"])
def test_everything_comes_back_by_itself(machine, stick, how):
    """After a reboot, and a power cut, the chain runs as before, and the database has all that was accepted."""
    one = stick("raven")
    machine.attach(one.port)
    machine.wait_device("connected")
    before = machine.complete()
    getattr(machine, how)()
    machine.attach(one.port)  # a real stick is in its port all the time
    machine.wait_device("connected")
    stored = machine.complete(more_than=before)
    say(f"  {how}: {before} readings before, {stored} after, none missing")
