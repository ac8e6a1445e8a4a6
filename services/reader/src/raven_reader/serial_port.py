"""The serial line: finding the stick, opening it, reading and writing; the only pyserial here."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import serial
from serial.tools import list_ports

from ravenbus.errors import RetryableError

BAUD: Final = 115200
"""8 data bits, no parity, 1 stop bit, no flow control (RAVEn XML API r127 p.5)."""
READ_TIMEOUT_S: Final = 0.5
WRITE_TIMEOUT_S: Final = 2.0
_SOCKET_READ: Final = 4096


class DeviceLocation:
    """Location of the stick: ``auto``, a path, or a URL that pyserial opens."""

    ALLOWED = "auto, a path (/dev/…), socket://host:port or rfc2217://host:port"

    def __init__(self, text: str) -> None:
        """Read a location; raise ValueError if it is none."""
        if text != "auto" and not text.startswith(("/", "socket://", "rfc2217://")):
            raise ValueError(self.ALLOWED)
        self.text = text

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


class Stick(NamedTuple):
    """A stick that is plugged in."""

    path: str
    model: str
    description: str
    link: str


class PortError(RetryableError):
    """The port cannot be opened, read or written; it may come back."""


def find_sticks(ports: Callable[[], Iterable[Any]] = list_ports.comports) -> list[Stick]:
    """Return the RAVEn and EMU-2 sticks among the ports, by their USB identity.

    Raises PortError when a port goes away while it is looked at.
    """
    found = []
    try:
        seen = list(ports())
    except (OSError, TypeError, ValueError) as error:
        # pyserial makes numbers of files that vanish with the port.
        raise PortError(f"the ports cannot be listed now: {error}") from error
    for port in seen:
        identity = (port.vid, port.pid)
        text = f"{port.manufacturer or ''} {port.product or ''}".strip()
        if identity == (0x0403, 0x8A28):
            found.append(Stick(port.device, "RAVEn", text, _link(port.device)))
        # Cypress gave this identity to many products; the EMU-2 names itself.
        elif identity == (0x04B4, 0x0003) and (not port.product or "Z105" in port.product):
            found.append(Stick(port.device, "EMU-2", text, _link(port.device)))
    return sorted(found)


def print_sticks() -> int:
    """List the sticks that are plugged in; return the exit status, 1 if there is none."""
    sticks = find_sticks()
    for stick in sticks:
        print(f"{stick.model:6} {stick.path:14} {stick.link}  {stick.description}")
    if sticks:
        return 0
    print("no RAVEn (0403:8a28) or EMU-2 (04b4:0003) is plugged in", file=sys.stderr)
    return 1


class Port:
    """An open line; every call raises PortError when the line is gone."""

    def __init__(
        self,
        location: DeviceLocation,
        ports: Callable[[], Iterable[Any]] = list_ports.comports,
    ) -> None:
        self.name = _resolve(location, ports)
        url = "://" in self.name
        try:
            # Only one process may own the line: two readers would each get half of it.
            self._serial = serial.serial_for_url(
                self.name,
                BAUD,
                timeout=READ_TIMEOUT_S,
                write_timeout=WRITE_TIMEOUT_S,
                exclusive=None if url else True,
            )
        except (OSError, ValueError) as error:
            raise PortError(f"{self.name} cannot be opened: {_explain(error)}") from error
        self._is_socket = self.name.startswith("socket://")

    def read(self) -> bytes:
        """Return what has come, after at most ``READ_TIMEOUT_S``; nothing is b""."""
        try:
            data = bytes(self._serial.read(self._serial.in_waiting or 1))
        except (OSError, TypeError) as error:
            # pyserial reads from a closed descriptor when the line goes away meanwhile.
            raise PortError(f"{self.name} is gone: {_explain(error)}") from error
        return data + self._rest() if data and self._is_socket else data

    def _rest(self) -> bytes:
        """Return what else has come over a socket, of which pyserial counts one byte at most.

        A read that waits for more would throw away what it has when the other side closes.
        """
        self._serial.timeout = 0
        try:
            return bytes(self._serial.read(_SOCKET_READ))
        except OSError:
            return b""  # the next read says so
        finally:
            self._serial.timeout = READ_TIMEOUT_S

    def write(self, data: bytes) -> None:
        """Send bytes to the device."""
        try:
            self._serial.write(data)
        except OSError as error:
            raise PortError(f"{self.name} is gone: {_explain(error)}") from error

    def close(self) -> None:
        """Give the line back."""
        try:
            self._serial.close()
        except OSError as error:
            raise PortError(f"{self.name} is gone: {_explain(error)}") from error


def _link(path: str) -> str:
    """Return the name that stays the same when the stick is plugged in again, or nothing."""
    links = Path("/dev/serial/by-id")
    same = [link for link in links.glob("*") if link.resolve() == Path(path).resolve()]
    return str(same[0]) if same else ""


def _resolve(location: DeviceLocation, ports: Callable[[], Iterable[Any]]) -> str:
    if location.text != "auto":
        return location.text
    sticks = find_sticks(ports)
    if not sticks:
        raise PortError(
            "no RAVEn or EMU-2 is plugged in (`raven-reader devices` lists what is seen); "
            "RAVEN_DEVICE names another port"
        )
    if len(sticks) > 1:
        paths = ", ".join(stick.path for stick in sticks)
        raise PortError(f"several sticks are plugged in: RAVEN_DEVICE has to name one of {paths}")
    return sticks[0].path


def _explain(error: Exception) -> str:
    """Return what an error means for the person who plugged in the stick."""
    text = str(error)
    if "exclusively lock" in text or "temporarily unavailable" in text:
        return "another program uses it; two readers cannot share a stick"
    if "returned no data" in text:
        return "unplugged"
    match getattr(error, "errno", None):
        case errno.ENOENT:
            return "there is no such port; `raven-reader devices` lists the sticks that are there"
        case errno.EACCES:
            return "the user has to be in the group that owns it (dialout on Debian)"
        case errno.ENOTTY:
            return "it is no serial port"
    return text
