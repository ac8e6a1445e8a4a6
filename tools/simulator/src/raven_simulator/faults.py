"""Damage to fragments, such that exactly the damaged ones can be named.

A report suffers at most one fault that is rolled here (chunks and oneline apart, which are manners of printing), and the
report after one that was cut, overwritten or lost letters suffers none: two damaged neighbours could read like one good report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raven_simulator.reports import KINDS, is_whole, kind_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

CHANCES: Final[Mapping[str, float]] = {
    "garbage": 0.05,
    "nul": 0.05,
    "cut": 0.05,
    "overwrite": 0.05,
    "letters": 0.05,
    "digit": 0.05,
    "repeat": 0.05,
    "negative": 0.05,
    "sentinel": 0.05,
    "midstart": 1.0,
    "chunks": 1.0,
    "oneline": 1.0,
    "ff": 1.0,
}
"""Each fault that is rolled for, and its probability where none is given."""

_GARBAGE_MOST: Final = 96
_CHUNK_MOST: Final = 64

_TAG = re.compile(rb"</?\w+>")
_VALUE = re.compile(rb"<(\w+)>0x([0-9a-fA-F]+)<")
_IDENTIFIERS: Final = frozenset(
    (b"DeviceMacId", b"MeterMacId", b"CoordMacId", b"ExtPanId", b"InstallCode", b"LinkKey")
)
_DEMAND = re.compile(rb"(?<=<Demand>0x)[0-9a-fA-F]+(?=<)")
_PRICE = re.compile(rb"(?<=<Price>)0x[0-9a-fA-F]+(?=<)")
_TRAILING_DIGITS = re.compile(rb"(?<=<TrailingDigits>)0x[0-9a-fA-F]+(?=<)")
_TIME_STAMP = re.compile(rb"(?<=<TimeStamp>)0x[0-9a-fA-F]+(?=<)")
_DATE_CODE = re.compile(rb"(?<=<DateCode>)[^<]*(?=<)")


@dataclass(frozen=True, slots=True)
class Sent:
    """A report on its way to the line.

    payload: the bytes for the line, a neighbour's debris and noise among them. fragment: the report as the device meant it.
    whole: every byte of the fragment is in the payload, undamaged. fault: what befell it, None for nothing.
    """

    payload: bytes
    fragment: bytes
    whole: bool = True
    fault: str | None = None


class Faults:
    """Rolls faults for one report after the other, with its own randomness."""

    def __init__(self, rng: random.Random, chances: Mapping[str, float] | None = None) -> None:
        self._rng = rng
        self._chances: dict[str, float] = {}
        self._spare_next = False
        self._tail = b""
        self._opened = False
        for kind, chance in (chances or {}).items():
            self.set(kind, chance)

    def set(self, kind: str, chance: float) -> None:
        """Order a fault with a probability, 0 to call it off; raises ValueError for an unknown kind."""
        if kind not in CHANCES:
            raise ValueError(f"unknown fault {kind!r}")
        self._chances[kind] = chance

    def reader_opened(self) -> None:
        """Note that a reader opened the line: midstart may hit the next report."""
        self._opened = True
        self._tail = b""

    def apply(self, fragment: bytes) -> list[Sent]:
        """Send a report: one item, or two where it is repeated."""
        fragment, fault = self._values(fragment)
        shape = oneline(fragment) if self._hits("oneline") else fragment
        opened, self._opened = self._opened, False
        if opened and self._hits("midstart"):
            self._spare_next = False
            return [Sent(midstart(shape, self._rng), fragment, whole=False, fault="midstart")]
        if self._spare_next:
            payload, self._tail, self._spare_next = shape + self._tail, b"", False
            return [Sent(payload, fragment, fault=fault)]
        if self._hits("repeat"):
            return [Sent(shape, fragment, fault=fault), Sent(shape, fragment, fault="repeat")]
        return [self._transport(shape, fragment, fault)]

    def pieces(self, payload: bytes) -> list[bytes]:
        """Cut a payload into the writes it is made of."""
        return chunks(payload, self._rng) if self._hits("chunks") else [payload]

    def _values(self, fragment: bytes) -> tuple[bytes, str | None]:
        changes: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
            ("sentinel", lambda original: sentinel(original, self._rng)),
            ("negative", negative),
            ("ff", lambda original: ff(original, self._rng)),
        )
        for kind, change in changes:
            if self._hits(kind):
                changed = change(fragment)
                if changed != fragment:
                    return changed, kind
        return fragment, None

    def _transport(self, shape: bytes, fragment: bytes, fault: str | None) -> Sent:
        for kind in ("cut", "overwrite", "letters"):
            if self._hits(kind):
                self._spare_next = True
                if kind == "overwrite":
                    damaged, self._tail = overwrite(shape, self._rng)
                else:
                    damaged = (cut if kind == "cut" else letters)(shape, self._rng)
                return Sent(damaged, fragment, whole=False, fault=kind)
        if self._hits("digit"):
            changed = digit(shape, self._rng)
            if changed != shape:
                return Sent(changed, fragment, whole=False, fault="digit")
        if self._hits("nul"):
            return Sent(nul(shape, self._rng), fragment, fault="nul")
        if self._hits("garbage"):
            return Sent(garbage(self._rng) + shape, fragment, fault="garbage")
        return Sent(shape, fragment, fault=fault)

    def _hits(self, kind: str) -> bool:
        chance = self._chances.get(kind, 0.0)
        return chance > 0 and self._rng.random() < chance


def play(
    fragments: Iterable[bytes], chances: Mapping[str, float], rng: random.Random
) -> list[Sent]:
    """Send fragments with the faults given by kind and probability, as a device would."""
    faults = Faults(rng, chances)
    faults.reader_opened()
    return [sent for fragment in fragments for sent in faults.apply(fragment)]


def garbage(rng: random.Random) -> bytes:
    """Make 1 to 96 random bytes without a known root tag."""
    while True:
        noise = rng.randbytes(rng.randint(1, _GARBAGE_MOST))
        lower = noise.lower()
        if not any(b"<" + root.lower().encode("ascii") in lower for root in KINDS):
            return noise


def nul(fragment: bytes, rng: random.Random) -> bytes:
    """Put NUL bytes before the fragment and inside it; without them it is as it was."""
    damaged = bytearray(fragment)
    for _ in range(rng.randint(1, 6)):
        damaged.insert(rng.randrange(1, len(fragment.rstrip())), 0)
    return bytes(rng.randint(1, 8)) + bytes(damaged)


def cut(fragment: bytes, rng: random.Random) -> bytes:
    """Keep the fragment's beginning, at least one byte short of its end tag's end."""
    return fragment[: rng.randrange(1, len(fragment.rstrip()))]


def overwrite(fragment: bytes, rng: random.Random) -> tuple[bytes, bytes]:
    """Part the fragment where another root opens inside it: what comes before, and what is left over after that one's end."""
    place = rng.randrange(fragment.index(b">") + 1, fragment.rindex(b"</"))
    return fragment[:place], fragment[place:]


