"""The command ``raven-sql-writer``: from a broker to MySQL."""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from raven_sql_writer.settings import ArchiveSettings, WriterSettings
from ravenbus import service, store
from ravenbus.errors import FatalError, RetryableError
from ravenbus.months import Month
from ravensql import housekeeping, schema
from ravensql.archiving import Archive
from ravensql.retention import Retention
from ravensql.sink import MysqlSink

log = logging.getLogger(__name__)

NAME = "raven-sql-writer"


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args()
    commands = {"archive": archive, "restore": restore, "verify": verify}
    check = arguments.check_config
    if arguments.command in commands:
        command = partial(commands[arguments.command], months=arguments.months)
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


def archive(settings: ArchiveSettings, stop: threading.Event, months: Sequence[Month]) -> None:
    """Archive the months, or all that are due; raise RetryableError if one of them has to wait."""
    if not months and settings.raven_sql_keep_months is None:
        raise FatalError("say which months, or set RAVEN_SQL_KEEP_MONTHS")
    retention = Retention(_archive(settings, stop), settings.raven_sql_keep_months)
    waiting = 0
    for month in months or retention.due():
        try:
            print(f"{month}: {retention.archive(month)} rows archived", flush=True)
        except RetryableError as error:
            print(f"{month}: put off: {error}", flush=True)
            waiting += 1
    if waiting:
        raise RetryableError(f"{waiting} months are put off")


def restore(settings: ArchiveSettings, stop: threading.Event, months: Sequence[Month]) -> None:
    """Put the rows of the months back into the tables."""
    for month in months:
        print(f"{month}: {_archive(settings, stop).restore(month)} rows restored", flush=True)


def verify(settings: ArchiveSettings, stop: threading.Event, months: Sequence[Month]) -> None:
    """Read the files of the months, or of all; raise FatalError if one cannot be relied on."""
    wrong = 0
    for name, fault in _archive(settings, stop).verify(months):
        print(f"{name}: {fault or 'good'}", flush=True)
        wrong += fault is not None
    if wrong:
        raise FatalError(f"{wrong} archives are not as they were recorded")


def _archive(settings: ArchiveSettings, stop: threading.Event) -> Archive:
    return Archive(settings.mysql_url, settings.raven_sql_archive, stop)


def _parser() -> argparse.ArgumentParser:
    description = "Store the readings on a broker in MySQL or MariaDB."
    parser = service.parser(NAME, description, WriterSettings)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    sub.add_parser("run", help="run the service (the default)")
    sub.add_parser("migrate", help="only bring the database up to date")
    archive_parser = sub.add_parser(
        "archive", help="move months from the tables to files in RAVEN_SQL_ARCHIVE"
    )
    restore_parser = sub.add_parser("restore", help="put months back into the tables")
    verify_parser = sub.add_parser(
        "verify", help="read the files and compare them with their record"
    )
    archive_parser.add_argument(
        "months",
        nargs="*",
        type=_month,
        metavar="YYYY-MM",
        help="default: all that are older than RAVEN_SQL_KEEP_MONTHS",
    )
    restore_parser.add_argument("months", nargs="+", type=_month, metavar="YYYY-MM")
    verify_parser.add_argument(
        "months", nargs="*", type=_month, metavar="YYYY-MM", help="default: all"
    )
    return parser


def _month(text: str) -> Month:
    try:
        return Month.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no month as 2026-03") from None
