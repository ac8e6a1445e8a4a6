"""USB/IP, version 1.1.1: what a host asks and what is answered, byte by byte (pure).

Source: Documentation/usb/usbip_protocol.rst of the Linux kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raven_simulator.usb import interfaces

if TYPE_CHECKING:
    from raven_simulator.usb import Function

BUS_ID: Final = "1-1"
"""The port of the bus that a stick is in."""
PIPE_STALLED: Final = -32
"""Status of a transfer that the device refused: -EPIPE."""
UNLINKED: Final = -104
"""Status of a transfer that the host took back: -ECONNRESET."""

_VERSION: Final = 0x0111
_DEVLIST, _IMPORT = 0x8005, 0x8003
_REPLY: Final = 0x7FFF
"""What is left of a request's code in its reply's."""
_SUBMIT, _UNLINK, _RETURNED, _TAKEN_BACK = 1, 2, 3, 4
_BUS, _NUMBER, _FULL_SPEED = 1, 2, 2
_PATH: Final = b"/sys/devices/raven-simulator/usb1/" + BUS_ID.encode()
_NOT_ISOCHRONOUS: Final = 0xFFFFFFFF
_TRANSFER_MOST_BYTES: Final = 1 << 16

_OPERATION = struct.Struct("!HHI")
_COMMAND = struct.Struct("!5I")
_COMMAND_BYTES: Final = 48
_SUBMITTED = struct.Struct("!4xI12x8s")
_RETURN = struct.Struct("!5IiIIII8x")
_UNLINK_RETURN = struct.Struct("!5Ii24x")
_DEVICE = struct.Struct("!256s32sIIIHHHBBBBBB")


class ProtocolError(Exception):
    """Bytes that are not USB/IP; the text says which."""


@dataclass(frozen=True, slots=True)
class DeviceList:
    """OP_REQ_DEVLIST: ask which devices there are."""


@dataclass(frozen=True, slots=True)
class Import:
    """OP_REQ_IMPORT: the connection is the device's from here on."""

    bus_id: str


@dataclass(frozen=True, slots=True)
class Submit:
    """USBIP_CMD_SUBMIT: a transfer of ``length`` bytes; ``setup`` counts at endpoint 0 alone."""

    number: int
    endpoint: int
    to_host: bool
    length: int
    setup: bytes
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Unlink:
    """USBIP_CMD_UNLINK: the host takes back the transfer ``submitted``."""

    number: int
    submitted: int


Request = DeviceList | Import | Submit | Unlink


class Requests:
    """Reads what a host says, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._imported = False

    def feed(self, data: bytes) -> list[Request]:
        """Return the requests that are whole now; raises ProtocolError."""
        self._bytes += data
        found = []
        while request := self._command() if self._imported else self._operation():
            found.append(request)
        return found

    def _operation(self) -> Request | None:
        if len(self._bytes) < _OPERATION.size:
            return None
        version, code, _ = _OPERATION.unpack_from(self._bytes)
        if version != _VERSION or code not in (_DEVLIST, _IMPORT):
            raise ProtocolError(f"version {version:#06x}, code {code:#06x}")
        if code == _DEVLIST:
            self._take(_OPERATION.size)
            return DeviceList()
        if len(self._bytes) < _OPERATION.size + 32:
            return None
        self._imported = True
        bus_id = self._take(_OPERATION.size + 32)[_OPERATION.size :]
        return Import(bus_id.split(b"\0")[0].decode("ascii", "replace"))

    def _command(self) -> Request | None:
        if len(self._bytes) < _COMMAND_BYTES:
            return None
        command, number, _, to_host, endpoint = _COMMAND.unpack_from(self._bytes)
        if command == _UNLINK:
            (submitted,) = struct.unpack_from("!I", self._take(_COMMAND_BYTES), _COMMAND.size)
            return Unlink(number, submitted)
        length, setup = _SUBMITTED.unpack_from(self._bytes, _COMMAND.size)
        if command != _SUBMIT or length > _TRANSFER_MOST_BYTES:
            raise ProtocolError(f"command {command}, {length} bytes")
        size = _COMMAND_BYTES + (0 if to_host else length)
        if len(self._bytes) < size:
            return None
        data = self._take(size)[_COMMAND_BYTES:]
        return Submit(number, endpoint, bool(to_host), length, setup, data)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken


def device_list(function: Function | None) -> bytes:
    """Make OP_REP_DEVLIST of the one device, or of none."""
    head = _OPERATION.pack(_VERSION, _DEVLIST & _REPLY, 0)
    if function is None:
        return head + struct.pack("!I", 0)
    kinds = b"".join(kinds + b"\0" for kinds in interfaces(function.configuration))
    return head + struct.pack("!I", 1) + _described(function) + kinds


def imported(function: Function | None) -> bytes:
    """Make OP_REP_IMPORT: the device, or a refusal."""
    head = _OPERATION.pack(_VERSION, _IMPORT & _REPLY, 0 if function else 1)
    return head + (_described(function) if function else b"")


def returned(submit: Submit, status: int, data: bytes = b"") -> bytes:
    """Make USBIP_RET_SUBMIT: what a transfer brought; one to the device was taken whole."""
    length = len(data) if submit.to_host or status else submit.length
    head = _RETURN.pack(_RETURNED, submit.number, 0, 0, 0, status, length, 0, _NOT_ISOCHRONOUS, 0)
    return head + data


def taken_back(unlink: Unlink, status: int) -> bytes:
    """Make USBIP_RET_UNLINK: UNLINKED, or 0 for a transfer that was over already."""
    return _UNLINK_RETURN.pack(_TAKEN_BACK, unlink.number, 0, 0, 0, status)


def _described(function: Function) -> bytes:
    kinds, vendor, product, release = struct.unpack_from("<3sxHHH", function.device, 4)
    where = (_PATH, BUS_ID.encode(), _BUS, _NUMBER, _FULL_SPEED)
    counts = (1, 1, len(interfaces(function.configuration)))
    return _DEVICE.pack(*where, vendor, product, release, *kinds, *counts)
