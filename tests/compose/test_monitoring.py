"""Prometheus and Alertmanager beside the services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from tests.compose.project import Project, say, wait_until

PROFILES = ("--profile", "mqtt", "--profile", "demo", "--profile", "monitoring")
WATCHED = {
    *(("raven", service) for service in ("reader", "mongo-recorder", "dashboard")),
    ("disks", "node-exporter:9100"),
    ("certificate", "broker:8883"),
}


def asked(home: Project, service: str, inside: int, path: str) -> Any:
    """Return what Prometheus or Alertmanager answers."""
    with urlopen(f"http://127.0.0.1:{home.port(service, inside)}/api/{path}", timeout=30) as answer:
        return json.load(answer)


def values(home: Project, query: str) -> list[tuple[dict[str, str], float]]:
    """Return what Prometheus has to say to a query, by labels."""
    found = asked(home, "prometheus", 9090, f"v1/query?query={quote(query)}")["data"]["result"]
    return [(one["metric"], float(one["value"][1])) for one in found]


def test_whoever_is_told_hears_of_a_service_that_is_stopped(project: Callable[..., Project]):
    """Prometheus finds what there is by itself, and the Alertmanager has the alert."""
    home = project()
    folder = home.folder / "deploy" / "prometheus"
    for name, usual, sooner in (
        ("rules.yml", "for: 5m", "for: 5s"),
        ("prometheus.yml", "_interval: 30s", "_interval: 2s"),
    ):
        (folder / name).write_text((folder / name).read_text().replace(usual, sooner))
    home.up(*PROFILES)
    home.wait_healthy("reader", "mongo-recorder", "dashboard", "prometheus", "alertmanager")

    def targets() -> dict[tuple[str, str], str]:
        found = asked(home, "prometheus", 9090, "v1/targets?state=active")["data"]["activeTargets"]
        return {
            (
                one["labels"]["job"],
                one["labels"].get("service") or one["labels"]["instance"],
            ): one["lastError"] or one["health"]
            for one in found
        }

    try:
        wait_until(lambda: targets() == dict.fromkeys(WATCHED, "up"), "every target is up")
    except RuntimeError as error:
        raise AssertionError(f"{error}: {targets()}") from None
    say(f"  up: {' '.join(sorted(name for _, name in WATCHED))}")
    disks = {labels["mountpoint"] for labels, _ in values(home, "node_filesystem_avail_bytes")}
    assert {"/volumes/mongo", "/volumes/broker", "/volumes/reader"} <= disks
    assert all(mountpoint.startswith("/volumes/") for mountpoint in disks)
    ((_, end),) = wait_until(
        lambda: values(home, "probe_ssl_earliest_cert_expiry"), "the certificate is seen"
    )
    assert 729 < (end - time.time()) / 86400 < 731
    wait_until(lambda: values(home, "raven_home_heard_timestamp_seconds > 0"), "a home is heard")
    assert asked(home, "prometheus", 9090, "v1/alerts")["data"]["alerts"] == []

    home.all("stop", "mongo-recorder")

    def told() -> set[str]:
        alerts = [one["labels"] for one in asked(home, "alertmanager", 9093, "v2/alerts")]
        return {one["alertname"] for one in alerts if one.get("service") == "mongo-recorder"}

    alerts = wait_until(told, "the Alertmanager has the alert")
    assert alerts <= {"RavenServiceDown", "RavenServiceGone"}
    say(f"  told when the recorder was stopped: {' '.join(sorted(alerts))}")

    example = home.folder / "deploy" / "alertmanager" / "example.yml"
    example.with_name("own.yml").write_text(example.read_text())
    check = ["run", "--rm", "--no-deps", "-T", "--entrypoint", "amtool", "alertmanager"]
    said = home.compose(*check, "check-config", "/config/own.yml", shown=True).stdout
    assert "2 receivers" in said
