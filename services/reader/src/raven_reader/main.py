"""The command ``raven-reader``: the service, and tools for a stick and its bytes."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Queue

import msgspec

from raven_reader import recording, replay
from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Outcome
from raven_reader.line import Line
from raven_reader.outbox import SpoolOutbox
from raven_reader.secrets import Masker
from raven_reader.serial_port import Port, PortError, find_sticks
from raven_reader.service import Reader, ReaderMetrics
from raven_reader.settings import DeviceSettings, ReaderSettings
from raven_reader.spool import Spool, locked
from ravenbus import __version__, service
from ravenbus.errors import RavenError
from ravenbus.health import Health, Watchdog
from ravenbus.messages import Status, encode, now
from ravenbus.mqtt import Broker, Will
from ravenbus.notifications import kind_of
from ravenbus.publisher import Publisher
from ravenbus.topics import COMMAND, HOMEASSISTANT_STATUS, STATUS, Topics

log = logging.getLogger(__name__)

NAME = "raven-reader"
STALL_S = 120.0
COMMANDS_MAX = 20
"""Commands that wait for their turn; one a second is sent."""


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args()
    match arguments.command:
        case "devices":
            return _devices()
        case "decode":
            return _decode(arguments.file)
        case "capture":
            return _capture(arguments.file, arguments.seconds)
        case "replay":
            return _replay(arguments.file, yes=arguments.yes)
        case None if not arguments.check_config:
            _parser().print_help(sys.stderr)
            return 2
    new_run = getattr(arguments, "new_run", False)

    def locked_run(settings: ReaderSettings, stop: threading.Event) -> None:
        with locked(settings.raven_state):
            run(settings, stop, new_run=new_run)

    return service.main(NAME, ReaderSettings, locked_run, check=arguments.check_config)


def run(settings: ReaderSettings, stop: threading.Event, *, new_run: bool = False) -> None:
    """Read the stick and publish until ``stop`` is set: the service's whole wiring."""
    topics = Topics(settings.raven_topic_prefix)
    health = Health(settings.raven_health_file)
    metrics = ReaderMetrics()
    metrics.serve(settings.raven_metrics_port)

    max_mb = settings.raven_spool_max_mb
    spool = Spool(settings.spool_file, topics, max_mb=max_mb, on_given_up=metrics.given_up.inc)
    outbox = SpoolOutbox(
        settings.spool_file, stores=settings.raven_stores, metrics=metrics, health=health
    )
    spool.begin(settings.raven_node, settings.raven_run, now(), new_run=new_run)
    node = spool.node
    log.info(
        "started",
        extra={
            "version": __version__,
            "node": node,
            "run": spool.run.run,
            "device": settings.raven_device,
            "broker": settings.mqtt_url,
            "state": settings.raven_state,
        },
    )

    for prefix, count in outbox.elsewhere(topics.prefix).items():
        log.warning(
            "entries wait under another prefix, and are sent there",
            extra={"prefix": prefix, "entries": count},
        )
    gone = Status(
        node=node,
        service="offline",
        device="disconnected",
        since=now(),
        detail="connection lost; the reader had started at the time given",
    )
    broker = Broker.of(
        settings,
        client_id=f"raven-reader-{node}",
        will=Will(topics.of(STATUS, node=node), encode(gone)),
    )
    publisher = Publisher(broker, outbox, health, metrics, window=settings.raven_window)
    commands: Queue[bytes] = Queue(COMMANDS_MAX)
    reader = Reader(settings, spool, publisher, commands.put_nowait, health, metrics)
    publisher.subscribe(topics.of(COMMAND, node=node), reader.command)
    # What was accepted under an earlier name is confirmed under that.
    publisher.hear_stores(topics, spool.nodes)
    if settings.raven_homeassistant:
        publisher.subscribe(topics.of(HOMEASSISTANT_STATUS), reader.homeassistant_status)
    line = Line(
        lambda: Port(settings.raven_device),
        reader,
        commands,
        ask_after_s=settings.raven_silence_ask_s,
        reopen_after_s=settings.raven_silence_reopen_s,
    )
    metrics.watch(outbox.depth, outbox.unconfirmed)

    reader.begin()
    Watchdog(health, STALL_S).start()
    listening = Listening(line, reader, publisher, stop)
    listening.start()
    publisher.run(listening.ended)
    listening.join()