def letters(fragment: bytes, rng: random.Random) -> bytes:
    """Leave out 1 to 6 bytes at a tag, so that the fragment is never well-formed."""
    tags = [found.span() for found in _TAG.finditer(fragment)]
    end = len(fragment.rstrip())
    while True:
        start = rng.randrange(*rng.choice(tags))
        damaged = fragment[:start] + fragment[min(start + rng.randint(1, 6), end) :]
        if not is_whole(damaged):
            return damaged


def digit(fragment: bytes, rng: random.Random) -> bytes:
    """Change one hex digit in a value that is no identifier; a fragment without one is as it was."""
    places = [
        place
        for found in _VALUE.finditer(fragment)
        if found[1] not in _IDENTIFIERS
        for place in range(*found.span(2))
    ]
    if not places:
        return fragment
    place = rng.choice(places)
    others = b"0123456789abcdef".replace(fragment[place : place + 1].lower(), b"")
    return fragment[:place] + bytes([rng.choice(others)]) + fragment[place + 1 :]


def midstart(fragment: bytes, rng: random.Random) -> bytes:
    """Keep the fragment's end: what a host hears that opens the port in the middle of it."""
    return fragment[rng.randrange(1, len(fragment.rstrip())) :]


def oneline(fragment: bytes) -> bytes:
    """Take out line ends and indents."""
    return re.sub(rb"\r\n *", b"", fragment)


def negative(fragment: bytes) -> bytes:
    """Negate a positive demand, in 8 hex digits; other fragments are as they were."""
    found = _DEMAND.search(fragment)
    if found is None or not 0 < (demand := int(found[0], 16)) < 1 << 23:
        return fragment
    return _DEMAND.sub(b"%08x" % (2**32 - demand), fragment)


def sentinel(fragment: bytes, rng: random.Random) -> bytes:
    """Put in a value that says "no value": demand 0x800000, price 0xffffffff, TimeStamp 0xffffffff."""
    kind = kind_of(fragment)
    if kind == "instantaneous_demand" and rng.random() < 1 / 2:
        return _DEMAND.sub(b"800000", fragment)
    if kind == "price_cluster":
        fragment = _PRICE.sub(b"0xffffffff", _TRAILING_DIGITS.sub(b"0x0f", fragment))
    return _TIME_STAMP.sub(b"0xffffffff", fragment)


def ff(fragment: bytes, rng: random.Random) -> bytes:
    """Put 0xFF filler at the end of a DateCode; other fragments are as they were."""
    filler = rng.randint(1, 8)
    return _DATE_CODE.sub(lambda found: found[0][:-filler] + b"\xff" * filler, fragment)


def chunks(payload: bytes, rng: random.Random) -> list[bytes]:
    """Cut the payload into pieces of 1 to 64 bytes."""
    pieces = []
    while payload:
        size = rng.randint(1, _CHUNK_MOST)
        pieces.append(payload[:size])
        payload = payload[size:]
    return pieces
