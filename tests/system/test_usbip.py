"""The simulated stick as a USB device, imported by a small host of the test's own.

What the kernel's drivers make of it is for tests/machine.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raven_harness import stack

NO_SETUP = bytes(8)
SERIAL = {"raven": (1, 2, 512), "emu2": (2, 1, 128)}
"""Endpoint in, endpoint out, and how much the model's driver asks for at once."""


class Host:
    """What imports a device: one transfer at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._number = 0

    def ask(self, operation: int, rest: bytes, size: int) -> bytes:
        self._socket.sendall(struct.pack("!HHI", 0x0111, operation, 0) + rest)
        return self._take(size)

    def attach(self) -> bytes:
        return self.ask(0x8003, b"1-1".ljust(32, b"\0"), 0x140)

    def control(self, setup: str, length: int = 0) -> bytes:
        return self._transfer(0, length, setup=bytes.fromhex(setup), to_host=length > 0)

    def read(self, endpoint: int, length: int) -> bytes:
        return self._transfer(endpoint, length, to_host=True)

    def write(self, endpoint: int, data: bytes) -> None:
        self._transfer(endpoint, len(data), data=data)

    def close(self) -> None:
        self._socket.close()

    def _transfer(
        self,
        endpoint: int,
        length: int,
        *,
        to_host: bool = False,
        setup: bytes = NO_SETUP,
        data: bytes = b"",
    ) -> bytes:
        self._number += 1
        head = (1, self._number, 0x00010002, to_host, endpoint, 0, length, 0, 0xFFFFFFFF, 0)
        self._socket.sendall(struct.pack("!10I8s", *head, setup) + data)
        command, number, status, count = struct.unpack_from("!II12xiI", self._take(48))
        assert (command, number) == (3, self._number)
        if status:
            raise OSError(-status, "transfer")
        return self._take(count) if to_host else b""

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            more = self._socket.recv(size - len(taken))
            if not more:
                raise ConnectionResetError
            taken += more
        return taken


@pytest.fixture
def plugged(tmp_path: Path) -> Iterator[Callable[..., Callable[[], Host]]]:
    """Start a stick; return what makes connections to it."""
    sticks: list[stack.Simulator] = []
    hosts: list[Host] = []

    def plug(*options: str) -> Callable[[], Host]:
        port = stack.free_port()
        address = f"127.0.0.1:{port}"
        sticks.append(stack.simulator(tmp_path, "--usbip", address, "--rate", "20", *options))
        sticks[0].start()
        stack.wait_until(lambda: f"ready {address} 1-1" in sticks[0].text(), "the stick is ready")

        def connect() -> Host:
            hosts.append(Host(port))
            return hosts[-1]

        return connect

    yield plug
    for one in hosts:
        one.close()
    for one in sticks:
        one.stop()


def line_of(model: str, transfer: bytes) -> bytes:
    """Return what is the line's of a transfer."""
    packets = [transfer[at : at + 64] for at in range(0, len(transfer), 64)]
    if model == "raven":
        assert all(packet.startswith(b"\x01\x60") for packet in packets)
        return b"".join(packet[2:] for packet in packets)
    return transfer


def until_refused(host: Host) -> tuple[bytes, OSError]:
    """Return what was said before a transfer failed, and why it did."""
    said = b""
    while True:
        try:
            said += host.read(2, 128)
        except OSError as error:
            return said, error


@pytest.mark.parametrize("model", SERIAL)
def test_a_host_reads_what_the_stick_says(plugged, model):
    """Imported and opened, it sends whole reports, and answers a command that is written to it."""
    host = plugged("--model", model)()
    assert host.attach()[4:8] == bytes(4)
    assert len(host.control("8006000100001200", 18)) == 18
    bulk_in, bulk_out, length = SERIAL[model]
    said = b""
    while b"</InstantaneousDemand>" not in said:
        said += line_of(model, host.read(bulk_in, length))
    host.write(bulk_out, b"<Command><Name>get_time</Name></Command>\r\n")
    while b"</TimeCluster>" not in said:
        said += line_of(model, host.read(bulk_in, length))
    assert re.search(rb"<TimeCluster>\s+<DeviceMacId>0xd8d5b90000001234</DeviceMacId>", said)


def test_one_host_has_the_device(plugged):
    """Another one sees it in the list, and takes it from the first, which may have lost its power."""
    connect = plugged("--model", "emu2")
    first = connect()
    assert first.attach()[4:8] == bytes(4)
    assert connect().ask(0x8005, b"", 12)[8:] == bytes.fromhex("00000001")
    assert first.read(2, 128)
    assert connect().ask(0x8003, b"2-7".ljust(32, b"\0"), 8)[4:] == bytes.fromhex("00000001")
    second = connect()
    second.attach()
    assert isinstance(until_refused(first)[1], ConnectionResetError)
    assert second.read(2, 128)


def test_a_device_that_resets(plugged):
    """It leaves the bus in the middle of a report, and can be attached again at once."""
    connect = plugged("--model", "emu2", "--fault", "reset:1")
    host = connect()
    host.attach()
    said, error = until_refused(host)
    assert isinstance(error, ConnectionResetError)
    assert said.rindex(b"<") > said.rindex(b"\r\n<") > said.rindex(b"\r\n</")
    back = connect()
    back.attach()
    assert back.read(2, 128).startswith(b"<")


def test_a_stall(plugged):
    """Transfers are refused until the host has cleared the endpoint; then the stick is heard again."""
    host = plugged("--model", "emu2", "--fault", "stall:1")()
    host.attach()
    assert until_refused(host)[1].errno == errno.EPIPE
    assert until_refused(host)[0] == b""
    host.control("0201000082000000")
    assert host.read(2, 128)