class Listening(threading.Thread):
    """The line's thread: the line must never wait for the broker."""

    def __init__(
        self, line: Line, reader: Reader, publisher: Publisher, stop: threading.Event
    ) -> None:
        super().__init__(name="line", daemon=True)
        self.ended = threading.Event()
        self._line = line
        self._reader = reader
        self._publisher = publisher
        self._until = stop
        self._error: Exception | None = None

    def run(self) -> None:
        """Listen until the stop, say goodbye, then let the publisher end too."""
        try:
            self._line.run(self._until)
            self._reader.end()
        except Exception as error:  # noqa: BLE001 - raised again where the process can end on it
            self._error = error
        finally:
            self.ended.set()
            self._publisher.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; raise what ended the thread too early."""
        super().join(timeout)
        if self._error:
            raise self._error


def _parser() -> argparse.ArgumentParser:
    parser = service.parser(
        NAME, "Read a Rainforest RAVEn or EMU-2 and publish what it says.", ReaderSettings
    )
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    command = sub.add_parser("run", help="run the service")
    command.add_argument("--new-run", action="store_true", help="begin a new run of the same name")
    sub.add_parser("devices", help="list the sticks that are plugged in")
    command = sub.add_parser(
        "decode",
        help="read raw bytes or a capture, print one JSON reading a line, "
        "a summary on standard error",
    )
    command.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="raw bytes or a capture; - for stdin"
    )
    command = sub.add_parser(
        "capture", help="record the stick's raw bytes with times for a bug report, secrets masked"
    )
    command.add_argument("file", metavar="FILE", help="file to write; - for stdout")
    command.add_argument("--seconds", type=float, help="how long; default: until Ctrl-C")
    command = sub.add_parser(
        "replay",
        help="accept what dead letters of this reader's hold, by the settings as they are now; "
        "while the service is stopped",
    )
    command.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="what `raven-dead-letters list --json` or `show --json` printed; - for stdin",
    )
    command.add_argument(
        "--yes", action="store_true", help="accept them; without it, only show what they hold"
    )
    return parser


def _devices() -> int:
    try:
        sticks = find_sticks()
    except PortError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    for stick in sticks:
        print(f"{stick.model:6} {stick.path:14} {stick.link}  {stick.description}")
    if sticks:
        return 0
    print("no RAVEn (0403:8a28) or EMU-2 (04b4:0003) is plugged in", file=sys.stderr)
    return 1


def _decode(name: str) -> int:
    intake = Intake(Limits())
    size = status = 0
    kinds: Counter[str] = Counter()
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            for piece in recording.pieces(file):
                size += len(piece)
                kinds.update(_printed(intake.feed(piece, None)))
            kinds.update(_printed(intake.finish()))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"{NAME}: {name} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(
            f"{NAME}: {name} is a capture that cannot be read to its end: {error}", file=sys.stderr
        )
        status = 2
    except KeyboardInterrupt:
        status = 130
    counts = intake.counts
    lines = [
        f"read {size} bytes: {counts.whole} whole fragments, {counts.damaged} damaged",
        f"printed {kinds.total()}: {_listed(kinds)}",
        f"rejected {intake.reasons.total()}: {_listed(intake.reasons)}",
        f"skipped {counts.skipped_bytes} bytes, white space not counted, of no whole fragment",
    ]
    print("\n".join(lines), file=sys.stderr)
    return status


def _printed(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Print what is accepted, and yield the kind of each."""
    for outcome in outcomes:
        if isinstance(outcome, Accepted):
            print(msgspec.json.encode(outcome.report.notification).decode())
            yield kind_of(outcome.report.notification)


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"


def _capture(name: str, seconds: float | None) -> int:
    settings = service.load(NAME, DeviceSettings)
    if settings is None:
        return service.EXIT_SETTINGS
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
                    file.write(recording.line(now(), data))
                    file.flush()
            if data := masker.flush():
                size += len(data)
                file.write(recording.line(now(), data))
    except FileExistsError:
        print(f"{NAME}: {name} exists already; name another file", file=sys.stderr)
        return 2
    except (PortError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    print(f"{size} bytes captured", file=sys.stderr)
    return 0


def _replay(name: str, *, yes: bool) -> int:
    settings = service.load(NAME, ReaderSettings)
    if settings is None:
        return service.EXIT_SETTINGS
    stays = would = 0
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            stack.enter_context(locked(settings.raven_state))
            topics = Topics(settings.raven_topic_prefix)
            spool = Spool(settings.spool_file, topics, max_mb=settings.raven_spool_max_mb)
            stack.enter_context(closing(spool))
            spool.begin(settings.raven_node, settings.raven_run, now())
            latest = (reading.notification.meter for reading in spool.latest())
            meters = {meter for meter in latest if meter}
            for letter, notification, why in replay.judged(
                file, spool.node, meters, settings.limits
            ):
                if notification is None:
                    stays += 1
                    print(f"{letter.id}  stays: {why}")
                elif spool.was_replayed(letter.id):
                    print(f"{letter.id}  accepted before")
                elif yes:
                    (reading,) = spool.replay(letter.id, [(notification, letter.at)])
                    envelope = reading.envelope
                    print(f"{letter.id}  {reading.kind} {envelope.hash}/{envelope.seq}")
                else:
                    would += 1
                    text = msgspec.json.encode(notification).decode()
                    vouched = "" if letter.topic is None else ", its sender is not known"
                    print(f"{letter.id}  buried {letter.at:%Y-%m-%d %H:%M:%S}{vouched}: {text}")
            if would:
                print(f"\nNothing is accepted yet: --yes accepts {would} into {spool.run.run}")
    except OSError as error:
        print(f"{NAME}: {name} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    except RavenError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    return 1 if stays else 0
