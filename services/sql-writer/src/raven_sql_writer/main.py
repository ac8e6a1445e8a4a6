"""The command ``raven-sql-writer``: from a broker to MySQL."""

from __future__ import annotations

import logging
import threading

from raven_sql_writer.settings import WriterSettings
from raven_sql_writer.sink import MysqlSink
from ravenbus import service, store
from ravensql import schema

log = logging.getLogger(__name__)

NAME = "raven-sql-writer"


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
    """Store until ``stop`` is set; a long migration keeps the health beating."""
    store.run("sql-writer", settings, lambda h: MysqlSink(settings.mysql_url, h.beat), stop)


def migrate(settings: WriterSettings, _stop: threading.Event) -> None:
    """Bring the database up to date, or raise what stands in the way."""
    steps = schema.migrate(settings.mysql_url)
    log.info("the database is up to date", extra={"steps": len(steps)})
