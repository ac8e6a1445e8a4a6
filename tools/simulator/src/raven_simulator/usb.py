"""What a stick is on USB: its descriptors, and the requests that its driver makes (pure).

An EMU-2 is a serial port of the class CDC ACM; its descriptors are those that ``lsusb -v`` showed
of one.  A RAVEn is an FTDI chip with an identity and names of its own.  No listing of one is
public, so the rest is that of an FT232R.  Neither has a serial number: the names that their
owners have in /dev/serial/by-id are without one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

PACKET_BYTES: Final = 64

_DEVICE, _CONFIGURATION, _STRING, _INTERFACE = 1, 2, 3, 4
_ENGLISH: Final = 0x0409
# USB 2.0, table 9-4.
_GET_STATUS, _CLEAR_FEATURE, _SET_FEATURE, _GET_DESCRIPTOR = 0, 1, 3, 6
_GET_CONFIGURATION, _SET_CONFIGURATION, _SET_INTERFACE = 8, 9, 11


class StallError(Exception):
    """The device refuses a request."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The eight bytes that begin a control transfer (USB 2.0, 9.3)."""

    kind: int
    request: int
    value: int
    index: int
    length: int

    @classmethod
    def read(cls, raw: bytes) -> Setup:
        """Read the eight bytes."""
        return cls(*struct.unpack("<BBHHH", raw))


class Function(Protocol):
    """A stick's serial port as its driver sees it."""

    device: bytes
    configuration: bytes
    names: tuple[str, ...]
    """Texts of the string descriptors, from 1 on."""
    bulk_in: int
    """Number of the endpoint that brings what the stick says."""

    def request(self, setup: Setup, data: bytes) -> bytes:
        """Answer a request that is the driver's own; raises StallError."""

    def restarts(self, setup: Setup) -> bool:
        """Return True if bulk_in works again after this request, had it refused before."""

    def transfer(self, data: bytes, length: int) -> tuple[int, bytes]:
        """Return how many bytes of data a transfer of length takes, and the transfer."""


def _device(vendor: int, product: int, release: int) -> bytes:
    """Descriptor of a device that has a manufacturer, a product and no serial number."""
    numbers = (vendor, product, release, 1, 2, 0, 1)
    return struct.pack("<BBHBBBBHHHBBBB", 18, _DEVICE, 0x0200, 0, 0, 0, 8, *numbers)


class CdcAcm:
    """An EMU-2: requests of CDC PSTN 1.2, 6.3."""

    device = _device(0x04B4, 0x0003, 0)
    configuration = bytes.fromhex(
        "0902540003010080fa"  # 3 interfaces, powered by the bus, 500 mA
        "080b000202020100"  # of which the first two are one function
        "090400000102020100 0524001001 04240202 0524060001 0524010001 0705830340000a"
        "09040100020a000000 07050102400000 07058202400000"  # bulk out 1, bulk in 2
        "0904020000ff050000"
    )
    names: tuple[str, ...] = ("Rainforest Automation, Inc.", "RFA-Z105-2 HW2.7.3 EMU-2")
    bulk_in = 2

    _SET_LINE_CODING, _GET_LINE_CODING, _SET_CONTROL_LINE_STATE = 0x20, 0x21, 0x22

    def __init__(self) -> None:
        self._coding = struct.pack("<IBBB", 115200, 0, 0, 8)

    def request(self, setup: Setup, data: bytes) -> bytes:
        """Keep how the line is set, which changes nothing where there is none."""
        match setup.kind, setup.request:
            case 0x21, self._SET_LINE_CODING if len(data) == len(self._coding):
                self._coding = data
                return b""
            case 0xA1, self._GET_LINE_CODING:
                return self._coding
            case 0x21, self._SET_CONTROL_LINE_STATE:
                return b""
        raise StallError

    def restarts(self, setup: Setup) -> bool:
        """Know CLEAR_FEATURE(ENDPOINT_HALT)."""
        return _clears_halt(setup, self.bulk_in)

    def transfer(self, data: bytes, length: int) -> tuple[int, bytes]:
        """Bytes are what they are."""
        return min(len(data), length), data[:length]


