"""The command ``raven-mongo-recorder``: from a broker to MongoDB."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from raven_mongo_recorder.ledger import MongoLedger
from raven_mongo_recorder.settings import RecorderSettings
from raven_mongo_recorder.slots import LeasedSlots
from ravenbus import service, store
from ravenmongo import rollups
from ravenmongo.sink import MongoSink

NAME = "raven-mongo-recorder"


def main() -> int:
    """Run the command line; return the exit status."""
    description = "Record the readings on a broker in MongoDB."
    arguments = service.parser(NAME, description, RecorderSettings).parse_args()
    return service.main(NAME, RecorderSettings, run, check=arguments.check_config)


def run(settings: RecorderSettings, stop: threading.Event) -> None:
    """Record until ``stop`` is set."""
    url, client_id = settings.mongo_url.text, settings.raven_client_id
    ledger = MongoLedger(url, client_id, f"{settings.mqtt_url.host}:{settings.mqtt_url.port}")
    with ThreadPoolExecutor(1, "roll-ups") as beside:
        counted = beside.submit(rollups.run, settings.mongo_url, stop)
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
        counted.result()
