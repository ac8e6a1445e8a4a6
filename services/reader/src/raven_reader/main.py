"""The command ``raven-reader``: the service, and tools for a stick and its bytes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Queue

from raven_reader import recording, replay, serial_port
from raven_reader.line import Line
from raven_reader.metrics import ReaderMetrics
from raven_reader.node import Node, will
from raven_reader.outbox import SpoolOutbox
from raven_reader.reader import Reader
from raven_reader.recording import FileError
from raven_reader.serial_port import Port
from raven_reader.settings import DeviceSettings, ReaderSettings
from raven_reader.spool import Spool, locked
from ravenbus import __version__, service
from ravenbus.confirming import AUTO
from ravenbus.errors import RavenError
from ravenbus.health import Health, Watchdog
from ravenbus.messages import now
from ravenbus.mqtt import Broker
from ravenbus.publisher import Publisher
from ravenbus.topics import COMMAND, HOMEASSISTANT_STATUS, Topics

log = logging.getLogger(__name__)

NAME = "raven-reader"
EXIT_USAGE = 2
STALL_S = 120.0
COMMANDS_MAX = 20
"""Commands that wait for their turn; one a second is sent."""


def main() -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "devices":
                return serial_port.print_sticks()
            case "decode":
                return recording.decode(arguments.file)
            case "capture" if stick := service.load(NAME, DeviceSettings):
                return recording.capture(stick, arguments.file, arguments.seconds)
            case "replay" if settings := service.load(NAME, ReaderSettings):
                return replay.replay(settings, arguments.file, yes=arguments.yes)
            case "capture" | "replay":
                return service.EXIT_SETTINGS
            case None if not arguments.check_config:
                parser.error("`raven-reader run` runs the service; --help has the other commands")
    except RavenError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, FileError) else service.EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return service.EXIT_FAILED

    def locked_run(settings: ReaderSettings, stop: threading.Event) -> None:
        with locked(settings.raven_state):
            run(settings, stop, new_run=getattr(arguments, "new_run", False))

    return service.main(NAME, ReaderSettings, locked_run, check=arguments.check_config)


def run(settings: ReaderSettings, stop: threading.Event, *, new_run: bool = False) -> None:
    """Read the stick and publish until ``stop`` is set: the service's whole wiring."""
    topics = settings.topics
    health = Health(settings.raven_health_file)
    metrics = ReaderMetrics()
    metrics.serve(settings.raven_metrics_port)

    max_mb = settings.raven_spool_max_mb
    stores = settings.raven_stores
    spool = Spool(
        settings.spool_file,
        topics,
        max_mb=max_mb,
        for_stores=not stores.none,
        on_given_up=metrics.given_up.inc,
    )
    outbox = SpoolOutbox(
        settings.spool_file,
        stores=AUTO if stores.none else stores,
        metrics=metrics,
        health=health,
    )
    new_run |= spool.store_came_or_went()
    spool.begin(settings.raven_node, settings.raven_run, now(), new_run=new_run)
    name = spool.node
    log.info(
        "started",
        extra={
            "version": __version__,
            "node": name,
            "run": spool.run.run,
            "device": settings.raven_device,
            "broker": settings.mqtt_url,
            "state": settings.raven_state,
        },
    )

    prefixes = outbox.prefixes()
    for prefix, count in prefixes.items():
        if count and prefix != topics.prefix:
            log.warning(
                "entries wait under another prefix, and are sent there",
                extra={"prefix": prefix, "entries": count},
            )
    client_id = f"raven-reader-{name}"
    broker = Broker.of(settings, client_id=client_id, will=will(topics, name, now()))
    publisher = Publisher(broker, outbox, health, metrics, window=settings.raven_window)
    commands: Queue[bytes] = Queue(COMMANDS_MAX)
    node = Node(name, settings, publisher, commands.put_nowait)
    outbox.on_backlog = node.set_backlog
    every_s = settings.raven_write_every_s
    reader = Reader(settings.limits, spool, node, health, metrics, publisher.wake, every_s=every_s)
    publisher.subscribe(topics.of(COMMAND, node=name), node.command)
    # What was accepted under an earlier prefix or name is confirmed under that.
    for prefix in sorted({topics.prefix, *prefixes}):
        publisher.hear_stores(Topics(prefix), spool.nodes)
    if settings.raven_homeassistant:
        publisher.subscribe(topics.of(HOMEASSISTANT_STATUS), node.homeassistant_status)
    line = Line(
        lambda: Port(settings.raven_device),
        reader,
        commands,
        ask_after_s=settings.raven_silence_ask_s,
        reopen_after_s=settings.raven_silence_reopen_s,
        link_ask_s=settings.raven_link_ask_s,
    )
    metrics.watch(outbox.depth, outbox.unconfirmed)

    for former in spool.former:
        node.leave(former, partial(outbox.left_node, former))
    reader.begin()
    Watchdog(health, STALL_S).start()
    ended = threading.Event()

    def listen() -> None:
        try:
            line.run(stop)
            reader.end()
        finally:
            ended.set()
            publisher.wake()

    # The line must never wait for the broker.
    with ThreadPoolExecutor(1, "line") as beside:
        listening = beside.submit(listen)
        try:
            publisher.run(ended)
        finally:
            stop.set()
        listening.result()


def _parser() -> argparse.ArgumentParser:
    parser = service.parser(
        NAME, "Read a Rainforest RAVEn or EMU-2 and publish what it says.", ReaderSettings
    )
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    command = sub.add_parser("run", help="run the service")
    service.add_check(command, default=argparse.SUPPRESS)
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
