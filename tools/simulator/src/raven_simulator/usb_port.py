"""The third end that a host can open: a USB device, which it imports over USB/IP.  Nothing here blocks."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final

from raven_simulator import usb, usbip
from raven_simulator.ports import Listening
from raven_simulator.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_MOST: Final = 1 << 16


class UsbPort(Listening):
    """A device that one host at a time has: the last that imported it.

    A host that lost its power says nothing, so that the connection does not tell that it has gone.
    """

    def __init__(self, host: str, port: int, function: Callable[[], usb.Function]) -> None:
        super().__init__(host, port)
        self._function = function
        self._callers: dict[socket.socket, usbip.Requests] = {}
        self._owner: socket.socket | None = None
        self._transfers = Transfers(function())
        self._unsent = b""
        self._poll = select.epoll()

    @property
    def address(self) -> str:
        """Host and port of USB/IP, and the device's bus id."""
        return f"{super().address} {usbip.BUS_ID}"

    def plug(self, address: str | None = None) -> None:
        """Listen, on the same port as before where none is given; raises PortError."""
        self._poll.register(self._listen(address), select.EPOLLIN)

    def unplug(self) -> None:
        """Take the device from its host, whose kernel sees it leave the bus."""
        for caller in list(self._callers):
            self._hang_up(caller)
        super().unplug()

    def opened(self) -> bool:
        """Return True if a program has the host's serial port open; do what hosts have asked."""
        self._accept()
        for caller in list(self._callers):
            self._serve(caller)
        return self._transfers.polled

    def read(self) -> bytes:
        """Return what the program wrote."""
        return self._transfers.take()

    def write(self, data: bytes) -> int:
        """Fill the transfers that the host has asked for; it asks for no more while nobody reads."""
        if self._unsent:
            return 0
        taken, answers = self._transfers.write(data)
        self._say(answers)
        return taken

    def stall(self) -> None:
        """Refuse the host's transfers until its driver has cleared that."""
        self._say(self._transfers.stall())

    def unread(self) -> int | None:
        """Bytes that the host's system did not acknowledge yet."""
        if self._owner is None:
            return 0
        answer = fcntl.ioctl(self._owner.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        return len(self._unsent) + int(struct.unpack("i", answer)[0])

    def descriptor(self) -> int | None:
        """Return what is readable when any connection has something."""
        return self._poll.fileno()

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            caller.setblocking(False)
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._callers[caller] = usbip.Requests()
            self._poll.register(caller, select.EPOLLIN)

    def _serve(self, caller: socket.socket) -> None:
        try:
            if caller is self._owner:
                self._say(b"")
            data = caller.recv(_READ_MOST)
            requests = self._callers[caller].feed(data)
        except BlockingIOError:
            return
        except (OSError, usbip.ProtocolError):
            data, requests = b"", []
        for request in requests:
            match request:
                case usbip.DeviceList():
                    _answer(caller, usbip.device_list(self._transfers.function))
                    data = b""
                case usbip.Import(bus_id):
                    if bus_id == usbip.BUS_ID:
                        if self._owner is not None:
                            self._hang_up(self._owner)
                        self._owner = caller
                        self._say(usbip.imported(self._transfers.function))
                    else:
                        _answer(caller, usbip.imported(None))
                        data = b""
                case usbip.Submit():
                    self._say(self._transfers.submit(request))
                case usbip.Unlink():
                    self._say(self._transfers.unlink(request))
        if not data:
            self._hang_up(caller)

    def _say(self, data: bytes) -> None:
        """Send to the owner what fits, and keep the rest."""
        self._unsent += data
        if self._owner is None or not self._unsent:
            return
        with contextlib.suppress(OSError):  # the next look sees that it has gone
            self._unsent = self._unsent[self._owner.send(self._unsent) :]
        room = select.EPOLLOUT if self._unsent else 0
        self._poll.modify(self._owner, select.EPOLLIN | room)

    def _hang_up(self, caller: socket.socket) -> None:
        if caller is self._owner:
            self._owner = None
            self._unsent = b""
            self._transfers = Transfers(self._function())
        del self._callers[caller]
        caller.close()


def _answer(caller: socket.socket, answer: bytes) -> None:
    # A few hundred bytes on a new connection: they fit.
    with contextlib.suppress(OSError):
        caller.send(answer)
