"""Metrics of the reader: what became of the fragments, and how the stick and the spool are."""

from __future__ import annotations

from collections.abc import Callable

from ravenbus.metrics import PublisherMetrics


class ReaderMetrics(PublisherMetrics):
    """Metrics of what became of the fragments: accepted ones leave the spool as ``taken``."""

    def __init__(self) -> None:
        super().__init__()
        counter, gauge = self.counter, self.gauge
        self.fragments = counter("raven_fragments", "Fragments by what became of them", ["outcome"])
        self.rejected = counter("raven_rejected", "Fragments rejected, by reason", ["reason"])
        self.refused = counter("raven_refused", "Readings lost because the spool had no room")
        self.given_up = counter(
            "raven_given_up",
            "Entries that made room in a full spool before every required store confirmed them",
        )
        self.spooled = gauge("raven_spooled", "Entries that no subscriber took yet")
        self.unconfirmed = gauge(
            "raven_unconfirmed", "Entries taken that a required store has not confirmed yet"
        )
        self.oldest = gauge(
            "raven_spooled_oldest_timestamp_seconds",
            "When the oldest entry came that no subscriber took yet, 0 if there is none",
        )
        self.heard = gauge("raven_device_connected", "1 while the stick is heard")
        self.waiting = gauge(
            "raven_waiting",
            "Fragments that contradict what is known, until what follows decides on them",
        )
        self.clock_problem = gauge(
            "raven_clock_problem",
            "1 while a clock is wrong: the stick's (device) or this machine's (host)",
            ["clock"],
        )
        self.clock_ahead = gauge(
            "raven_device_clock_ahead_seconds",
            "How far the stick's clock is ahead of this machine's",
        )

    def watch(
        self, depth: Callable[[], tuple[int, float | None]], unconfirmed: Callable[[], int]
    ) -> None:
        """Ask how deep the spool is when somebody asks for the metrics."""
        self.unconfirmed.set_function(unconfirmed)
        self.spooled.set_function(lambda: depth()[0])
        self.oldest.set_function(lambda: depth()[1] or 0)
