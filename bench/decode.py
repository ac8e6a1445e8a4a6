"""Framing and decoding beside the peers' parsers and beside expat."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

import stream
import system
from raven_harness.stack import peers
from raven_reader.decoding import decode
from raven_reader.framing import ROOTS, Fragment, Parser
from ravenbus.errors import PoisonError
from results import Row, count

ROUNDS: Final = 5
FRAGMENTS: Final = 20_000
EXPAT_AIM: Final = 0.8
PEERS_AIM: Final = 2.0
ROOT: Final = Path(__file__).resolve().parent.parent
CAPTURE: Final = "emu2-capture.txt"
_START: Final = re.compile(rb"(?=<(?:" + "|".join(ROOTS.values()).encode() + rb")>)")

TEXT: Final = f"""\
## Decoding: fragments a second

A stream of {FRAGMENTS:,} whole fragments, seven of ten of them demands, the rest summations,
prices, times, messages and network states, in pieces of {stream.PIECE} bytes; best of {ROUNDS}
rounds in which all take turns.

- *Ours* is `raven_reader.framing.Parser.feed` and `raven_reader.decoding.decode`: from bytes to
  typed, checked and scaled notifications.
- *raven2mqtt, text* is its `RAVEnXmlStreamParser.feed`, which yields each fragment's fields as
  text; *raven2mqtt, values* adds `RavenState.update` for each, as its service does, which makes
  numbers of demand, summations and price.
- *aioraven, text* is `RAVEnReaderProtocol.data_received` with a `RAVEnReader` that nobody waits for,
  which is its cheapest case; it makes each fragment's fields as text.
- *expat, no handlers* is `xml.parsers.expat` over the same pieces inside one root element: it
  checks that they are well formed and hands out nothing.
- *expat, empty handlers* has a Python function that does nothing for each start, end and text:
  no Python program gets at the content without them.

Where our time goes: half is framing (finding the root, a regular expression over the body, a text
for each child), half is decoding (a converter and its checks for each of some ten fields, scaled
values, a checked structure).  expat with empty handlers makes some thirty calls that do nothing.

Even with its values raven2mqtt does less than ours: it makes no times, checks nothing and leaves
most kinds as text; in the rows named *text* both peers stop where our decoding begins.
Reading with an XML parser is not a choice on a real line, where damage to a fragment must not
cost the next one.
The last rows count what each finds in 16 hours of a real EMU-2's bytes, of which about a quarter
of the fragments are damaged, where that file is at hand (folder `RAVEN_DATA`).
Every one gets a piece for each start of a fragment, as the seconds between reports make it: after
damage aioraven starts again with the next piece, and larger pieces would cost it nearly all.
raven2mqtt does not know ConnectionStatus, so the rows count the kinds that all three know.
Whole is what a parser makes of it: only ours goes on to check each value, and rejects some.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    data = b"".join(stream.fragments(FRAGMENTS))
    pieces = stream.pieces(data)
    best: dict[str, float] = {}
    with system.folder() as folder:
        file = folder / "stream"
        file.write_bytes(data)
        for _ in range(ROUNDS):
            times = {
                "ours": _ours(pieces),
                "bare": _expat(pieces, handlers=False),
                "handlers": _expat(pieces, handlers=True),
                **_peers(file),
            }
            best = {name: min(best.get(name, s), s) for name, s in times.items()}
        found = _peers(file, "count")
        for peer in ("raven2mqtt", "aioraven"):
            if sum(found[peer].values()) != FRAGMENTS:
                raise RuntimeError(f"{peer} does not find all fragments")
    rates = {name: FRAGMENTS / seconds for name, seconds in best.items()}
    besides: dict[str, tuple[str, float | None]] = {
        "raven2mqtt values": ("raven2mqtt, values", PEERS_AIM),
        "raven2mqtt": ("raven2mqtt, text", PEERS_AIM),
        "aioraven": ("aioraven, text", PEERS_AIM),
        "handlers": ("expat, empty handlers", EXPAT_AIM),
        "bare": ("expat, no handlers", None),
    }
    rows = [
        Row(
            "decoding, fragments/s",
            count(rates["ours"]),
            f"{label}: {count(rates[name])}",
            rates["ours"] / rates[name],
            aim,
        )
        for name, (label, aim) in besides.items()
    ]
    return rows + _capture_rows()


def _ours(pieces: list[bytes]) -> float:
    parser = Parser()
    start = time.perf_counter()
    for piece in pieces:
        for fragment in parser.feed(piece):
            decode(fragment)
    seconds = time.perf_counter() - start
    if parser.counts.whole != FRAGMENTS:
        raise RuntimeError(f"only {parser.counts.whole} fragments are found")
    return seconds


def _expat(pieces: list[bytes], *, handlers: bool) -> float:
    parser = expat.ParserCreate()
    if handlers:
        parser.buffer_text = True
        parser.StartElementHandler = _nothing
        parser.EndElementHandler = _nothing
        parser.CharacterDataHandler = _nothing
    start = time.perf_counter()
    parser.Parse(b"<stream>")
    for piece in pieces:
        parser.Parse(piece)
    parser.Parse(b"</stream>", True)
    return time.perf_counter() - start


def _nothing(*_: Any) -> None:
    pass


def _peers(file: Path, *what: str) -> Any:
    command = [str(peers() / "python"), str(ROOT / "bench" / "peers.py"), str(file), *what]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=system.LIMIT_S)
    return json.loads(done.stdout)


def _capture_rows() -> list[Row]:
    folder = Path(os.environ.get("RAVEN_DATA", ROOT.parent / "shared" / "data"))
    file = folder / CAPTURE
    if not file.exists():
        return []
    parser = Parser()
    ours: Counter[str] = Counter()
    rejected = 0
    for piece in _START.split(file.read_bytes()):
        for fragment in parser.feed(piece):
            ours[ROOTS.get(fragment.root, fragment.root)] += 1
            rejected += not _can_decode(fragment)
    found = _peers(file, "count")
    known = set(found["known to raven2mqtt"])
    mine = sum(n for root, n in ours.items() if root in known)
    return [
        Row(
            "whole fragments in a real capture",
            f"{mine:,}, of all kinds {ours.total():,}, {rejected} of them then rejected",
            f"{peer}: {theirs:,}",
            mine / theirs,
        )
        for peer in ("raven2mqtt", "aioraven")
        if (theirs := sum(n for root, n in found[peer].items() if root in known))
    ]


def _can_decode(fragment: Fragment) -> bool:
    try:
        decode(fragment)
    except PoisonError:
        return False
    return True
