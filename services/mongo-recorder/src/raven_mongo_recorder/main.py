"""The command ``raven-mongo-recorder``: from a broker to MongoDB."""

from __future__ import annotations

import argparse
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

from raven_mongo_recorder.ledger import MongoLedger
from raven_mongo_recorder.settings import ArchiveSettings, RecorderSettings
from raven_mongo_recorder.slots import LeasedSlots
from ravenbus import archiving, service, store
from ravenmongo import housekeeping
from ravenmongo.archiving import MongoArchive
from ravenmongo.sink import MongoSink

NAME = "raven-mongo-recorder"


def main() -> int:
    """Run the command line; return the exit status."""
    parser = service.parser(NAME, "Record the readings on a broker in MongoDB.", RecorderSettings)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    sub.add_parser("run", help="run the service (the default)")
    archiving.add_commands(sub, "RAVEN_MONGO", "collections", "documents")
    arguments = parser.parse_args()
    check = arguments.check_config
    if arguments.command in archiving.COMMANDS:
        command = partial(keep, arguments=arguments)
        return service.main(NAME, ArchiveSettings, command, check=check)
    return service.main(NAME, RecorderSettings, run, check=check)


def run(settings: RecorderSettings, stop: threading.Event) -> None:
    """Record until ``stop`` is set."""
    url, client_id = settings.mongo_url.text, settings.raven_client_id
    ledger = MongoLedger(url, client_id, ",".join(map(str, settings.mqtt_url.addresses)))
    folder, months = settings.raven_mongo_archive, settings.raven_mongo_keep_months
    archive = MongoArchive(settings.mongo_url, folder, months, stop) if folder else None
    with ThreadPoolExecutor(1, "housekeeping") as beside:
        kept = beside.submit(housekeeping.run, settings.mongo_url, archive, stop)
        try:
            store.run(
                "mongo-recorder",
                settings,
                lambda _: MongoSink(url),
                stop,
                lambda broker, health: LeasedSlots(ledger, broker, settings.raven_lease_s, health),
            )
        finally:
            stop.set()
        kept.result()


def keep(settings: ArchiveSettings, stop: threading.Event, arguments: argparse.Namespace) -> None:
    """Archive, restore or verify months, as the command line says."""
    months = settings.raven_mongo_keep_months
    unlimited = "RAVEN_MONGO_KEEP_MONTHS" if months is None else None
    archive = MongoArchive(settings.mongo_url, settings.raven_mongo_archive, months, stop)
    with closing(archive):
        archiving.command(arguments, archive, archive, unlimited)
