"""The command ``raven-sql-writer``: from a broker to MySQL."""

from __future__ import annotations

import argparse
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from raven_sql_writer.settings import ArchiveSettings, WriterSettings
from ravenbus import archiving, service, store
from ravensql import housekeeping, schema
from ravensql.archiving import Archive
from ravensql.retention import Retention
from ravensql.sink import MysqlSink

log = logging.getLogger(__name__)

NAME = "raven-sql-writer"


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args()
    check = arguments.check_config
    if arguments.command in archiving.COMMANDS:
        command = partial(keep, arguments=arguments)
        return service.main(NAME, ArchiveSettings, command, check=check)
    serve = migrate if arguments.command == "migrate" else run
    return service.main(NAME, WriterSettings, serve, check=check)


def run(settings: WriterSettings, stop: threading.Event) -> None:
    """Store until ``stop`` is set; a long migration keeps the health beating."""
    folder, keep = settings.raven_sql_archive, settings.raven_sql_keep_months
    retention = Retention(Archive(settings.mysql_url, folder, stop), keep) if folder else None
    with ThreadPoolExecutor(1, "housekeeping") as beside:
        kept = beside.submit(housekeeping.run, settings.mysql_url, retention, stop)
        try:
            store.run("sql-writer", settings, lambda h: MysqlSink(settings.mysql_url, h.beat), stop)
        finally:
            stop.set()
        kept.result()


def migrate(settings: WriterSettings, _stop: threading.Event) -> None:
    """Bring the database up to date, or raise what stands in the way."""
    steps = schema.migrate(settings.mysql_url)
    log.info("the database is up to date", extra={"steps": len(steps)})


def keep(settings: ArchiveSettings, stop: threading.Event, arguments: argparse.Namespace) -> None:
    """Archive, restore or verify months, as the command line says."""
    months = settings.raven_sql_keep_months
    archive = Archive(settings.mysql_url, settings.raven_sql_archive, stop)
    unlimited = "RAVEN_SQL_KEEP_MONTHS" if months is None else None
    archiving.command(arguments, archive, Retention(archive, months), unlimited)


def _parser() -> argparse.ArgumentParser:
    description = "Store the readings on a broker in MySQL or MariaDB."
    parser = service.parser(NAME, description, WriterSettings)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    sub.add_parser("run", help="run the service (the default)")
    sub.add_parser("migrate", help="only bring the database up to date")
    archiving.add_commands(sub, "RAVEN_SQL", "tables", "rows")
    return parser
