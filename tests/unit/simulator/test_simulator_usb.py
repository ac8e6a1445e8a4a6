"""A stick as a USB device: descriptors, the drivers' requests, and transfers that wait."""

from __future__ import annotations

import struct

import pytest

from raven_simulator import usb, usbip
from raven_simulator.transfers import Transfers
from raven_simulator.usb import CdcAcm, Ftdi, Setup, StallError, answer

GET_DESCRIPTOR = 6
OPEN_FTDI = [(0x40, 0, 0), (0x40, 2, 0), (0x40, 3, 0x001A), (0x40, 4, 8), (0x40, 1, 0x0303)]


def ask(function: usb.Function, kind: int, request: int, value: int, length: int = 255) -> bytes:
    return answer(function, Setup(kind, request, value, 0, length), b"")


def bulk_in(number: int, endpoint: int, length: int = 128) -> usbip.Submit:
    return usbip.Submit(number, endpoint, True, length, bytes(8))


def control(number: int, setup: str) -> usbip.Submit:
    return usbip.Submit(number, 0, False, 0, bytes.fromhex(setup))


def status_of(returned: bytes) -> int:
    return int(struct.unpack_from("!i", returned, 20)[0])


@pytest.mark.parametrize(
    ("function", "identity", "interfaces"),
    [(CdcAcm(), (0x04B4, 0x0003), 3), (Ftdi(), (0x0403, 0x8A28), 1)],
)
def test_descriptors_are_well_formed(function, identity, interfaces):
    """Lengths add up, the identity is the model's, and there is no serial number."""
    device = ask(function, 0x80, GET_DESCRIPTOR, 0x0100)
    assert len(device) == device[0] == 18
    assert device[16] == 0
    assert struct.unpack_from("<HH", device, 8) == identity
    configuration = ask(function, 0x80, GET_DESCRIPTOR, 0x0200)
    assert struct.unpack_from("<H", configuration, 2)[0] == len(configuration)
    assert configuration[4] == len(usb.interfaces(configuration)) == interfaces
    assert ask(function, 0x80, GET_DESCRIPTOR, 0x0200, 9) == configuration[:9]


def test_names_are_the_sticks_own():
    """The strings are those that give the known names in /dev/serial/by-id."""
    assert ask(CdcAcm(), 0x80, GET_DESCRIPTOR, 0x0300) == bytes.fromhex("04030904")
    found = [
        ask(function, 0x80, GET_DESCRIPTOR, 0x0300 + index)[2:].decode("utf-16-le")
        for function in (CdcAcm(), Ftdi())
        for index in (1, 2)
    ]
    assert found == [
        "Rainforest Automation, Inc.",
        "RFA-Z105-2 HW2.7.3 EMU-2",
        "Rainforest",
        "RFA-Z106-RA-PC RAVEn v2.3.21",
    ]


def test_what_a_full_speed_device_lacks_is_refused():
    """There is no device qualifier, no second configuration and no third string."""
    for value in (0x0600, 0x0201, 0x0303):
        with pytest.raises(StallError):
            ask(CdcAcm(), 0x80, GET_DESCRIPTOR, value)


def test_cdc_acm_keeps_its_line_coding():
    """The driver reads back what it set; a break, which the device says it has not, is refused."""
    function = CdcAcm()
    coding = struct.pack("<IBBB", 9600, 0, 0, 7)
    assert answer(function, Setup(0x21, 0x20, 0, 0, 7), coding) == b""
    assert ask(function, 0xA1, 0x21, 0, 7) == coding
    assert ask(function, 0x21, 0x22, 3, 0) == b""
    with pytest.raises(StallError):
        ask(function, 0x21, 0x23, 100, 0)


