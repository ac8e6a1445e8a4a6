"""From bytes, in any pieces, to whole XML fragments; what is damaged is counted and passed over.

The device promises neither line ends nor layout, tags in any case, and real lines lose bytes
(RAVEn XML API r127 p.6).  So a fragment counts as whole only when its body is one child element
after another and nothing else, and the parser restarts at a known root start tag wherever it
finds one: damage to a fragment never costs the next one.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from ravenbus.notifications import KINDS

ROOTS: Final = {
    name.lower(): name for name in (*(kind.__name__ for kind in KINDS.values()), "CurrentSummation")
}
"""Root elements of notifications, by their name in lower case; the EAGLE has one of its own."""

FRAGMENT_MAX: Final = 16 * 1024
"""Bytes that an unfinished fragment may grow to; the largest routine one has about 900."""

_TAIL = 128
"""Bytes kept while no fragment is open: room for an unknown root and the start of its child."""
_CONTROL = bytes(c for c in range(32) if c not in b"\t\r\n")
_KNOWN = "|".join(ROOTS).encode()
_SPACE = rb"\s{0,24}"
"""Bounded, so that a tag is never longer than what is kept of it, whatever pieces it comes in."""
_ROOT = re.compile(rb"<(" + _KNOWN + rb")" + _SPACE + rb">", re.IGNORECASE)
_ANY_ROOT = re.compile(
    rb"<(?:(%b)%b>|([a-z]\w{0,31})%b>(?=%b<DeviceMacId%b>))" % (_KNOWN, *[_SPACE] * 4),
    re.IGNORECASE,
)
_BLANK = " \t\r\n"
# What devices print; the general form beside it takes twice the time.
_PLAIN_CHILD = re.compile(r"<([A-Za-z]\w*)>([^<]*)</\1>", re.ASCII)
_CHILD = re.compile(r"<([A-Za-z]\w*)\s*(?:/>|>([^<]*)</\1\s*>)", re.ASCII | re.IGNORECASE)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#x([0-9a-fA-F]{1,6})|(lt|gt|amp|quot|apos));")
_ENTITIES: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


class Fragment(NamedTuple):
    """A whole fragment: its root in lower case, children in order, and its own bytes."""

    root: str
    children: list[tuple[str, str]]
    raw: bytes


@dataclass
class Counts:
    """Counts of what a parser has met so far."""

    whole: int = 0
    damaged: int = 0
    skipped_bytes: int = 0


class Parser:
    """Finds whole fragments in a stream; it never raises and its memory is bounded.

    A root that is not a known notification is passed on too, if a device id comes first in it,
    so that what is new can be counted by name.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._buffer = b""
        self._root: str | None = None
        self._exact_end = b""
        self._end = _ROOT
        self._body = 0
        self._searched = 0

    @property
    def held(self) -> int:
        """Bytes held back because their fragment is not finished, at most ``FRAGMENT_MAX``."""
        return len(self._buffer)

    def restart(self) -> None:
        """Drop an unfinished fragment: the bytes that come next do not continue it."""
        if self._root is not None:
            self._damaged(len(self._buffer))
        self._skip(len(self._buffer))

    def feed(self, piece: bytes) -> list[Fragment]:
        """Take bytes as they came and return the fragments that they completed."""
        self._buffer += piece.translate(None, _CONTROL)
        found: list[Fragment] = []
        while self._find_root() and self._find_end(found):
            pass
        return found

    def _find_root(self) -> bool:
        """Pass over everything before a root's start tag; return whether there is one."""
        if self._root is not None:
            return True
        start = _ANY_ROOT.search(self._buffer)
        if not start:
            tail = self._buffer.find(b"<", max(0, len(self._buffer) - _TAIL))
            self._skip(tail if tail >= 0 else len(self._buffer))
            return False
        tag = start[1] or start[2]
        self._skip(start.start())
        self._root = tag.decode().lower()
        self._exact_end = b"</" + tag + b">"
        self._end = _end_tag(self._root)
        self._body = self._searched = start.end() - start.start()
        return True

    def _find_end(self, found: list[Fragment]) -> bool:
        """Finish the open fragment, whole or damaged; return whether that was possible."""
        # As printed; the general form beside it is much slower to search for.
        exact = self._buffer.find(self._exact_end, self._searched)
        if exact >= 0 and self._whole(exact, exact + len(self._exact_end), found):
            return True
        end = self._end.search(self._buffer, self._searched)
        if end and self._whole(end.start(), end.end(), found):
            return True
        # Not whole: a root that opens inside is where the next fragment starts.
        other = _ROOT.search(self._buffer, self._body if end else self._searched)
        if other and (not end or other.start() < end.start()):
            self._damaged(other.start())
        elif end:
            self._damaged(end.end())
        elif len(self._buffer) > FRAGMENT_MAX:
            self._damaged(len(self._buffer) - _TAIL)
        else:
            self._searched = max(self._body, len(self._buffer) - _TAIL)
            return False
        return True

    def _whole(self, body_end: int, end: int, found: list[Fragment]) -> bool:
        """Take what lies before ``end`` as a fragment if its body is children and nothing else."""
        children = _children(self._buffer[self._body : body_end], self._end)
        if children is None:
            return False
        self.counts.whole += 1
        found.append(Fragment(self._root or "", children, self._buffer[:end]))
        self._drop(end)
        return True

    def _damaged(self, end: int) -> None:
        self.counts.damaged += 1
        self._skip(end)

    def _skip(self, end: int) -> None:
        """Pass over bytes that belong to no whole fragment."""
        self.counts.skipped_bytes += len(self._buffer[:end].translate(None, b" \t\r\n"))
        self._drop(end)

    def _drop(self, end: int) -> None:
        self._buffer = self._buffer[end:]
        self._root = None


