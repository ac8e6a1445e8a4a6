"""Prometheus metrics: a registry of the process's own, served where a port is set."""

from __future__ import annotations

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from ravenbus.errors import FatalError


class Metrics:
    """Base of a service's metrics; subclasses add counters and gauges to ``registry``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = partial(Counter, registry=self.registry)
        self.gauge = partial(Gauge, registry=self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def serve(self, port: int) -> None:
        """Serve ``/metrics`` on every address; port 0 serves nothing.

        Raise FatalError if the port cannot be used.
        """
        if port:
            try:
                start_http_server(port, registry=self.registry)
            except OSError as error:
                raise FatalError(f"RAVEN_METRICS_PORT: {port} cannot be used: {error}") from error


class PublisherMetrics(Metrics):
    """Entries on their way to stores: published = taken + kept + unanswered + in flight."""

    def __init__(self) -> None:
        super().__init__()
        counter, gauge = self.counter, self.gauge
        self.published = counter("raven_published", "Entries handed to the broker")
        self.taken = counter("raven_taken", "Entries that a subscriber took")
        self.kept = counter("raven_kept", "Entries kept because of the PUBACK's reason", ["reason"])
        self.unanswered = counter(
            "raven_unanswered", "Entries whose connection ended before a PUBACK"
        )
        self.in_flight = gauge("raven_in_flight", "Entries without a PUBACK yet")
        self.confirmed = counter("raven_confirmed", "Entries that every required store confirmed")
        self.sent_again = counter(
            "raven_sent_again", "Entries that were taken and not confirmed in time"
        )
        self.connected = gauge("raven_broker_connected", "1 while connected")


class ConsumerMetrics(Metrics):
    """Messages from the broker: received = stored + duplicate + dead + given back + in flight."""

    def __init__(self) -> None:
        super().__init__()
        counter, gauge = self.counter, self.gauge
        self.received = counter("raven_received", "Messages received")
        self.stored = counter("raven_stored", "Messages stored")
        self.duplicate = counter("raven_duplicate", "Messages stored before")
        self.dead = counter("raven_dead", "Messages buried", ["reason"])
        self.given_back = counter(
            "raven_given_back",
            "Messages not stored before a connection ended, which the broker delivers again",
        )
        self.dropped = counter(
            "raven_dropped",
            "Messages with QoS 0 for which there was no room, and which were not received",
        )
        self.in_flight = gauge("raven_in_flight", "Messages not yet stored")
        self.connected = gauge("raven_broker_connected", "1 while connected")
