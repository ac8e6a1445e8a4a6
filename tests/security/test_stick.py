"""The serial line: what the bus may make a stick hear, and what a stick may make of the reader."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from raven_harness import stack
from raven_reader.commands import SETTERS, write
from raven_reader.framing import FRAGMENT_MAX
from raven_reader.line import OPENING_COMMANDS
from tests.system.system import NODE, System, wait_until
from tests.unit.reader.examples import demand

SILENT_S = 2.0
MEGABYTE = 2**20
GARBAGE = 2 * MEGABYTE
LARGE = "x" * 10_000


class Stick:
    """A stick behind TCP: sends what a test says, and keeps every byte that it hears."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""
        self._connection: socket.socket | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):  # closed
            self._connection, _ = self._listener.accept()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := self._connection.recv(4096):
                self.heard += data

    def send(self, data: bytes) -> None:
        # Who opens a line throws away what came before, and then says something.
        wait_until(lambda: self.heard, "the reader opens the line")
        assert self._connection
        self._connection.sendall(data)

    def close(self) -> None:
        for one in filter(None, (self._connection, self._listener)):
            one.close()


class Attacked(System):
    """Broker and reader, and a stick that does what it likes."""

    def __init__(self, folder: Path, mongo: stack.Mongo | None) -> None:
        super().__init__(folder, mongo)
        self.stick = Stick()
        self.port = stack.free_port()
        self.reader.env |= {
            "RAVEN_DEVICE": self.stick.address,
            "RAVEN_SILENCE_ASK_S": str(SILENT_S),
            "RAVEN_MAX_CLOCK_SKEW_S": "0",  # the examples' time
            "RAVEN_METRICS_PORT": str(self.port),
        }
        self.reports = 0

    def report(self) -> bytes:
        """Return a demand that was not sent yet."""
        self.reports += 1
        return demand(f"0x{self.reports:06x}")

    def accepts(self, count: int) -> None:
        """Return when ``count`` readings have been accepted."""
        wait_until(lambda: self.accepted()[1] >= count, f"{count} accepted, {self.accepted()}")
        assert self.accepted()[1] == count

    def close(self) -> None:
        super().close()
        self.stick.close()


@pytest.fixture(scope="module")
def attacked(
    tmp_path_factory: pytest.TempPathFactory, mongo_server: stack.Mongo | None
) -> Iterator[Attacked]:
    built = Attacked(tmp_path_factory.mktemp("attacked"), mongo_server)
    try:
        built.broker.start()
        built.reader.start()
        built.wait_for_log(built.reader, "connected to the broker")
        yield built
    finally:
        built.close()


@pytest.fixture
def accepted_before(attacked: Attacked) -> int:
    return attacked.accepted()[1]


XML = "</MeterMacId></Command><Command><Name>factory_reset</Name>"
REFUSED: dict[str, dict[str, Any] | bytes] = {
    **{name: {"name": name, "parameters": {}} for name in SETTERS},
    "a setter with what it needs": {
        "name": "set_fast_poll",
        "parameters": {"Frequency": "0x01", "Duration": "0xff"},
    },
    **{
        name: {"name": name}
        for name in ("factory_reset", "erase_halt", "set_restart_info", "secret", "image_block")
    },
    "unknown": {"name": "get_secrets"},
    "empty": {"name": ""},
    "capitals": {"name": "FACTORY_RESET"},
    "XML in the name": {"name": "get_time</Name><Name>factory_reset"},
    "a line in the name": {"name": "get_time\r\nfactory_reset"},
    "XML in a value": {"name": "get_time", "parameters": {"MeterMacId": XML}},
    "CDATA": {"name": "get_time", "parameters": {"MeterMacId": "<![CDATA[x]]>"}},
    "a comment": {"name": "get_time", "parameters": {"MeterMacId": "x --> <Name>secret</Name>"}},
    "XML in a parameter": {"name": "get_time", "parameters": {"Refresh></Name>": "Y"}},
    "Name as a parameter": {"name": "get_time", "parameters": {"Name": "factory_reset"}},
    "NUL": {"name": "get_time", "parameters": {"Refresh": "Y\0"}},
    "a line end": {"name": "get_time", "parameters": {"Refresh": "Y\r\n"}},
    "right to left": {"name": "get_time", "parameters": {"Refresh": "\u202eY"}},
    "full width": {"name": "get_time", "parameters": {"Refresh": "\uff1cName\uff1e"}},
    "a large value": {"name": "get_time", "parameters": {"Refresh": LARGE}},
    "a large name": {"name": "x" * 10_000},
    "a large id": {"name": "get_time", "id": LARGE},
    "many parameters": {"name": "get_time", "parameters": dict.fromkeys(map(str, range(9999)), "")},
    "more than is known": {"name": "get_time", "raw": "<Command><Name>secret</Name></Command>"},
    "a list": {"name": "get_time", "parameters": ["Y"]},
    "an operator": {"name": {"$ne": ""}},
    "no name": {},
    "no JSON": b"<Command><Name>factory_reset</Name></Command>",
    "nothing": b"",
    "not UTF-8": b'{"name":"get_time","parameters":{"Refresh":"\xff"}}',
    "nested": b'{"name":' * 20_000,
    "bytes of zero": bytes(1000),
}


