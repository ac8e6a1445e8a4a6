"""What is counted of the dashboard."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from ravenbus.metrics import Metrics


class DashboardMetrics(Metrics):
    """Requests and open pages; ``listening`` is how many pages follow live readings."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = 0
        self.requests = Counter(
            "raven_requests", "Requests answered", ["status"], registry=self.registry
        )
        Gauge(
            "raven_listeners", "Pages that follow live readings", registry=self.registry
        ).set_function(lambda: self.listening)
