"""Ends that a host can open: a pseudo-terminal and a TCP port.  Nothing here blocks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import select
import socket
import struct
import termios
import tty
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_READ_MOST: Final = 4096
_PORT_MOST: Final = 0xFFFF
_NO_USB: Final = "only a USB device (--usbip) stalls"


class PortError(Exception):
    """A port cannot be made; the text says which and why."""


class Port(Protocol):
    """A line with at most one reader.

    unplugged it has no address and no reader; the other methods are then harmless.
    """

    @property
    def address(self) -> str:
        """Address that a host opens: the link's path, or host:port."""

    @property
    def plugged(self) -> bool:
        """True if the port exists."""

    def plug(self, address: str | None = None) -> None:
        """Make the port, under a new address where one is given; raises PortError."""

    def unplug(self) -> None:
        """Take the port away, from under a reader too."""

    def opened(self) -> bool:
        """Return True if a reader holds the line now; let one in."""

    def read(self) -> bytes:
        """Return what the reader wrote, empty for nothing."""

    def write(self, data: bytes) -> int:
        """Write what fits now; returns the number of bytes taken, 0 when the line is full or closed."""

    def stall(self) -> None:
        """Refuse the host's transfers; raises PortError where the port is no USB device."""

    def unread(self) -> int | None:
        """At least 1 while written bytes wait for the reader, 0 when none do, None where it cannot be known."""

    def descriptor(self) -> int | None:
        """File descriptor to poll for what comes next; None: poll() cannot tell, look again soon."""


def _claimed(link: Path) -> socket.socket:
    """Keep other simulators from a link for as long as the socket is open; raise PortError."""
    claim = socket.socket(socket.AF_UNIX)
    # A name of the kernel's alone, which goes with the process that has it.
    name = hashlib.sha256(str(link.absolute()).encode()).hexdigest()
    try:
        claim.bind(f"\0raven-simulator-{name}")
    except OSError:
        claim.close()
        raise PortError(f"{link} is another simulator's, which runs") from None
    return claim


