"""The command ``raven-sql-writer``: from a broker to MySQL."""

from __future__ import annotations

import logging
import threading

from raven_sql_writer import schema
from raven_sql_writer.settings import WriterSettings
from raven_sql_writer.sink import MysqlSink
from ravenbus import service
from ravenbus.consumer import SESSION_EXPIRY_S, Consumer
from ravenbus.health import Health, Watchdog
from ravenbus.metrics import ConsumerMetrics
from ravenbus.mqtt import Broker
from ravenbus.topics import Topics

log = logging.getLogger(__name__)

NAME = "raven-sql-writer"
STALL_S = 120.0


def main() -> int:
    """Run the command line; return the exit status."""
    description = "Store the readings on a broker in MySQL or MariaDB."
    parser = service.parser(NAME, description, WriterSettings)
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "migrate"),
        default="run",
        help="run the service (the default), or only bring the database up to date",
    )
    arguments = parser.parse_args()
    command = migrate if arguments.command == "migrate" else run
    return service.main(NAME, WriterSettings, command, check=arguments.check_config)


def run(settings: WriterSettings, stop: threading.Event) -> None:
    """Store until ``stop`` is set: the service's whole wiring."""
    health = Health(settings.raven_health_file)
    metrics = ConsumerMetrics()
    metrics.serve(settings.raven_metrics_port)
    broker = Broker.of(
        settings,
        client_id=settings.raven_client_id,
        session_expiry_s=SESSION_EXPIRY_S,
        receive_maximum=2 * settings.raven_batch_size,
    )
    sink = MysqlSink(settings.mysql_url, health.beat)
    consumer = Consumer(
        "sql-writer",
        broker,
        sink,
        Topics(settings.raven_topic_prefix),
        health,
        metrics,
        batch_size=settings.raven_batch_size,
        flush_after_s=settings.raven_flush_after_s,
    )
    Watchdog(health, STALL_S).start()
    try:
        consumer.run(stop)
    finally:
        sink.close()


def migrate(settings: WriterSettings, _stop: threading.Event) -> None:
    """Bring the database up to date, or raise what stands in the way."""
    steps = schema.migrate(settings.mysql_url)
    log.info("the database is up to date", extra={"steps": len(steps)})
