"""The alerts of deploy/prometheus; `make alerts-test` has Prometheus itself try them."""

from __future__ import annotations

import re

from raven_dashboard.metrics import DashboardMetrics
from raven_harness import stack
from raven_reader.metrics import ReaderMetrics
from ravenbus.metrics import ConsumerMetrics

RULES = stack.ROOT / "deploy" / "prometheus" / "rules.yml"
PAGE = stack.ROOT / "docs" / "monitoring.md"


def test_alerts_go_by_metrics_that_there_are():
    """One that was renamed would never be heard of again."""
    asked = set(re.findall(r"raven_\w+", RULES.read_text()))
    served = {
        sample.name.removesuffix("_total")
        for metrics in (ReaderMetrics(), ConsumerMetrics(), DashboardMetrics({}))
        for sample in metrics.registry.collect()
    }
    assert {name.removesuffix("_total") for name in asked} <= served


def test_each_alert_has_its_line_in_the_docs():
    """Whoever is woken finds what to do."""
    alerts = re.findall(r"alert: (\w+)", RULES.read_text())
    assert alerts
    assert re.findall(r"^\| `(Raven\w+)` \|", PAGE.read_text(), re.MULTILINE) == alerts