def test_ftdi_answers_what_its_driver_asks():
    """Opening, latency, modem status and EEPROM are answered, what no chip has is refused."""
    function = Ftdi()
    assert [ask(function, *request) for request in OPEN_FTDI] == [b""] * len(OPEN_FTDI)
    assert ask(function, 0xC0, 10, 0) == b"\x10"
    ask(function, 0x40, 9, 1)
    assert ask(function, 0xC0, 10, 0) == b"\x01"
    assert ask(function, 0xC0, 5, 0, 2) == b"\x01\x60"
    assert len(ask(function, 0xC0, 0x90, 0, 2)) == 2
    with pytest.raises(StallError):
        ask(function, 0x40, 0x55, 0)


def test_ftdi_begins_each_packet_with_its_status():
    """62 bytes of each packet of 64 are the line's."""
    said = bytes(range(100))
    taken, transfer = Ftdi().transfer(said, 512)
    assert taken == 100
    assert transfer == b"\x01\x60" + said[:62] + b"\x01\x60" + said[62:]
    assert Ftdi().transfer(bytes(1000), 512) == (496, (b"\x01\x60" + bytes(62)) * 8)


def test_what_is_said_fills_what_waits():
    """Bytes go into the host's transfers in order, and no further than those reach."""
    transfers = Transfers(CdcAcm())
    assert transfers.write(b"lost") == (0, b"")
    first, second = bulk_in(1, 2), bulk_in(2, 2)
    assert transfers.submit(first) == transfers.submit(second) == b""
    said = bytes(300)
    assert transfers.write(said) == (
        256,
        usbip.returned(first, 0, said[:128]) + usbip.returned(second, 0, said[:128]),
    )
    assert transfers.write(b"more") == (0, b"")


def test_a_port_is_open_while_the_host_asks():
    """A driver asks what the stick says while a program has the port, and takes that back at its close."""
    transfers = Transfers(CdcAcm())
    transfers.submit(bulk_in(1, 3))
    assert not transfers.polled
    transfers.submit(bulk_in(2, 2))
    transfers.submit(bulk_in(3, 2))
    assert transfers.polled
    assert status_of(transfers.unlink(usbip.Unlink(4, 1))) == usbip.UNLINKED
    assert status_of(transfers.unlink(usbip.Unlink(5, 2))) == usbip.UNLINKED
    assert transfers.polled
    assert status_of(transfers.unlink(usbip.Unlink(6, 3))) == usbip.UNLINKED
    assert not transfers.polled
    assert status_of(transfers.unlink(usbip.Unlink(7, 3))) == 0


def test_commands_reach_the_stick():
    """What a program writes is taken whole, once."""
    transfers = Transfers(CdcAcm())
    command = usbip.Submit(1, 1, False, 3, bytes(8), b"<a>")
    assert status_of(transfers.submit(command)) == 0
    assert (transfers.take(), transfers.take()) == (b"<a>", b"")


@pytest.mark.parametrize(
    ("function", "clears"),
    [(CdcAcm, "0201000082000000"), (Ftdi, "0201000081000000"), (Ftdi, "4000000000000000")],
)
def test_a_stall_lasts_until_the_driver_clears_it(function, clears):
    """What waits and what is asked for is refused, until the endpoint is cleared or the chip reset."""
    transfers = Transfers(function())
    endpoint = transfers.function.bulk_in
    transfers.submit(bulk_in(1, endpoint))
    assert status_of(transfers.stall()) == usbip.PIPE_STALLED
    assert status_of(transfers.submit(bulk_in(2, endpoint))) == usbip.PIPE_STALLED
    assert transfers.write(b"more") == (0, b"")
    assert status_of(transfers.submit(control(3, clears))) == 0
    assert transfers.submit(bulk_in(4, endpoint)) == b""
    assert transfers.write(b"more")[0] == 4


def test_a_request_that_is_refused_stalls():
    """The control pipe says so, and goes on."""
    transfers = Transfers(Ftdi())
    assert status_of(transfers.submit(control(1, "4055000000000000"))) == usbip.PIPE_STALLED
    assert status_of(transfers.submit(control(2, "4001030300000000"))) == 0
