"""Runs the parts of a home until a reading has come, and ends them all at once.

``python -m raven_harness.home PARTS URL SEQ``: a file of `Part`s, the broker's, and the number of
the reading.  What was promised is said on standard output: `accepted SEQ` when the reader
published a reading, `stored FIRST LAST` when the writer confirmed some.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from raven_harness import stack
from ravenbus.messages import Confirmation, decode, decode_reading
from ravenbus.mqtt import Broker, Connection, Events, Received
from ravenbus.settings import MqttUrl

READINGS: Final = "raven/v1/+/reading/+"
STORED: Final = "raven/v1/+/stored/+"


class Part(msgspec.Struct):
    """A process, and the port on which it listens if others wait for that."""

    name: str
    command: list[str]
    env: dict[str, str]
    port: int | None

    @classmethod
    def of(cls, process: stack.Process) -> Part:
        """Describe a process."""
        port = process.port if isinstance(process, stack.Server) else None
        return cls(process.name, process.command, process.env, port)


def command(folder: Path, processes: Sequence[stack.Process], url: str, last: int) -> list[str]:
    """Return how to run processes, described in a file in ``folder``, until a reading has come."""
    parts = folder / "parts"
    parts.write_bytes(msgspec.json.encode([Part.of(one) for one in processes]))
    return [sys.executable, "-m", "raven_harness.home", str(parts), url, str(last)]


def main(parts: Path, url: str, last: int) -> None:
    """Run the parts until a reading has come."""
    started: list[stack.Process] = []
    events: Events = SimpleQueue()
    connection: Connection | None = None
    for part in msgspec.json.decode(parts.read_bytes(), type=list[Part]):
        if part.port is None:
            process = stack.Process(part.name, part.command, parts.parent, part.env)
        else:
            process = stack.Server(part.name, part.command, parts.parent, part.port)
        process.start()
        started.append(process)
        if part.name == "broker":
            broker = Broker(MqttUrl(url), "raven-home", receive_maximum=65535)
            connection = broker(events)
            connection.subscribe([READINGS, STORED])
            connection.settle()
    try:
        if connection is None:
            raise ValueError("there is no part called broker")
        say_until(connection, events, last)
    finally:
        for process in started:
            process.kill()


def say_until(connection: Connection, events: Events, last: int) -> None:
    """Say what comes until a reading has."""
    while True:
        event = events.get(timeout=stack.WAIT_S)
        if not isinstance(event, Received):
            raise TypeError(f"{event} came")
        connection.acknowledge([event])
        if "/reading/" in event.topic:
            seq = decode_reading(event.payload).envelope.seq
            os.write(1, f"accepted {seq}\n".encode())
            if seq >= last:
                return
        else:
            for ranges in decode(event.payload, Confirmation).runs.values():
                for first, end in ranges:
                    os.write(1, f"stored {first} {end}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
