"""Runs in the environment of peers.txt: the same bytes through the peers' parsers, to JSON.

``peers.py STREAM`` times both over the file; ``peers.py STREAM count`` counts what they find.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from aioraven.protocols import RAVEnReaderProtocol  # type: ignore[import-not-found]
from aioraven.reader import RAVEnReader  # type: ignore[import-not-found]
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


def raven2mqtt_seconds(pieces: list[bytes]) -> float:
    """Framing and fields as text; its service calls exactly this."""
    parser = RAVEnXmlStreamParser()
    start = time.perf_counter()
    for piece in pieces:
        parser.feed(piece)
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
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    loop = asyncio.new_event_loop()
    if sys.argv[2:] == ["count"]:
        print(json.dumps(counts(pieces, loop)))
    else:
        times = {
            "raven2mqtt": raven2mqtt_seconds(pieces),
            "aioraven": aioraven_seconds(pieces, loop),
        }
        print(json.dumps(times))
    loop.close()


if __name__ == "__main__":
    main()
