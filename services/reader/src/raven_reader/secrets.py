"""Keeps the network's credentials in the process: InstallCode, LinkKey and Auth."""

from __future__ import annotations

import re
from typing import Final

from raven_reader.framing import ROOTS

_SECRET: Final = (b"installcode", b"linkkey", b"auth")
_SHOWN_IN_DEVICE_INFO: Final = (
    b"devicemacid",
    b"fwversion",
    b"hwversion",
    b"imagetype",
    b"manufacturer",
    b"modelid",
    b"datecode",
)
# Not CDATA, which is a text; the rest may be anything, for tags get damaged.
_TAG = re.compile(rb"<(/?)([^<>/!]{0,64})/?>")
_CONTROL = bytes(range(32))
"""Dropped by the framing, so that a name with one in it is still that name."""
_ROOTS = frozenset(name.encode() for name in ROOTS)
_LONG_HEX = re.compile(rb"[0-9A-Fa-f]{17,}")
"""Longer than an EUI-64 or a register: nothing but a key is."""
_HELD_MAX = 4096


class Masker:
    """Masks secrets in a stream of bytes, whatever its pieces, keeping every length.

    A text is masked when the tag before it or the one after it names a secret, and inside a
    DeviceInfo unless the tag before it names something that may be shown: tags get damaged too.
    """

    def __init__(self) -> None:
        self._held = b""
        self._before = b""
        self._in_device_info = False

    def feed(self, piece: bytes) -> bytes:
        """Return what can be shown so far; a text waits for the tag that follows it."""
        self._held += piece
        shown = b""
        while match := _TAG.search(self._held):
            text, tag = self._held[: match.start()], match[0]
            closing, name = match[1], match[2].translate(None, _CONTROL).strip().lower()
            shown += self._mask(text, name if closing else b"") + _masked_keys(tag)
            self._held = self._held[match.end() :]
            self._before = b"" if closing else name
            if name == b"deviceinfo":
                self._in_device_info = not closing
            elif name in _ROOTS:  # the DeviceInfo was cut
                self._in_device_info = False
        if len(self._held) > _HELD_MAX:
            shown += self.flush()
        return shown

    def flush(self) -> bytes:
        """Return what was held back, masked as if no tag followed."""
        shown, self._held = self._mask(self._held, b""), b""
        return shown

    def _mask(self, text: bytes, after: bytes) -> bytes:
        hidden = self._in_device_info and self._before not in _SHOWN_IN_DEVICE_INFO
        if hidden or self._before in _SECRET or after in _SECRET:
            return re.sub(rb"\S", b"*", text)
        return _masked_keys(text)


def mask(fragment: bytes) -> bytes:
    """Return a fragment's bytes with its secrets masked."""
    masker = Masker()
    return masker.feed(fragment) + masker.flush()


def _masked_keys(text: bytes) -> bytes:
    return _LONG_HEX.sub(lambda match: b"*" * len(match[0]), text)
