"""Capture files: raw bytes of a line with the times at which they came, secrets masked.

One JSON object a line, ``{"at": "2026-11-23T09:00:00.123Z", "data": "…"}``; a character of
``data`` is the byte of the same number (latin-1).  Made for bug reports: it can be read by eye,
and ``raven-reader decode`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, Final

import msgspec

HEAD: Final = b'{"at":'
_PIECE: Final = 65536


class Piece(msgspec.Struct, frozen=True):
    """Bytes that came together."""

    at: datetime
    data: str


def line(at: datetime, data: bytes) -> bytes:
    """Return a capture file's line for bytes that are masked already."""
    return msgspec.json.encode(Piece(at, data.decode("latin-1"))) + b"\n"


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a file, raw or captured.

    Raise ValueError that names the line for a capture file that is damaged.
    """
    head = file.read(len(HEAD))
    if head != HEAD:
        yield head
        while piece := file.read(_PIECE):
            yield piece
        return
    decoder = msgspec.json.Decoder(Piece)
    for number, text in enumerate(file, 1):
        whole = head + text if number == 1 else text
        try:
            yield decoder.decode(whole).data.encode("latin-1")
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ValueError(f"line {number}: {error}") from error
