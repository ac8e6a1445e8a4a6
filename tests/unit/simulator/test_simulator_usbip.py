"""USB/IP byte by byte, as the kernel's Documentation/usb/usbip_protocol.rst has it."""

from __future__ import annotations

import pytest

from raven_simulator import usbip
from raven_simulator.usb import CdcAcm, Ftdi

DEVLIST = bytes.fromhex("0111 8005 00000000")
IMPORT = bytes.fromhex("0111 8003 00000000") + b"1-1".ljust(32, b"\0")
INTERRUPT_IN = bytes.fromhex(
    "00000001 00000d05 0001000f 00000001 00000001 00000200 00000040 ffffffff 00000000 00000004"
    "00000000 00000000"
)
INTERRUPT_OUT = bytes.fromhex(
    "00000001 00000d06 0001000f 00000000 00000001 00000000 00000040 ffffffff 00000000 00000004"
    "00000000 00000000"
    "ffffffff860008a784ce5ae212376300000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000"
)


def imported() -> usbip.Requests:
    requests = usbip.Requests()
    requests.feed(IMPORT)
    return requests


def test_a_device_is_asked_for_and_imported():
    """The requests that begin a connection are read as they are documented."""
    assert usbip.Requests().feed(DEVLIST) == [usbip.DeviceList()]
    assert usbip.Requests().feed(IMPORT) == [usbip.Import("1-1")]


def test_the_documented_example_is_read():
    """The transfers of the document's capture are what it says they are, in one piece or many."""
    wanted = [
        usbip.Submit(0xD05, 1, True, 64, bytes(8)),
        usbip.Submit(0xD06, 1, False, 64, bytes(8), INTERRUPT_OUT[48:]),
    ]
    assert imported().feed(INTERRUPT_IN + INTERRUPT_OUT) == wanted
    requests = imported()
    pieces = [bytes([byte]) for byte in INTERRUPT_IN + INTERRUPT_OUT]
    assert [found for piece in pieces for found in requests.feed(piece)] == wanted


def test_the_documented_example_is_answered():
    """Both answers of the document's capture come out byte for byte."""
    submits = imported().feed(INTERRUPT_IN + INTERRUPT_OUT)
    brought = bytes.fromhex("ffffffff860011a784ce5ae2123763612891b1020100000400").ljust(64, b"\0")
    zeros = "00000000 00000000 00000000 00000000"
    # The capture is older than the tables, which have 0 in start_frame and -1 in number_of_packets.
    tail = "00000040 00000000 ffffffff 00000000 00000000 00000000"
    assert usbip.returned(submits[1], 0) == bytes.fromhex(f"00000003 00000d06 {zeros} {tail}")
    assert usbip.returned(submits[0], 0, brought) == (
        bytes.fromhex(f"00000003 00000d05 {zeros} {tail}") + brought
    )


def test_a_transfer_is_taken_back():
    """UNLINK is read, and answered with -ECONNRESET, or 0 where the transfer was over."""
    raw = bytes.fromhex("00000002 00000011 00010002 00000000 00000000 00000010") + bytes(24)
    (unlink,) = imported().feed(raw)
    assert unlink == usbip.Unlink(0x11, 0x10)
    head = "00000004 00000011 00000000 00000000 00000000"
    assert usbip.taken_back(unlink, usbip.UNLINKED) == bytes.fromhex(f"{head} ffffff98") + bytes(24)
    assert usbip.taken_back(unlink, 0) == bytes.fromhex(head) + bytes(28)


def test_a_device_is_described():
    """The list has path, bus id, numbers and interfaces at the documented offsets; an import ends before those."""
    listed = usbip.device_list(CdcAcm())
    assert listed[:12] == bytes.fromhex("0111 0005 00000000 00000001")
    assert listed[12:0x10C].rstrip(b"\0").endswith(b"/1-1")
    assert listed[0x10C:0x12C] == b"1-1".ljust(32, b"\0")
    assert listed[0x12C:0x138] == bytes.fromhex("00000001 00000002 00000002")
    assert listed[0x138:0x144] == bytes.fromhex("04b4 0003 0000 000000 01 01 03")
    assert listed[0x144:] == bytes.fromhex("02020100 0a000000 ff050000")
    attached = usbip.imported(Ftdi())
    assert attached[:8] == bytes.fromhex("0111 0003 00000000")
    assert attached[0x134:] == bytes.fromhex("0403 8a28 0600 000000 01 01 01")
    assert len(attached) == 0x140


def test_what_is_not_there_is_refused():
    """An empty list, and an import that fails, end where the document ends them."""
    assert usbip.device_list(None) == bytes.fromhex("0111 0005 00000000 00000000")
    assert usbip.imported(None) == bytes.fromhex("0111 0003 00000001")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n",
        bytes.fromhex("0110 8005 00000000"),
        bytes.fromhex("0111 8007 00000000"),
    ],
)
def test_other_bytes_end_the_connection(raw: bytes):
    """What is no request of this version is an error, not a device."""
    with pytest.raises(usbip.ProtocolError):
        usbip.Requests().feed(raw)


def test_a_transfer_has_a_limit():
    """A transfer of gigabytes is refused before its bytes are waited for."""
    huge = INTERRUPT_OUT[:24] + bytes.fromhex("7fffffff") + INTERRUPT_OUT[28:48]
    with pytest.raises(usbip.ProtocolError, match="2147483647 bytes"):
        imported().feed(huge)