class Ftdi:
    """A RAVEn: what ftdi_sio of the Linux kernel asks of the chip."""

    device = _device(0x0403, 0x8A28, 0x0600)
    configuration = bytes.fromhex(
        "09022000010100a0fa"  # 1 interface, powered by the bus, 500 mA
        "0904000002ffffff02 07058102400000 07050202400000"  # bulk in 1, bulk out 2
    )
    names: tuple[str, ...] = ("Rainforest", "RFA-Z106-RA-PC RAVEn v2.3.21")
    bulk_in = 1

    _RESET, _MODEM_STATUS, _SET_LATENCY, _GET_LATENCY, _READ_EEPROM = 0, 5, 9, 10, 0x90
    _SETTERS: Final = (_RESET, 1, 2, 3, 4, 6, 7, _SET_LATENCY)
    """The others: modem lines, flow control, baud rate, data format, event and error character."""
    _STATUS: Final = b"\x01\x60"
    """Modem and line status before each packet: transmitter empty, nothing else."""

    def __init__(self) -> None:
        self._latency_ms = 16

    def request(self, setup: Setup, data: bytes) -> bytes:  # noqa: ARG002 - all is in the setup
        """Keep the latency; the rest changes nothing where there is no line."""
        match setup.kind, setup.request:
            case 0x40, request if request in self._SETTERS:
                if request == self._SET_LATENCY:
                    self._latency_ms = setup.value & 0xFF
                return b""
            case 0xC0, self._MODEM_STATUS:
                return self._STATUS
            case 0xC0, self._GET_LATENCY:
                return bytes([self._latency_ms])
            case 0xC0, self._READ_EEPROM:
                return bytes(setup.length)
        raise StallError

    def restarts(self, setup: Setup) -> bool:
        """Know CLEAR_FEATURE(ENDPOINT_HALT), and the chip's own reset, which opening it begins with."""
        return _clears_halt(setup, self.bulk_in) or (
            (setup.kind, setup.request, setup.value) == (0x40, self._RESET, 0)
        )

    def transfer(self, data: bytes, length: int) -> tuple[int, bytes]:
        """Begin each packet with the status.

        A chip sends the status alone, too, when its latency is over; nothing needs that here.
        """
        room = PACKET_BYTES - len(self._STATUS)
        taken = data[: length // PACKET_BYTES * room]
        packets = (taken[at : at + room] for at in range(0, len(taken), room))
        return len(taken), b"".join(self._STATUS + packet for packet in packets)


FUNCTIONS: Final[Mapping[str, Callable[[], Function]]] = {"raven": Ftdi, "emu2": CdcAcm}
"""By the name of the model."""


def answer(function: Function, setup: Setup, data: bytes) -> bytes:
    """Answer a control transfer; raises StallError."""
    if setup.kind & 0x60:
        return function.request(setup, data)[: setup.length]
    if setup.request == _GET_DESCRIPTOR:
        return _descriptor(function, setup.value)[: setup.length]
    if setup.request == _GET_STATUS:
        return b"\0\0"
    if setup.request == _GET_CONFIGURATION:
        return b"\1"
    if setup.request in (_CLEAR_FEATURE, _SET_FEATURE, _SET_CONFIGURATION, _SET_INTERFACE):
        return b""
    raise StallError


def interfaces(configuration: bytes) -> list[bytes]:
    """Class, subclass and protocol of each interface of a configuration."""
    found, at = [], 0
    while at < len(configuration):
        if configuration[at + 1] == _INTERFACE:
            found.append(configuration[at + 5 : at + 8])
        at += configuration[at]
    return found


def _clears_halt(setup: Setup, endpoint: int) -> bool:
    wanted = (2, _CLEAR_FEATURE, 0, 0x80 | endpoint)
    return (setup.kind, setup.request, setup.value, setup.index) == wanted


def _descriptor(function: Function, value: int) -> bytes:
    kind, index = divmod(value, 0x100)
    if kind == _DEVICE:
        return function.device
    if kind == _CONFIGURATION and not index:
        return function.configuration
    if kind == _STRING and index <= len(function.names):
        text = function.names[index - 1].encode("utf-16-le") if index else None
        content = text or struct.pack("<H", _ENGLISH)
        return bytes([2 + len(content), _STRING]) + content
    raise StallError
