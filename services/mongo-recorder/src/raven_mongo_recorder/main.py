"""The command ``raven-mongo-recorder``: from a broker to MongoDB."""

from __future__ import annotations

import threading

from raven_mongo_recorder.settings import RecorderSettings
from raven_mongo_recorder.sink import MongoSink
from ravenbus import service, store

NAME = "raven-mongo-recorder"


def main() -> int:
    """Run the command line; return the exit status."""
    description = "Record the readings on a broker in MongoDB."
    arguments = service.parser(NAME, description, RecorderSettings).parse_args()
    return service.main(NAME, RecorderSettings, run, check=arguments.check_config)


def run(settings: RecorderSettings, stop: threading.Event) -> None:
    """Record until ``stop`` is set."""
    store.run("mongo-recorder", settings, lambda _: MongoSink(settings.mongo_url.text), stop)
