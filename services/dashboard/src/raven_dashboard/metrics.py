"""What is counted of the dashboard, and what homes say of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from raven_dashboard.feed import Home
from ravenbus.metrics import Metrics

RIGHT: Final = (None, "right")


class DashboardMetrics(Metrics):
    """Requests, open pages and homes; ``listening`` is how many pages follow live readings."""

    def __init__(self, homes: dict[str, Home]) -> None:
        super().__init__()
        self.listening = 0
        self.requests = self.counter("raven_requests", "Requests answered", ["status"])
        listeners = self.gauge("raven_listeners", "Pages that follow live readings")
        listeners.set_function(lambda: self.listening)
        self.registry.register(Homes(homes))


class Homes(Collector):
    """Says how each home is, as far as the bus tells."""

    def __init__(self, homes: dict[str, Home]) -> None:
        self._homes = homes

    def collect(self) -> Iterable[Metric]:
        """Yield what is known of every home now."""
        heard = GaugeMetricFamily(
            "raven_home_heard_timestamp_seconds",
            "When the last reading of a home was received there, 0 if there is none",
            labels=["node"],
        )
        clock = GaugeMetricFamily(
            "raven_home_clock_problem", "1 while a home says that a clock is wrong", labels=["node"]
        )
        unconfirmed = GaugeMetricFamily(
            "raven_home_unconfirmed",
            "Readings of a home's run that a store has not confirmed",
            labels=["node", "store"],
        )
        for node, home in sorted(self._homes.copy().items()):
            heard.add_metric([node], home.heard.timestamp() if home.heard else 0)
            wrong = home.status is not None and home.status.clock not in RIGHT
            clock.add_metric([node], wrong)
            for store in list(home.stores):
                unconfirmed.add_metric([node, store], home.behind(store))
        return heard, clock, unconfirmed
