"""Where an export goes: a file that is there when it is whole, or standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Lend a file that gets its name when the block ends, and is gone when an error ends it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Stdout:
    """Standard output as a file that can only be written; knows how far it is."""

    closed = False

    def __init__(self) -> None:
        self._file = sys.stdout.buffer
        self._written = 0

    def write(self, data: bytes) -> int:
        """Write all of the data."""
        self._written += len(data)
        return self._file.write(data)
