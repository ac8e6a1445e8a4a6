"""The transfers between a host and a stick that is a USB device (pure)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from raven_simulator import usb, usbip

if TYPE_CHECKING:
    from raven_simulator.usb import Function
    from raven_simulator.usbip import Submit, Unlink


class Transfers:
    """What one host has asked for and not yet got; the answers are USB/IP's."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.polled = False
        """True if the host asks what the stick says: a program has the serial port open."""
        self._waiting: deque[Submit] = deque()
        self._notices: dict[int, Submit] = {}
        self._received = b""
        self._halted = False

    def submit(self, asked: Submit) -> bytes:
        """Answer a transfer, or have it wait for what the stick says."""
        if asked.endpoint == 0:
            return self._control(asked)
        if not asked.to_host:
            self._received += asked.data
            return usbip.returned(asked, 0)
        if asked.endpoint != self.function.bulk_in:
            self._notices[asked.number] = asked
            return b""
        self.polled = True
        if self._halted:
            return usbip.returned(asked, usbip.PIPE_STALLED)
        self._waiting.append(asked)
        return b""

    def unlink(self, asked: Unlink) -> bytes:
        """Give a transfer up; a host that waits for none has closed the port."""
        if self._notices.pop(asked.submitted, None):
            return usbip.taken_back(asked, usbip.UNLINKED)
        left = deque(one for one in self._waiting if one.number != asked.submitted)
        found = len(left) < len(self._waiting)
        self._waiting = left
        self.polled = bool(left)
        return usbip.taken_back(asked, usbip.UNLINKED if found else 0)

    def write(self, data: bytes) -> tuple[int, bytes]:
        """Fill what waits; return how many bytes that took, and the answers."""
        taken, answers = 0, b""
        while self._waiting and taken < len(data):
            asked = self._waiting.popleft()
            count, transfer = self.function.transfer(data[taken:], asked.length)
            taken += count
            answers += usbip.returned(asked, 0, transfer)
        return taken, answers

    def take(self) -> bytes:
        """Return what the host sent, once."""
        received, self._received = self._received, b""
        return received

    def stall(self) -> bytes:
        """Refuse what waits and what is asked for, until the driver clears that; return the answers."""
        self._halted = True
        refused, self._waiting = self._waiting, deque()
        return b"".join(usbip.returned(one, usbip.PIPE_STALLED) for one in refused)

    def _control(self, asked: Submit) -> bytes:
        setup = usb.Setup.read(asked.setup)
        if self.function.restarts(setup):
            self._halted = False
        try:
            return usbip.returned(asked, 0, usb.answer(self.function, setup, asked.data))
        except usb.StallError:
            return usbip.returned(asked, usbip.PIPE_STALLED)
