"""What `make crash` does to processes and links happens: a fault that does nothing proves nothing."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raven_harness import stack
from raven_harness.crash.links import CUT, REFUSE, STALL, STALL_BACK, STALL_OUT, Link, Links
from raven_harness.crash.system import Part

from .system import wait_until

SOON_S = 0.3
"""What has not come after this long is held back: it takes a millisecond otherwise."""


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that says everything back."""
    with socket.create_server(("127.0.0.1", 0)) as server, Links() as links:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield links.add(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    with connection:
        try:
            while piece := connection.recv(100):
                connection.sendall(piece)
        except OSError:
            pass


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), 5)


def answer(client: socket.socket, question: bytes = b"?", within_s: float = 5.0) -> bytes:
    client.settimeout(within_s)
    client.sendall(question)
    return client.recv(100)


def test_a_link_passes_on_what_is_said(link: Link):
    """Both ways, for several clients."""
    with connect(link) as one, connect(link) as other:
        assert (answer(one, b"1"), answer(other, b"2")) == (b"1", b"2")


def test_a_link_that_is_cut_ends_its_connections_and_takes_new_ones(link: Link):
    """The client sees a reset; the next connection works."""
    with connect(link) as client:
        answer(client)
        link.hold(CUT)
        link.release(CUT)
        with pytest.raises(ConnectionError):
            client.recv(100) or (_ for _ in ()).throw(ConnectionError)
    with connect(link) as client:
        assert answer(client)


def test_a_link_that_refuses_takes_nothing_until_it_is_released_by_all(link: Link):
    """Two faults may hold one link."""
    link.hold(REFUSE)
    link.hold(REFUSE)
    link.release(REFUSE)
    with pytest.raises(ConnectionRefusedError):
        connect(link)
    link.release(REFUSE)
    with connect(link) as client:
        assert answer(client)


@pytest.mark.parametrize("mode", [STALL, STALL_OUT, STALL_BACK])
def test_a_link_that_stalls_holds_back_and_then_goes_on(link: Link, mode: str):
    """A black hole both ways, or one; nothing is lost in it."""
    with connect(link) as client:
        answer(client)
        link.hold(mode)
        with pytest.raises(TimeoutError):
            answer(client, b"!", SOON_S)
        link.release(mode)
        client.settimeout(5)
        assert client.recv(100) == b"!"


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    said: list[str] = []
    made = Part(stack.Process("sleep", ["sleep", "1000"], tmp_path), lambda e, **_: said.append(e))
    made.said = said
    made.process.start()
    made.begin()
    yield made
    made.close()
    assert not made.process.running


def test_a_part_is_down_until_everyone_released_it(part: Part):
    """Two faults may hold one process down; then it runs again."""
    first = part.process.pid
    part.hold()
    part.hold(signal.SIGTERM)
    part.ended()
    part.release()
    assert not part.process.running
    part.release()
    assert part.process.running
    assert part.process.pid != first
    assert "ended by itself" not in part.said


def test_a_part_that_ends_by_itself_is_told_and_started_again(part: Part):
    """As a container would be; nobody overlooks it."""
    first = part.process.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: part.process.running and part.process.pid != first, "it runs again")
    assert part.said == ["ended by itself"]
    wait_until(lambda: part.gaps, "its gap is known")


def test_a_part_that_is_paused_stands_still(part: Part):
    """SIGSTOP and SIGCONT reach it."""

    def state() -> str:
        return Path(f"/proc/{part.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    with part.paused():
        wait_until(lambda: state() == "T", "it stands still")
    wait_until(lambda: state() == "S", "it goes on")
    assert len(part.frail) == 1
