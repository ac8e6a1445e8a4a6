"""What may be sent to a device."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.commands import GETTERS, SETTERS, write
from ravenbus.errors import PoisonError

from .strategies import steady

NEVER = ["factory_reset", "erase_halt", "set_restart_info", "secret", "image_block", "", "GET_TIME"]


def test_a_command_is_written_as_the_manual_shows_it():
    """The vendor's own example comes out byte by byte, with a line end."""
    written = write("get_instantaneous_demand", {"Refresh": "Y"}, allow_setters=False)
    assert written == (
        b"<Command><Name>get_instantaneous_demand</Name><Refresh>Y</Refresh></Command>\r\n"
    )


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("allow_setters", [False, True])
def test_what_can_ruin_a_device_is_never_sent(name, allow_setters):
    """No setting allows a command that decommissions or erases, or one that nobody knows."""
    with pytest.raises(PoisonError, match="is never sent"):
        write(name, {}, allow_setters=allow_setters)


@pytest.mark.parametrize("name", SETTERS)
def test_what_changes_something_needs_the_setting(name):
    """A setter is refused with the setting's name, and sent where it is allowed."""
    with pytest.raises(PoisonError, match="RAVEN_ALLOW_SETTERS"):
        write(name, {}, allow_setters=False)
    assert write(name, {}, allow_setters=True)


def test_only_what_changes_nothing_needs_no_setting():
    """Each command that is open to everybody reads, or is the one that resets the parser."""
    assert {name for name in GETTERS if not name.startswith("get_")} == {"initialize"}
    assert not GETTERS.keys() & SETTERS.keys()


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("get_device_info", {"MeterMacId": "0x1"}, "no parameters"),
        ("get_time", {"refresh": "Y"}, "MeterMacId, Refresh"),
        ("get_time", {"Refresh></Name>": "Y"}, "MeterMacId, Refresh"),
    ],
)
def test_a_parameter_that_a_command_does_not_take_is_refused(name, parameters, says):
    """The refusal names what the command takes."""
    with pytest.raises(PoisonError, match=says) as refused:
        write(name, parameters, allow_setters=True)
    assert refused.value.reason == "command-refused"


@steady
@given(st.text(max_size=40))
def test_a_value_cannot_become_a_command(text):
    """Whatever a parameter holds, one command with that value is written, or it is refused."""
    parameters = {"NickName": text}
    if not (text.isascii() and text.isprintable()) or set(text) & set("<>"):
        with pytest.raises(PoisonError, match=r"only printable ASCII|cannot hold"):
            write("set_meter_info", parameters, allow_setters=True)
        return
    written = write("set_meter_info", parameters, allow_setters=True)
    assert written.count(b"\n") == 1
    root = ET.fromstring(written)  # noqa: S314 - written here
    assert [child.tag for child in root] == ["Name", "NickName"]
    assert (root.findtext("NickName") or "") == text
