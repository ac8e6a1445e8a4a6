"""Finding the stick among the ports, and the line to it."""

from __future__ import annotations

import os
import pty
from contextlib import closing
from types import SimpleNamespace

import pytest

from raven_reader.serial_port import DeviceLocation, Port, PortError, find_sticks
from ravenbus.errors import RetryableError


def port(device, vid, pid, product=None, manufacturer=None):
    """Return what pyserial says of a port."""
    return SimpleNamespace(
        device=device, vid=vid, pid=pid, product=product, manufacturer=manufacturer
    )


RAVEN = port("/dev/ttyUSB7", 0x0403, 0x8A28, "RFA-Z106-RA-PC RAVEn v2.3.21", "Rainforest")
EMU = port(
    "/dev/ttyACM7", 0x04B4, 0x0003, "RFA-Z105-2 HW2.7.3 EMU-2", "Rainforest Automation, Inc."
)
NAMELESS_EMU = port("/dev/ttyACM8", 0x04B4, 0x0003)
OTHERS = [
    port("/dev/ttyS0", None, None),
    port("/dev/ttyUSB1", 0x0403, 0x6001, "FT232R USB UART", "FTDI"),
    port("/dev/ttyACM1", 0x04B4, 0x0003, "USB-Serial (Single Channel)", "Cypress"),
    port("/dev/ttyACM3", 0x04B4, 0x0003, "USB-UART LP"),
    port("/dev/ttyACM2", 0x04B4, 0xF13B, "EMU-2"),
]


def opened(*ports):
    """Try to open what ``auto`` finds."""
    with closing(Port(DeviceLocation("auto"), lambda: [*OTHERS, *ports])) as line:
        return line


@pytest.fixture
def terminal():
    """A line whose other end the test holds."""
    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    os.close(theirs)
    yield path, ours
    os.close(ours)


def test_the_sticks_are_known_by_their_usb_identity():
    """A RAVEn by its id, an EMU-2 by a generic id and its name; nothing else is a stick."""
    found = find_sticks(lambda: [*OTHERS, RAVEN, EMU])
    assert [(stick.path, stick.model, stick.description) for stick in found] == [
        ("/dev/ttyACM7", "EMU-2", "Rainforest Automation, Inc. RFA-Z105-2 HW2.7.3 EMU-2"),
        ("/dev/ttyUSB7", "RAVEn", "Rainforest RFA-Z106-RA-PC RAVEn v2.3.21"),
    ]


def test_an_emu_without_its_name_is_taken():
    """A host that shows no product string shows the generic id alone: it may be an EMU-2."""
    (found,) = find_sticks(lambda: [NAMELESS_EMU])
    assert (found.model, found.description) == ("EMU-2", "")


def test_auto_without_a_stick_says_what_to_do():
    """With none plugged in the line is away, and the error names the command and the setting."""
    with pytest.raises(PortError, match=r"raven-reader devices.*RAVEN_DEVICE"):
        opened()


def test_auto_with_several_sticks_does_not_choose():
    """With several plugged in the error names them all: a guess would mix two meters."""
    with pytest.raises(PortError, match=r"RAVEN_DEVICE.*/dev/ttyACM7, /dev/ttyUSB7"):
        opened(RAVEN, EMU)


def test_auto_with_one_stick_opens_it(terminal):
    """With one plugged in its path is opened, wherever it is now."""
    path, _ = terminal
    assert opened(port(path, RAVEN.vid, RAVEN.pid)).name == path


def test_a_port_that_is_away_may_come_back(tmp_path):
    """A path that is not there, or no terminal, is an error that is tried again."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(RetryableError, match="cannot be opened"):
            Port(DeviceLocation(str(path)))


def test_a_line_is_read_and_written(terminal):
    """Bytes pass both ways as they are: no line end is translated, none is waited for."""
    path, stick = terminal
    with closing(Port(DeviceLocation(path))) as line:
        os.write(stick, b"<a>\x00\xff\r\n")
        found = line.read()
        assert found + (b"" if len(found) == 7 else line.read()) == b"<a>\x00\xff\r\n"
        line.write(b"<Command>\r\n")
        assert os.read(stick, 100) == b"<Command>\r\n"


def test_a_line_has_one_reader(terminal):
    """A second reader is refused in words: each would get half of the bytes."""
    path, _ = terminal
    with closing(Port(DeviceLocation(path))), pytest.raises(PortError, match="another program"):
        Port(DeviceLocation(path))


def test_a_line_that_went_away_says_so():
    """Reading from a stick that was pulled out is an error that names the port."""
    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    with closing(Port(DeviceLocation(path))) as line:
        os.close(theirs)
        os.close(ours)
        with pytest.raises(PortError, match=f"{path} is gone"):
            line.read()


@pytest.mark.parametrize("text", ["auto", "/dev/ttyUSB0", "socket://h:1", "rfc2217://h:1"])
def test_a_location_is_one_of_four(text):
    """What can be opened is taken as it is written."""
    assert str(DeviceLocation(text)) == text


@pytest.mark.parametrize("text", ["", "ttyUSB0", "COM3", "loop://", "spy:///dev/ttyUSB0", "AUTO"])
def test_another_location_is_refused(text):
    """Anything else is refused with what is allowed, before it fails later."""
    with pytest.raises(ValueError, match="auto, a path"):
        DeviceLocation(text)


def test_a_stick_that_goes_away_while_it_is_looked_for_may_come_back():
    """What vanishes with the stick breaks pyserial; that is retried."""

    def vanishing():
        raise TypeError("int() argument must be a string, not 'NoneType'")

    with pytest.raises(PortError, match="cannot be listed now"):
        Port(DeviceLocation("auto"), vanishing)
