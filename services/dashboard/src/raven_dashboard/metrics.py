"""What is counted of the dashboard."""

from __future__ import annotations

from ravenbus.metrics import Metrics


class DashboardMetrics(Metrics):
    """Requests and open pages; ``listening`` is how many pages follow live readings."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = 0
        self.requests = self.counter("raven_requests", "Requests answered", ["status"])
        listeners = self.gauge("raven_listeners", "Pages that follow live readings")
        listeners.set_function(lambda: self.listening)
