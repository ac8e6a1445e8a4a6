"""Runs the parts of a home until a reading has come, and ends them all at once.

``python -m tests.power.home PARTS URL SEQ``: a file of `Part`s, the broker's, and the number of
the reading.  What was promised is said on standard output: `accepted SEQ` when the reader
published a reading, `stored FIRST LAST` when the writer confirmed some.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from raven_harness import stack
from ravenbus.messages import Confirmation, decode, decode_reading
from ravenbus.mqtt import Received
from tests.system.system import Client

READINGS: Final = "raven/v1/home/reading/+"
STORED: Final = "raven/v1/home/stored/+"


class Part(msgspec.Struct):
    """A process, and the port on which it listens if others wait for that."""

    name: str
    command: list[str]
    env: dict[str, str]
    port: int | None


def main(parts: Path, url: str, last: int) -> None:
    """Run the parts until a reading has come."""
    started: list[stack.Process] = []
    for part in msgspec.json.decode(parts.read_bytes(), type=list[Part]):
        if part.port is None:
            process = stack.Process(part.name, part.command, parts.parent, part.env)
        else:
            process = stack.Server(part.name, part.command, parts.parent, part.port)
        process.start()
        started.append(process)
        if part.name == "broker":
            client = Client(url)
            client.subscribe(READINGS, STORED)
    try:
        say_until(client, last)
    finally:
        for process in started:
            process.kill()


def say_until(client: Client, last: int) -> None:
    """Say what comes until a reading has."""
    assert isinstance(client.events, SimpleQueue)
    while True:
        event = client.events.get(timeout=stack.WAIT_S)
        if not isinstance(event, Received):
            raise TypeError(f"{event} came")
        client.connection.acknowledge([event])
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
