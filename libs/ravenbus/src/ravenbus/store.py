"""The common parts of every store's ``main``: from the settings to a running consumer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from ravenbus import __version__
from ravenbus.consumer import SESSION_EXPIRY_S, Consumer
from ravenbus.forgetting import Forgetting, LetterSink
from ravenbus.health import Health, Watchdog
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import Broker
from ravenbus.retrying import Retry
from ravenbus.settings import ConsumerSettings
from ravenbus.slots import Alone, Slots
from ravenbus.storing import Sink, Storing
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

STALL_S = 120.0
"""Longer than any call of a driver may take; a loop that hangs for so long ends the process."""


def run(
    service: str,
    settings: ConsumerSettings,
    open_sink: Callable[[Health], LetterSink],
    stop: threading.Event,
    open_slots: Callable[[Broker, Health], Slots] = lambda broker, _: Alone.at(broker),
) -> None:
    """Store what is on the broker until ``stop`` is set; ``service`` names the dead letters.

    ``open_slots`` is for a service that may run more than once: it says whose session to use.
    """
    health = Health(settings.raven_health_file)
    metrics = ConsumerMetrics()
    metrics.serve(settings.raven_metrics_port)
    broker = Broker.of(
        settings,
        client_id=settings.raven_client_id,
        session_expiry_s=SESSION_EXPIRY_S,
        receive_maximum=2 * settings.raven_batch_size,
        dropped=metrics.dropped.inc,
    )
    log.info(
        "started",
        extra={
            "version": __version__,
            "client_id": settings.raven_client_id,
            "broker": settings.mqtt_url,
        },
    )
    sink: Sink = (opened := open_sink(health))
    if days := settings.raven_dead_letters_keep_days:
        sink = Forgetting(opened, timedelta(days=days))
    slots = open_slots(broker, health)
    topics, retry = Topics(settings.raven_topic_prefix), Retry(health, stop)
    storing = Storing(
        service,
        sink,
        topics,
        retry,
        metrics,
        name=settings.raven_client_id,
        batch_size=settings.raven_batch_size,
        flush_after_s=settings.raven_flush_after_s,
    )
    consumer = Consumer(slots, storing, topics, retry, metrics, name=settings.raven_client_id)
    Watchdog(health, STALL_S).start()
    try:
        consumer.run()
    finally:
        slots.close()
        sink.close()