def decoded(data: bytes) -> str:
    """Return what a device's bytes say: UTF-8 where they are, else Windows code page 1252.

    The manual names the code page, and says that it may become UTF-8 (RAVEn XML API r127 p.5).
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


@lru_cache(maxsize=64)
def _end_tag(root: str) -> re.Pattern[bytes]:
    return re.compile(rb"</" + root.encode() + _SPACE + rb">", re.IGNORECASE)


def _children(body: bytes, end: re.Pattern[bytes]) -> list[tuple[str, str]] | None:
    """Return names (lower case) and texts of the children, or None if there is anything else."""
    # One character a byte: each child's text is decoded by itself.
    text = body.decode("latin-1")
    if "<![CDATA[" in text:
        # One that was cut would reach to the end of another; an end tag inside one may come first.
        if _ROOT.search(body) or end.search(body):
            return None
        text = _CDATA.sub(lambda match: html.escape(match[1]), text)
    parts = _PLAIN_CHILD.split(text)
    if "".join(parts[0::3]).strip(_BLANK):
        parts = _CHILD.split(text)
        if "".join(parts[0::3]).strip(_BLANK):
            return None
    names = [name.lower() for name in parts[1::3]]
    if not ROOTS.keys().isdisjoint(names):
        return None
    texts = [value.strip(_BLANK) if value else "" for value in parts[2::3]]
    if not text.isascii():
        texts = [decoded(value.encode("latin-1")) for value in texts]
    if "&" in text:
        texts = [_REFERENCE.sub(_referred, value).strip() for value in texts]
    return list(zip(names, texts, strict=True))


def _referred(match: re.Match[str]) -> str:
    """Return the character that a reference of XML's own names, or the reference if there is none."""
    decimal, hexadecimal, name = match.groups()
    if name:
        return _ENTITIES[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    is_character = code in {9, 10, 13} or 0x20 <= code < 0xD800 or 0xE000 <= code <= 0x10FFFF  # noqa: PLR2004 - XML 1.0, 2.2
    return chr(code) if is_character and code not in {0xFFFE, 0xFFFF} else match[0]
