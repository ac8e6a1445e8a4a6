"""Who may see the pages: one password, sessions in a signed cookie, and a pause after guesses."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Address
from typing import Final

COOKIE: Final = "raven"
SESSION_S: Final = 30 * 86400
GUESSES: Final = (5, 300.0)
GUESSES_OF_ALL: Final = (50, 2.0)
"""Wrong passwords in a row before the next has to wait, and for how many seconds at most.

From one address long; from all addresses together briefly, or whoever guesses would lock out
everybody else.
"""
_ALL: Final = ""
ADDRESSES_MAX: Final = 10_000


@dataclass
class Guesses:
    """Wrong passwords in a row, and until when the next one is not even looked at."""

    count: int = 0
    until: float = 0.0


@dataclass
class Access:
    """Decides who is let in.

    A session is a time signed with a key that follows from the password, so that it outlives a
    restart and ends when the password changes.
    """

    password: str
    token: str | None = None
    clock: Callable[[], float] = time.time
    proxy: IPv4Address | None = None
    _guesses: dict[str, Guesses] = field(default_factory=dict)

    def trusts(self, peer: str | None) -> bool:
        """Say whether a connection's other end is the proxy that lets in whom it knows alone."""
        return self.proxy is not None and peer == str(self.proxy)

    def log_in(self, address: str, password: str) -> str | None:
        """Return a session for the right password, None for a wrong one or during a pause."""
        if self.wait_s(address):
            return None
        if not _same(password, self.password):
            self._note_wrong(address)
            return None
        for one in (address, _ALL):
            self._guesses.pop(one, None)
        until = str(int(self.clock()) + SESSION_S)
        nonce = secrets.token_urlsafe(9)
        return f"{until}.{nonce}.{self._signature(until, nonce)}"

    def wait_s(self, address: str) -> float:
        """Return for how many seconds no password from an address is looked at."""
        now = self.clock()
        found = (self._guesses.get(one, Guesses()) for one in (address, _ALL))
        return max(0.0, *(one.until - now for one in found))

    def is_session(self, cookie: str | None) -> bool:
        """Say whether a cookie is a session that has not ended."""
        until, _, rest = (cookie or "").partition(".")
        nonce, _, signature = rest.partition(".")
        if not until.isascii() or not until.isdigit() or len(until) > 12:  # noqa: PLR2004 - a time
            return False
        return _same(signature, self._signature(until, nonce)) and int(until) > self.clock()

    def may(self, cookies: Mapping[str, str], authorization: str | None) -> bool:
        """Say whether a request is let in, by its session or by the token."""
        scheme, _, token = (authorization or "").partition(" ")
        if self.token and scheme.lower() == "bearer" and _same(token.strip(), self.token):
            return True
        return self.is_session(cookies.get(COOKIE))

    def _note_wrong(self, address: str) -> None:
        for one, (free, longest_s) in ((_ALL, GUESSES_OF_ALL), (address, GUESSES)):
            if len(self._guesses) >= ADDRESSES_MAX:
                self._guesses.pop(next(iter(self._guesses)))
            guesses = self._guesses.setdefault(one, Guesses())
            guesses.count += 1
            if guesses.count >= free:
                pause_s = min(2.0 ** min(guesses.count - free, 30), longest_s)
                guesses.until = self.clock() + pause_s

    def _signature(self, until: str, nonce: str) -> str:
        key = sha256(b"session of raven-dashboard\0" + self.password.encode()).digest()
        return hmac.new(key, f"{until}.{nonce}".encode(), sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    """Compare in a time that does not show where they differ."""
    hashes = (sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (one, other))
    return hmac.compare_digest(*hashes)