class PtyPort:
    """A pseudo-terminal behind a symbolic link.

    Only the master is kept open: then poll() shows POLLHUP exactly while no reader holds the other side.
    """

    def __init__(self, link: Path) -> None:
        self._link = link
        self._master: int | None = None
        self._slave = ""
        self._last_slave = ""
        self._held = False
        self._poll = select.poll()
        self._claim: socket.socket | None = None

    @property
    def address(self) -> str:
        """Path of the link."""
        return str(self._link)

    @property
    def plugged(self) -> bool:
        """True if the pseudo-terminal exists."""
        return self._master is not None

    def plug(self, address: str | None = None) -> None:
        """Make another pseudo-terminal than the last one and point the link at it; raises PortError."""
        if address is not None:
            self._link = type(self._link)(address)
        if self._link.exists() and not self._link.is_symlink():
            raise PortError(f"{self._link} exists and is no symbolic link")
        self._claim = _claimed(self._link)
        try:
            self._master, self._slave = self._another_pty()
            temporary = self._link.with_name(f".{self._link.name}.{os.getpid()}")
            temporary.symlink_to(self._slave)
            temporary.replace(self._link)
        except OSError as error:
            self._close()
            raise PortError(f"cannot make {self._link}: {error.strerror}") from error
        self._held = False
        self._poll = select.poll()
        self._poll.register(self._master, 0)

    def unplug(self) -> None:
        """Remove the link, and then close the pseudo-terminal: its name may be another one's next."""
        with contextlib.suppress(OSError):
            if os.readlink(self._link) == self._slave:  # noqa: PTH115 - Path.readlink makes a Path of it
                self._link.unlink()
        self._close()

    def opened(self) -> bool:
        """Return True if a reader has the slave open; discard what one left unread."""
        if self._master is None:
            return False
        events = self._poll.poll(0)
        held = not any(mask & select.POLLHUP for _, mask in events)
        if self._held and not held:
            self._reset()
        self._held = held
        return held

    def read(self) -> bytes:
        """Return what the reader wrote."""
        if self._master is None:
            return b""
        try:
            return os.read(self._master, _READ_MOST)
        except OSError:
            return b""

    def write(self, data: bytes) -> int:
        """Write what fits into the terminal's buffer."""
        if self._master is None:
            return 0
        try:
            return os.write(self._master, data)
        except OSError:
            return 0

    def stall(self) -> None:
        """Raise PortError."""
        raise PortError(_NO_USB)

    def unread(self) -> int | None:
        """Bytes that the reader did not take yet, as the slave counts them."""
        if self._master is None or not self._held:
            return 0
        try:
            slave = os.open(self._slave, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            answer = fcntl.ioctl(slave, termios.FIONREAD, b"\0" * 4)
        finally:
            os.close(slave)
        return int(struct.unpack("i", answer)[0])

    def descriptor(self) -> int | None:
        """Master while a reader holds the slave; else poll() would return at once with POLLHUP."""
        return self._master if self._held else None

    def _another_pty(self) -> tuple[int, str]:
        """Open a pseudo-terminal; the kernel gives the lowest free number, so the last one's is kept busy."""
        master, slave = self._open()
        if slave == self._last_slave:
            busy = master
            try:
                master, slave = self._open()
            finally:
                os.close(busy)
        self._last_slave = slave
        return master, slave

    @staticmethod
    def _open() -> tuple[int, str]:
        master, slave = os.openpty()
        try:
            tty.setraw(slave)
            os.set_blocking(master, False)
            return master, os.ttyname(slave)
        finally:
            # A new master shows POLLHUP only after its slave was open and closed once.
            os.close(slave)

    def _reset(self) -> None:
        """Put the line as it was before the reader: nothing unread, raw, no echo."""
        if self._master is None:
            return
        with contextlib.suppress(OSError, termios.error):
            slave = os.open(self._slave, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                termios.tcflush(slave, termios.TCIOFLUSH)
                tty.setraw(slave)
            finally:
                os.close(slave)

    def _close(self) -> None:
        if self._master is not None:
            os.close(self._master)
        if self._claim:
            self._claim.close()
        self._master = self._claim = None
        self._held = False


class Listening:
    """A TCP port that listens while it is plugged, on one number."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._listener: socket.socket | None = None

    @property
    def address(self) -> str:
        """Host and the actual port."""
        return join_address(self._host, self._port)

    @property
    def plugged(self) -> bool:
        """True if the port is listening."""
        return self._listener is not None

    def plug(self, address: str | None = None) -> None:
        """Listen, on the same port as before where none is given; raises PortError."""
        self._listen(address)

    def unplug(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.close()
        self._listener = None

    def _listen(self, address: str | None) -> socket.socket:
        if address is not None:
            self._host, self._port = split_address(address)
        self._listener = listen(self._host, self._port)
        self._port = self._listener.getsockname()[1]
        return self._listener


class TcpPort(Listening):
    """A TCP port with one reader at a time; another is turned away while it lasts."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._reader: socket.socket | None = None
        self._received = b""

    def unplug(self) -> None:
        """Close the connection and the port."""
        self._hang_up()
        super().unplug()

    def opened(self) -> bool:
        """Return True if a reader is connected; take what it wrote, and see that it left."""
        self._accept()
        if self._reader is None:
            return False
        try:
            data = self._reader.recv(_READ_MOST)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if data:
            self._received += data
        else:
            self._hang_up()
        return self._reader is not None

    def read(self) -> bytes:
        """Return what the reader wrote."""
        data, self._received = self._received, b""
        return data

    def write(self, data: bytes) -> int:
        """Write what fits into the socket's buffer."""
        if self._reader is None:
            return 0
        try:
            return self._reader.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._hang_up()
            return 0

    def stall(self) -> None:
        """Raise PortError."""
        raise PortError(_NO_USB)

    def unread(self) -> int | None:
        """Bytes that the reader's system did not acknowledge yet."""
        if self._reader is None:
            return 0
        try:
            answer = fcntl.ioctl(self._reader.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except OSError:
            return None
        return int(struct.unpack("i", answer)[0])

    def descriptor(self) -> int | None:
        """Return the connection, or the listening socket while there is none."""
        if self._reader is not None:
            return self._reader.fileno()
        return None if self._listener is None else self._listener.fileno()

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                newcomer, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ECONNABORTED):
                    continue
                return
            if self._reader is None:
                newcomer.setblocking(False)
                newcomer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._reader = newcomer
                self._received = b""
            else:
                newcomer.close()

    def _hang_up(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(OSError):
                self._reader.shutdown(socket.SHUT_RDWR)
            self._reader.close()
        self._reader = None


def listen(host: str, port: int) -> socket.socket:
    """Listen without blocking; raises PortError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        address = join_address(host, port)
        raise PortError(f"cannot listen on {address}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def join_address(host: str, port: int) -> str:
    """HOST:PORT or [HOST]:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [HOST]:PORT; raises PortError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _PORT_MOST:
        raise PortError(f"{address!r} is not HOST:PORT with a port of 0 to 65535")
    return host.strip("[]"), int(port)
