"""What is counted of the dashboard."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from ravenbus.metrics import Metrics


class DashboardMetrics(Metrics):
    """Requests and open pages."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = Counter(
            "raven_requests", "Requests answered", ["status"], registry=self.registry
        )
        self.listeners = Gauge(
            "raven_listeners", "Pages that follow live readings", registry=self.registry
        )
