"""What Prometheus hears of the homes."""

from __future__ import annotations

from raven_dashboard.feed import Home
from raven_dashboard.metrics import DashboardMetrics
from ravenbus.messages import Confirmation, Status
from tests.kinds import T0, new_hash, reading

HASH = new_hash()


def test_a_home_is_counted_by_what_it_says():
    """When it was heard, whether its clocks are right, and what each store lacks of its run."""
    homes: dict[str, Home] = {}
    registry = DashboardMetrics(homes).registry
    house = homes["house"] = Home("house")
    homes["barn"] = Home("barn")
    status = Status(node="house", service="online", device="connected", since=T0, clock="off")
    stored = Confirmation(node="house", store="raven-sql-writer", runs={HASH: [(1, 4)]})
    for message in (status, reading(HASH, 6, received=T0), stored):
        house.take(message, T0)
    for name, node, value in (
        ("heard_timestamp_seconds", "house", T0.timestamp()),
        ("heard_timestamp_seconds", "barn", 0),
        ("clock_problem", "house", 1),
        ("clock_problem", "barn", 0),
    ):
        assert registry.get_sample_value(f"raven_home_{name}", {"node": node}) == value
    of = {"node": "house", "store": "raven-sql-writer"}
    assert registry.get_sample_value("raven_home_unconfirmed", of) == 2
