"""What the udev rules say of both sticks; no udev."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "deploy" / "udev" / "99-raven.rules"


def rules(vendor, product):
    """Return a stick's rules as their tests and what they set."""
    lines = [line for line in RULES.read_text().splitlines() if not line.startswith("#")]
    found = [dict(re.findall(r'([\w{}]+)(?:==|\+?=)"([^"]*)"', line)) for line in lines]
    return {
        rule["SUBSYSTEM"]: rule
        for rule in found
        if vendor in rule.values() and product in rule.values()
    }


@pytest.mark.parametrize(
    ("vendor", "product", "link"), [("0403", "8a28", "raven"), ("04b4", "0003", "emu2")]
)
def test_a_stick_has_a_name_and_no_modem_manager(vendor, product, link):
    """The port has its link and group; device and port tell ModemManager to leave them alone."""
    device, port = rules(vendor, product)["usb"], rules(vendor, product)["tty"]
    assert (port["SYMLINK"], port["GROUP"]) == (link, "dialout")
    assert port["ENV{ID_MM_PORT_IGNORE}"] == "1"
    assert device["ENV{DEVTYPE}"] == "usb_device"
    assert device["ENV{ID_MM_DEVICE_IGNORE}"] == "1"
