"""The command ``raven-dashboard``: readings and their history in a browser."""

from __future__ import annotations

import argparse
import logging
import socket
import threading
from contextlib import ExitStack, closing
from typing import Final

import uvicorn

from raven_dashboard.access import Access
from raven_dashboard.answers import Answers
from raven_dashboard.feed import Feed, client_id
from raven_dashboard.metrics import DashboardMetrics
from raven_dashboard.settings import DashboardSettings
from raven_dashboard.web import Web
from ravenbus import __version__, service
from ravenbus.errors import FatalError
from ravenbus.health import Health, Watchdog
from ravenbus.mqtt import Broker
from ravenbus.retrying import Retry
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

NAME: Final = "raven-dashboard"
STALL_S: Final = 120.0
GRACE_S: Final = 5
STORE_THREADS: Final = 3
"""A question that takes long does not hold up those that are quick."""
CONNECTIONS_MAX: Final = 500


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args()
    return service.main(NAME, DashboardSettings, run, check=arguments.check_config)


def run(settings: DashboardSettings, stop: threading.Event) -> None:
    """Serve until ``stop`` is set; raise FatalError if the address cannot be used."""
    health = Health(settings.raven_health_file)
    broker = Broker.of(settings, client_id=client_id())
    feed = Feed(broker, Topics(settings.raven_topic_prefix), Retry(health, stop))
    metrics = DashboardMetrics(feed.homes)
    metrics.serve(settings.raven_metrics_port)
    listening = _listening(settings.raven_dashboard_host, settings.raven_dashboard_port)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("started", extra={"version": __version__, "at": f"http://{shown}:{port}"})
    access = Access(settings.raven_dashboard_password, settings.raven_dashboard_token)
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(settings.store())) for _ in range(STORE_THREADS)]
        first = Answers(stores[0], feed, settings.raven_time_zone, settings.tariff())
        answers = [first, *(first.beside(one) for one in stores[1:])]
        app = Web(answers, feed, access, metrics, health).app()
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        serving = threading.Thread(target=server.run, args=([listening],), name="web")
        serving.start()
        Watchdog(health, STALL_S).start()
        try:
            feed.run()
        finally:
            server.should_exit = True
            serving.join()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise FatalError(
            f"RAVEN_DASHBOARD_HOST and RAVEN_DASHBOARD_PORT: {host} port {port} "
            f"cannot be used: {error.strerror or error}"
        ) from error


def _parser() -> argparse.ArgumentParser:
    return service.parser(NAME, "Show readings and their history in a browser.", DashboardSettings)