def test_no_refused_command_reaches_the_stick(attacked: Attacked):
    """Each gets a reply that says why; the stick hears what was allowed before and after."""
    replies = attacked.watch(f"raven/v1/{NODE}/reply")
    asker = attacked.client("watcher")
    topic = f"raven/v1/{NODE}/command"
    for command in REFUSED.values():
        asker.publish(
            topic, command if isinstance(command, bytes) else json.dumps(command).encode()
        )
    asker.publish(topic, b'{"id": "last", "name": "get_current_price"}')
    answers: list[dict[str, Any]] = []

    def answered() -> bool:
        answers.extend(json.loads(message.payload) for message in replies.messages())
        return len(answers) > len(REFUSED)

    wait_until(answered, f"{len(answers)} answers of {len(REFUSED) + 1}")
    assert (answers[-1]["id"], answers[-1]["sent"]) == ("last", True)
    assert not any(answer["sent"] for answer in answers[:-1])
    assert all(len(answer["detail"]) > 5 for answer in answers)
    opening = [
        write(name, parameters, allow_setters=False).decode()
        for name, parameters in OPENING_COMMANDS.items()
    ]
    # Between these it asks because the stick is silent; what is asked from the bus comes after.
    asked = "<Command><Name>get_instantaneous_demand</Name><Refresh>Y</Refresh></Command>\r\n"
    last = opening[-1]
    wait_until(
        lambda: attacked.stick.heard.decode("latin-1").count(last) == 2, "the last one is heard"
    )
    heard = attacked.stick.heard.decode("latin-1").replace(asked, "")
    assert heard == "".join(["\r\n", *opening, last])
    assert all(line.isprintable() for line in attacked.reader.text().splitlines())


ENDLESS = {
    "angle brackets": (b"", b"<"),
    "white space": (b"", b" \t\r\n"),
    "zero bytes": (b"", b"\0"),
    "root tags": (b"", b"<InstantaneousDemand>"),
    "tags": (b"", b"<a>"),
    "a tag": (b"<", b"a"),
    "a fragment": (b"<InstantaneousDemand>", b"<Demand>0x1</Demand>"),
    "a text": (b"<MessageCluster><Text>", b"x"),
    "CDATA": (b"<MessageCluster><Text><![CDATA[", b"<x>"),
    "an end tag": (b"<InstantaneousDemand>", b"</InstantaneousDemand "),
    "entities": (b"<MessageCluster><Text>", b"&amp;"),
    "an unknown root": (b"<Foo><DeviceMacId>", b"0"),
}


@pytest.mark.parametrize("first", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_costs_no_memory_and_no_reading(
    attacked: Attacked, accepted_before: int, first: tuple[bytes, bytes]
):
    """2 MB of it leave less than half behind, and the readings around it are accepted."""
    start, endless = first
    attacked.stick.send(attacked.report())
    attacked.accepts(accepted_before + 1)
    process = psutil.Process(attacked.reader.pid)
    before = process.memory_info().rss
    attacked.stick.send(start + endless * (GARBAGE // len(endless)))
    # What is open may take the one that ends it with it, never a second one.
    attacked.stick.send(attacked.report() + attacked.report())
    attacked.accepts(accepted_before + 3)
    assert process.memory_info().rss - before < GARBAGE / 2


def test_a_byte_at_a_time_is_a_reading(attacked: Attacked, accepted_before: int):
    """However slowly it comes, and with noise before it."""
    for byte in b"<" * 10 + attacked.report():
        attacked.stick.send(bytes([byte]))
    attacked.accepts(accepted_before + 1)


def test_endless_noise_is_no_sign_of_life(attacked: Attacked, accepted_before: int):
    """A stick that says much and nothing whole is called silent, and asked; damage is counted."""
    damaged = 'raven_fragments_total{outcome="damaged"}'
    count = stack.metric(attacked.port, damaged) or 0
    said = attacked.reader.text().count("problem check=device")

    def silent() -> bool:
        attacked.stick.send(b"<InstantaneousDemand>" + b"x" * FRAGMENT_MAX)
        return attacked.reader.text().count("problem check=device") > said

    wait_until(silent, "the log says that the device is silent")
    assert (stack.metric(attacked.port, damaged) or 0) > count
    attacked.stick.send(attacked.report())
    attacked.accepts(accepted_before + 1)
    wait_until(
        lambda: "recovered check=device" in attacked.reader.text().rpartition("problem")[2],
        "the log says that it is heard again",
    )
