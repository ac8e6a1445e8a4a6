"""Old months that leave a store for files: the settings and commands that every store has."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from msgspec import Meta

from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravenbus.months import Month
from ravenbus.settings import usable_folder

log = logging.getLogger(__name__)

COMMANDS: Final = ("archive", "restore", "verify")
KeepMonths = Annotated[int, Meta(ge=1, le=1200)] | None


class Archive(Protocol):
    """The files of a store's months.

    Every call raises RetryableError for what may go better another time, and FatalError for what
    will not.
    """

    def restore(self, month: Month) -> int:
        """Put what a month's files have back into the store; return how much that is."""

    def verify(self, months: Sequence[Month]) -> Iterator[tuple[str, str | None]]:
        """Yield each file of the months, or of all, and what is wrong with it."""


class Retention(Protocol):
    """The rule by which months leave a store; it raises what the archive does."""

    def due(self) -> Iterable[Month]:
        """Return the months that are to leave."""

    def archive(self, month: Month) -> int:
        """Move a month to files; return how many readings are in files now."""


def archive_due(retention: Retention) -> None:
    """Archive every month that is due; one that has to wait holds no other one up."""
    try:
        months = retention.due()
    except (RetryableError, PoisonError) as error:
        log.warning("archiving postponed", extra={"reason": str(error)})
        return
    for month in months:
        try:
            log.info("archived", extra={"month": month, "rows": retention.archive(month)})
        except (RetryableError, PoisonError) as error:
            log.warning("archiving postponed", extra={"month": month, "reason": str(error)})


def problems(prefix: str, keep: int | None, folder: Path | None) -> Iterator[str]:
    """Yield what is wrong with ``<prefix>_KEEP_MONTHS`` and ``<prefix>_ARCHIVE``."""
    if folder is None:
        if keep is not None:
            yield (
                f"{prefix}_KEEP_MONTHS is set without {prefix}_ARCHIVE: "
                "allowed is both, or only the folder"
            )
    elif not usable_folder(folder):
        yield f"{prefix}_ARCHIVE: {str(folder)!r} cannot be used: it cannot be written to"


def add_commands(sub: Any, prefix: str, place: str, content: str) -> None:
    """Add the COMMANDS to a parser's; the store keeps its ``content`` in a ``place``."""
    archive = sub.add_parser(
        "archive", help=f"move months from the {place} to files in {prefix}_ARCHIVE"
    )
    restore = sub.add_parser("restore", help=f"put months back into the {place}")
    verify = sub.add_parser("verify", help="read the files and compare them with their record")
    for parser, number, default in (
        (archive, "*", f"default: all that are older than {prefix}_KEEP_MONTHS"),
        (restore, "+", None),
        (verify, "*", "default: all"),
    ):
        parser.add_argument("months", nargs=number, type=_month, metavar="YYYY-MM", help=default)
        parser.set_defaults(content=content)


def command(
    arguments: argparse.Namespace, archive: Archive, retention: Retention, unlimited: str | None
) -> None:
    """Do what a command line says of the months; ``unlimited`` is the setting that is not set.

    Raises FatalError, and RetryableError if a month has to wait.
    """
    months: Sequence[Month] = arguments.months
    match arguments.command:
        case "archive":
            if not months and unlimited:
                raise FatalError(f"say which months, or set {unlimited}")
            _archive(retention, months, arguments.content)
        case "restore":
            for month in months:
                print(f"{month}: {archive.restore(month)} {arguments.content} restored", flush=True)
        case "verify":
            _verify(archive, months)


def _archive(retention: Retention, months: Sequence[Month], content: str) -> None:
    waiting = 0
    for month in months or retention.due():
        try:
            print(f"{month}: {retention.archive(month)} {content} archived", flush=True)
        except RetryableError as error:
            print(f"{month}: put off: {error}", flush=True)
            waiting += 1
    if waiting:
        raise RetryableError(f"{waiting} months are put off")


def _verify(archive: Archive, months: Sequence[Month]) -> None:
    wrong = 0
    for name, fault in archive.verify(months):
        print(f"{name}: {fault or 'good'}", flush=True)
        wrong += fault is not None
    if wrong:
        raise FatalError(f"{wrong} archives are not as they were recorded")


def _month(text: str) -> Month:
    try:
        return Month.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no month as 2026-03") from None
