"""The command ``raven-sql-relay``: from MySQL to an upstream broker."""

from __future__ import annotations

import logging
import threading
import uuid

from raven_sql_relay.outbox import POLL_S, SqlOutbox
from raven_sql_relay.settings import RelaySettings
from raven_sql_relay.source import RelayMetrics
from ravenbus import __version__, service
from ravenbus.health import Health, Watchdog
from ravenbus.mqtt import Broker
from ravenbus.publisher import Publisher
from ravenbus.settings import MqttUrl
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

NAME = "raven-sql-relay"
STALL_S = 120.0
"""Longer than any call of the driver may take."""
IDLE_BEAT_S = 5.0


def main() -> int:
    """Run the command line; return the exit status."""
    description = "Relay each row of MySQL or MariaDB to an upstream broker."
    arguments = service.parser(NAME, description, RelaySettings).parse_args()
    return service.main(NAME, RelaySettings, run, check=arguments.check_config)


def run(settings: RelaySettings, stop: threading.Event) -> None:
    """Relay until ``stop`` is set; without an upstream broker there is nothing to do."""
    health = Health(settings.raven_health_file)
    metrics = RelayMetrics()
    metrics.serve(settings.raven_metrics_port)
    upstream = settings.upstream_mqtt_url
    if upstream:
        relay(settings, upstream, health, metrics, stop)
        return
    log.info("no upstream broker, nothing to relay: UPSTREAM_MQTT_URL is not set")
    health.beat()
    Watchdog(health, STALL_S).start()
    while not stop.wait(IDLE_BEAT_S):
        health.beat()


def relay(
    settings: RelaySettings,
    upstream: MqttUrl,
    health: Health,
    metrics: RelayMetrics,
    stop: threading.Event,
) -> None:
    """Carry rows to the upstream broker until ``stop`` is set: the service's whole wiring."""
    log.info(
        "started",
        extra={"version": __version__, "upstream": upstream, "database": settings.mysql_url},
    )
    topics = Topics(settings.raven_topic_prefix)
    outbox = SqlOutbox(
        settings.mysql_url,
        topics,
        metrics,
        upstream=str(upstream),
        node=settings.raven_node,
        stores=settings.raven_stores,
        health=health,
    )
    # Nothing waits in a session of a relay, so each may have a name of its own.
    client_id = f"raven-sql-relay-{uuid.uuid4().hex[:12]}"
    broker = Broker(upstream, client_id, settings.tls_context())
    publisher = Publisher(
        broker,
        outbox,
        health,
        metrics,
        window=settings.raven_window,
        tick_s=POLL_S,
    )
    publisher.hear_stores(topics, ["+"])
    Watchdog(health, STALL_S).start()
    try:
        publisher.run(stop)
    finally:
        outbox.close()
