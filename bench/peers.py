"""Runs in the environment of peers.txt: the same bytes through the peers' parsers, to JSON.

``peers.py STREAM`` times both over the file; ``peers.py STREAM count`` counts what they find,
each fragment handed over alone.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from aioraven.protocols import RAVEnReaderProtocol  # type: ignore[import-not-found]
from aioraven.reader import RAVEnReader  # type: ignore[import-not-found]
from raven2mqtt.models import RavenState  # type: ignore[import-not-found]
from raven2mqtt.parser import (  # type: ignore[import-not-found]
    TOP_LEVEL_TAGS,
    RAVEnXmlStreamParser,
)

PIECE = 4096


class CountingReader(RAVEnReader):  # type: ignore[misc]
    """Counts the root elements among everything that the protocol hands over."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.found: Counter[str] = Counter()

    def feed_element(self, data: Element) -> None:
        if len(data):
            self.found[data.tag] += 1
        super().feed_element(data)


def alone(data: bytes) -> list[bytes]:
    """Split a stream at the start of each root, as seconds between reports split it."""
    roots = b"|".join(tag.encode() for tag in sorted({*TOP_LEVEL_TAGS, "ConnectionStatus"}))
    return re.split(rb"(?=<(?:" + roots + rb")>)", data)


def raven2mqtt_seconds(pieces: list[bytes]) -> float:
    """Framing and fields as text."""
    parser = RAVEnXmlStreamParser()
    start = time.perf_counter()
    for piece in pieces:
        parser.feed(piece)
    return time.perf_counter() - start


def raven2mqtt_values_seconds(pieces: list[bytes]) -> float:
    """Framing, fields, and numbers of the kinds that it uses: what its service calls."""
    parser = RAVEnXmlStreamParser()
    state = RavenState()
    start = time.perf_counter()
    for piece in pieces:
        for frame in parser.feed(piece):
            state.update(frame.tag, frame.payload)
    return time.perf_counter() - start


def aioraven_seconds(pieces: list[bytes], loop: Any) -> float:
    """Framing and fields as text; nobody waits for them, which costs it least."""
    protocol = RAVEnReaderProtocol(RAVEnReader(loop), loop)
    protocol.connection_made(asyncio.BaseTransport())
    start = time.perf_counter()
    for piece in pieces:
        protocol.data_received(piece)
    return time.perf_counter() - start


def counts(pieces: list[bytes], loop: Any) -> dict[str, dict[str, int]]:
    """Return the fragments that each finds, by root."""
    parser = RAVEnXmlStreamParser()
    theirs = Counter(frame.tag for piece in pieces for frame in parser.feed(piece))
    reader = CountingReader(loop)
    protocol = RAVEnReaderProtocol(reader, loop)
    protocol.connection_made(asyncio.BaseTransport())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for piece in pieces:
            protocol.data_received(piece)
    return {
        "raven2mqtt": dict(theirs),
        "aioraven": dict(reader.found),
        "known to raven2mqtt": dict.fromkeys(sorted(TOP_LEVEL_TAGS), 1),
    }


def main() -> None:
    data = Path(sys.argv[1]).read_bytes()
    loop = asyncio.new_event_loop()
    if sys.argv[2:] == ["count"]:
        print(json.dumps(counts(alone(data), loop)))
    else:
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        times = {
            "raven2mqtt": raven2mqtt_seconds(pieces),
            "raven2mqtt values": raven2mqtt_values_seconds(pieces),
            "aioraven": aioraven_seconds(pieces, loop),
        }
        print(json.dumps(times))
    loop.close()


if __name__ == "__main__":
    main()
