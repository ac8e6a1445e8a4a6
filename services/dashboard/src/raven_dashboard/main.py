"""The command ``raven-dashboard``: readings and their history in a browser."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
import threading
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Final

import uvicorn

from raven_dashboard.access import Access
from raven_dashboard.answers import Answers
from raven_dashboard.feed import Feed, client_id
from raven_dashboard.metrics import DashboardMetrics
from raven_dashboard.notifier import Memory, Notifier
from raven_dashboard.settings import DashboardSettings
from raven_dashboard.troubles import TRIAL
from raven_dashboard.web import Web
from ravenbus import __version__, service
from ravenbus.errors import FatalError, RetryableError
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
    if arguments.try_notifications:
        return _try_notifications()
    return service.main(NAME, DashboardSettings, run, check=arguments.check_config)


def run(settings: DashboardSettings, stop: threading.Event) -> None:
    """Serve until ``stop`` is set; raise FatalError if the address cannot be used."""
    health = Health(settings.raven_health_file)
    broker = Broker.of(settings, client_id=client_id())
    retry = Retry(health, stop)
    feed = Feed(broker, Topics(settings.raven_topic_prefix), retry)
    metrics = DashboardMetrics(feed.homes)
    metrics.serve(settings.raven_metrics_port)
    listening = _listening(settings.raven_dashboard_host, settings.raven_dashboard_port)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("started", extra={"version": __version__, "at": f"http://{shown}:{port}"})
    access = Access(
        settings.raven_dashboard_password,
        settings.raven_dashboard_token,
        proxy=settings.raven_dashboard_trusted_proxy,
    )
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
                # Or a header would say who is at the other end.
                proxy_headers=False,
                lifespan="on",
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        serving = threading.Thread(target=server.run, args=([listening],), name="web")
        serving.start()
        if settings.raven_notify_urls:
            after = timedelta(minutes=settings.raven_notify_after_min)
            notifier = Notifier(
                feed,
                settings.raven_notify_urls.targets,
                Memory(settings.raven_state),
                after,
                settings.raven_time_zone,
                retry,
            )
            threading.Thread(target=notifier.run, name="notifier", daemon=True).start()
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


def _try_notifications() -> int:
    """Send a trial message; return the exit status."""
    settings = service.load(NAME, DashboardSettings)
    if settings is None:
        return service.EXIT_SETTINGS
    if not settings.raven_notify_urls:
        print(f"{NAME}: RAVEN_NOTIFY_URLS is not set: nobody is told anything", file=sys.stderr)
        return service.EXIT_SETTINGS
    status = 0
    for target in settings.raven_notify_urls.targets:
        try:
            target.send(TRIAL)
        except RetryableError as error:
            print(f"{NAME}: {error}", file=sys.stderr)
            status = service.EXIT_UNAVAILABLE
    if not status:
        print("a trial message was sent")
    return status


def _parser() -> argparse.ArgumentParser:
    description = "Show readings and their history in a browser, and tell people of troubles."
    found = service.parser(NAME, description, DashboardSettings)
    found.add_argument(
        "--try-notifications",
        action="store_true",
        help="send a trial message to RAVEN_NOTIFY_URLS and exit (status 69 if it is not taken)",
    )
    return found
