"""The serial line as the service lives with it: open, listen, ask, and open again, for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, Queue
from typing import Final, Protocol

from tenacity import wait_random_exponential

from raven_reader.commands import write
from raven_reader.serial_port import PortError
from raven_reader.silence import Silence, Step
from ravenbus.retrying import Reconnecting, retrying

log = logging.getLogger(__name__)

COMMAND_PAUSE_S: Final = 1.0
"""Commands sent back to back get lost (peers wait 0.1 to 3 s)."""
OPENING_COMMANDS: Final[dict[str, dict[str, str]]] = {
    "initialize": {},
    "get_device_info": {},
    "get_connection_status": {},
    "get_schedule": {"Event": "demand"},
    "get_current_summation_delivered": {},
    "get_current_price": {},
}
"""Asked once at each opening: what the device would otherwise say minutes later, or never."""
IDLE_S: Final = 1.0
"""A device that has said nothing for so long is not busy."""
PORT_WAIT: Final = wait_random_exponential(multiplier=0.5, max=10)


class OpenPort(Protocol):
    """A line that is open; every call raises PortError when it is gone."""

    name: str

    def read(self) -> bytes:
        """Return what has come, b"" after a short while of nothing."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def close(self) -> None:
        """Give the line back."""


class Listener(Protocol):
    """Receiver of the line's events, on the line's thread."""

    def opened(self, port: str) -> None:
        """Hear that a port is open; nothing has come from it yet."""

    def bytes_came(self, data: bytes) -> bool:
        """Take bytes, or b"" now and then; return whether a whole fragment was among them."""

    def silent(self, for_s: float) -> None:
        """Hear that nothing whole has come for a while."""

    def lost(self, reason: str) -> None:
        """Hear that the port cannot be opened, or is gone."""

    def next_command(self) -> bytes | None:
        """Return a command to send now that the device is not busy, None for none."""

    def command_sent(self, command: bytes) -> None:
        """Hear that a command was sent."""


class Line:
    """Runs a line until ``stop`` is set; ``commands`` are sent to the device one at a time."""

    def __init__(
        self,
        open_port: Callable[[], OpenPort],
        listener: Listener,
        commands: Queue[bytes],
        *,
        ask_after_s: float,
        reopen_after_s: float,
        link_ask_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause_s: Callable[[float], float] | None = None,
    ) -> None:
        self._open_port = open_port
        self._listener = listener
        self._ask_after_s = ask_after_s
        self._reopen_after_s = reopen_after_s
        self._link_ask_s = link_ask_s
        self._clock = clock
        self._commands = commands
        self._pause_s = pause_s or Reconnecting().pause_s

    def run(self, stop: threading.Event) -> None:
        """Keep the line open and pass on what it says."""
        while not stop.is_set():
            try:
                port = retrying(stop, PORT_WAIT)(self._open)
            except PortError:
                return
            opened_at = self._clock()
            silence = Silence(self._ask_after_s, self._reopen_after_s, heard_at=opened_at)
            try:
                self._listen(port, silence, stop)
            except PortError as error:
                self._listener.lost(str(error))
            finally:
                _close(port)
            # A port that opens and fails at once must not be tried again without a pause.
            heard = silence.heard_at > opened_at
            stop.wait(self._pause_s(float("inf") if heard else 0.0))

    def _open(self) -> OpenPort:
        try:
            return self._open_port()
        except PortError as error:
            self._listener.lost(str(error))
            raise

    def _listen(self, port: OpenPort, silence: Silence, stop: threading.Event) -> None:
        self._listener.opened(port.name)
        port.write(b"\r\n")  # ends whatever noise the device took for a command
        own = deque(
            write(name, parameters, allow_setters=False)
            for name, parameters in OPENING_COMMANDS.items()
        )
        send_at = busy_at = silence.heard_at
        ask_link_at = send_at + self._link_ask_s
        while not stop.is_set():
            data = port.read()
            now = self._clock()
            if data:
                busy_at = now
            if self._listener.bytes_came(data):
                silence.heard(now)
            silent_s = now - silence.heard_at
            match silence.step(now):
                case Step.ASK:
                    self._listener.silent(silent_s)
                    own.append(
                        write("get_instantaneous_demand", {"Refresh": "Y"}, allow_setters=False)
                    )
                case Step.REOPEN:
                    raise PortError(f"{port.name}: silent for {silent_s:.0f} s, reopening")
                case Step.LISTEN:
                    pass
            idle = now - busy_at >= IDLE_S
            if idle and now >= ask_link_at:
                own.append(write("get_connection_status", {}, allow_setters=False))
                ask_link_at = now + self._link_ask_s
            if now < send_at:
                continue
            if command := self._next_command(own, idle=idle):
                port.write(command)
                self._listener.command_sent(command)
                send_at = now + COMMAND_PAUSE_S

    def _next_command(self, own: deque[bytes], *, idle: bool) -> bytes | None:
        if own:
            return own.popleft()
        try:
            return self._commands.get_nowait()
        except Empty:
            return self._listener.next_command() if idle else None


def _close(port: OpenPort) -> None:
    try:
        port.close()
    except PortError as error:
        log.debug("closing failed", extra={"reason": str(error)})
