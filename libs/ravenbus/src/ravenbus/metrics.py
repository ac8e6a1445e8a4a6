"""Prometheus metrics: a registry of the process's own, served where a port is set."""

from __future__ import annotations

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
    """Base of a service's metrics; subclasses add counters to ``registry``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        registry = self.registry
        self.published = Counter(
            "raven_published", "Entries handed to the broker", registry=registry
        )
        self.taken = Counter("raven_taken", "Entries that a subscriber took", registry=registry)
        self.kept = Counter(
            "raven_kept",
            "Entries kept because of the PUBACK's reason",
            ["reason"],
            registry=registry,
        )
        self.unanswered = Counter(
            "raven_unanswered", "Entries whose connection ended before a PUBACK", registry=registry
        )
        self.in_flight = Gauge("raven_in_flight", "Entries without a PUBACK yet", registry=registry)
        self.confirmed = Counter(
            "raven_confirmed", "Entries that every required store confirmed", registry=registry
        )
        self.sent_again = Counter(
            "raven_sent_again",
            "Entries that were taken and not confirmed in time",
            registry=registry,
        )
        self.connected = Gauge("raven_broker_connected", "1 while connected", registry=registry)


class ConsumerMetrics(Metrics):
    """Messages from the broker: received = stored + duplicate + dead + given back + in flight."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.received = Counter("raven_received", "Messages received", registry=registry)
        self.stored = Counter("raven_stored", "Messages stored", registry=registry)
        self.duplicate = Counter("raven_duplicate", "Messages stored before", registry=registry)
        self.dead = Counter("raven_dead", "Messages buried", ["reason"], registry=registry)
        self.given_back = Counter(
            "raven_given_back",
            "Messages not stored before a connection ended, which the broker delivers again",
            registry=registry,
        )
        self.dropped = Counter(
            "raven_dropped",
            "Messages with QoS 0 for which there was no room, and which were not received",
            registry=registry,
        )
        self.in_flight = Gauge("raven_in_flight", "Messages not yet stored", registry=registry)
        self.connected = Gauge("raven_broker_connected", "1 while connected", registry=registry)
