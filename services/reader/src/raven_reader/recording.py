"""Capture files: raw bytes of a line with the times at which they came, secrets masked.

One JSON object a line, ``{"at": "2026-11-23T09:00:00.123Z", "data": "…"}``; a character of
``data`` is the byte of the same number (latin-1).  Made for bug reports: it can be read by eye,
and ``raven-reader decode`` reads it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Outcome, Rejected
from raven_reader.secrets import Masker
from raven_reader.serial_port import Port
from raven_reader.settings import DeviceSettings
from ravenbus.errors import FatalError, RavenError
from ravenbus.messages import now
from ravenbus.notifications import kind_of

HEAD: Final = b'{"at":'
_PIECE: Final = 65536


class FileError(RavenError):
    """A file that a command was given cannot be used."""


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


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """Open a file to read, - for stdin; raise FileError where it cannot be read.

    BrokenPipeError is of what is printed meanwhile, and is passed on.
    """
    try:
        with ExitStack() as stack:
            yield sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}") from error


def capture(settings: DeviceSettings, name: str, seconds: float | None) -> int:
    """Record the stick's bytes in a new file, - for stdout; return the exit status.

    It ends with a signal, or after some seconds.  Raise FileError where the file exists already,
    RavenError where the stick is gone or nothing more can be written.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    masker = Masker()
    size = 0
    try:
        with ExitStack() as stack:
            port = stack.enter_context(closing(Port(settings.raven_device)))
            file = sys.stdout.buffer if name == "-" else stack.enter_context(Path(name).open("xb"))
            print(f"capturing {port.name}; end with Ctrl-C", file=sys.stderr)
            while not stop.is_set() and time.monotonic() < end:
                data = masker.feed(port.read())
                if data:
                    size += len(data)
                    file.write(line(now(), data))
                    file.flush()
            if data := masker.flush():
                size += len(data)
                file.write(line(now(), data))
    except FileExistsError as error:
        raise FileError(f"{name} exists already; name another file") from error
    except OSError as error:
        raise FatalError(str(error)) from error
    print(f"{size} bytes captured", file=sys.stderr)
    return 0


def decode(name: str) -> int:
    """Print one JSON reading a line of a file, raw or captured; return the exit status.

    A summary follows on standard error, and the status is 1 if there is no fragment in it.
    Raise FileError where the file cannot be read to its end.
    """
    intake = Intake(Limits())
    size = status = 0
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    def take(outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Accepted):
                print(msgspec.json.encode(outcome.report.notification).decode())
                kinds[kind_of(outcome.report.notification)] += 1
            elif isinstance(outcome, Rejected):
                reasons[outcome.error.reason] += 1

    with opened(name) as file:
        try:
            for piece in pieces(file):
                size += len(piece)
                take(intake.feed(piece, None))
            take(intake.finish())
            sys.stdout.flush()
        except ValueError as error:
            raise FileError(
                f"{name} is a capture that cannot be read to its end: {error}"
            ) from error
        except KeyboardInterrupt:
            status = 130
        finally:
            counts = intake.counts
            print(
                f"read {size} bytes: {counts.whole} whole fragments, {counts.damaged} damaged",
                f"printed {kinds.total()}: {_listed(kinds)}",
                f"rejected {reasons.total()}: {_listed(reasons)}",
                f"skipped {counts.skipped_bytes} bytes, white space not counted, "
                "of no whole fragment",
                sep="\n",
                file=sys.stderr,
            )
    if not status and not counts.whole:
        print("nothing in it is what a RAVEn or an EMU-2 says", file=sys.stderr)
        status = 1
    return status


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"
