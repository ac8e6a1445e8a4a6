"""The command ``raven-mongo-recorder``: from a broker to MongoDB."""

from __future__ import annotations

import logging
import threading

from raven_mongo_recorder.settings import RecorderSettings
from raven_mongo_recorder.sink import MongoSink
from ravenbus import __version__, service
from ravenbus.consumer import SESSION_EXPIRY_S, Consumer
from ravenbus.health import Health, Watchdog
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import Broker
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

NAME = "raven-mongo-recorder"
STALL_S = 120.0


def main() -> int:
    """Run the command line; return the exit status."""
    description = "Record the readings on a broker in MongoDB."
    arguments = service.parser(NAME, description, RecorderSettings).parse_args()
    return service.main(NAME, RecorderSettings, run, check=arguments.check_config)


def run(settings: RecorderSettings, stop: threading.Event) -> None:
    """Record until ``stop`` is set: the service's whole wiring."""
    health = Health(settings.raven_health_file)
    metrics = ConsumerMetrics()
    metrics.serve(settings.raven_metrics_port)
    broker = Broker.of(
        settings,
        client_id=settings.raven_client_id,
        session_expiry_s=SESSION_EXPIRY_S,
        receive_maximum=2 * settings.raven_batch_size,
    )
    log.info(
        "started",
        extra={
            "version": __version__,
            "client_id": settings.raven_client_id,
            "broker": settings.mqtt_url,
            "database": settings.mongo_url,
        },
    )
    sink = MongoSink(settings.mongo_url.text)
    consumer = Consumer(
        "mongo-recorder",
        broker,
        sink,
        Topics(settings.raven_topic_prefix),
        health,
        metrics,
        batch_size=settings.raven_batch_size,
        flush_after_s=settings.raven_flush_after_s,
    )
    Watchdog(health, STALL_S).start()
    try:
        consumer.run(stop)
    finally:
        sink.close()
