"""Commands from the host, out of bytes in any pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# The longest command of the manual is below 500 bytes.
_BUFFER_LIMIT: Final = 4096

_OPEN: Final = b"<command>"
_CLOSE: Final = b"</command>"
_CHILD = re.compile(r"<\s*(\w+)\s*>([^<]*)<\s*/\s*\1\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Command:
    """A command's name and its parameters, names in lower case; the name is empty where none was given."""

    name: str
    parameters: Mapping[str, str]

    def number(self, parameter: str) -> int | None:
        """Parameter as a number, 0x or decimal; None if it is missing or no number."""
        try:
            return int(self.parameters.get(parameter, ""), 0)
        except ValueError:
            return None

    def flag(self, parameter: str, *, default: bool) -> bool:
        """Parameter as Y or N."""
        value = self.parameters.get(parameter, "").strip().upper()
        return value == "Y" if value else default


class Commands:
    """Finds commands in a stream of bytes; noise between them is dropped, memory is bounded."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Command]:
        """Take more bytes and return the commands that they complete."""
        self._buffer += data.replace(b"\0", b"")
        found = []
        while (end := self._buffer.lower().find(_CLOSE)) >= 0:
            text, self._buffer = self._buffer[:end], self._buffer[end + len(_CLOSE) :]
            start = text.lower().rfind(_OPEN)
            if start >= 0:
                found.append(_parse(text[start + len(_OPEN) :].decode("cp1252", "replace")))
        self._buffer = self._buffer[-_BUFFER_LIMIT:]
        return found

    def clear(self) -> None:
        """Forget an unfinished command."""
        self._buffer = b""


def _parse(text: str) -> Command:
    values = {name.lower(): value.strip() for name, value in _CHILD.findall(text)}
    return Command(values.pop("name", "").lower(), values)
