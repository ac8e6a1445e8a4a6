"""The commands ``raven-backup`` and ``raven-restore``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from raven_backup import backups, credentials, manifest
from raven_backup.manifest import FILE, Manifest
from raven_backup.settings import BackupSettings
from ravenbus import __version__, archives, copies, service
from ravenbus.copies import Copying, Counts
from ravenbus.errors import FatalError, PoisonError
from ravenbus.messages import now
from ravenbus.service import EXIT_FAILED, EXIT_SETTINGS
from raventools.command import EXIT_USAGE, run

NAME: Final = "raven-backup"
RESTORE: Final = "raven-restore"
CREDENTIALS: Final = "credentials"
"""Folder in a backup."""

STATUSES: Final = """\
exit status:
  0   it is done
  1   {failed}
  69  a store cannot be reached, or is busy
  78  the settings cannot be used

"""

# raven-backup


def main() -> int:
    """Run ``raven-backup``; return the exit status."""
    return _run(NAME, _backup_parser(), _back_up)


def _back_up(settings: BackupSettings, arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    with backups.alone(folder):
        with backups.begun(folder, at := now()) as part:
            faults = fill(settings, part, at)
        print(f"backed up to {backups.newest_last(folder)[-1]}")
        for fault in faults:
            print(f"{NAME}: not kept: {fault}", file=sys.stderr)
        if faults:
            return EXIT_FAILED
        if arguments.keep:
            for gone in backups.thin_out(folder, arguments.keep):
                print(f"removed {gone}")
    return 0


def fill(settings: BackupSettings, part: Path, at: datetime) -> list[str]:
    """Put everything into a new folder; return what is wrong with files of the archives."""
    if settings.raven_credentials and not settings.raven_credentials.is_dir():
        raise FatalError(f"{settings.raven_credentials} is no folder (see RAVEN_CREDENTIALS)")
    counts: dict[str, Counts] = {}
    faults: list[str] = []
    for store in settings.stores():
        into = _of(part, store)
        into.mkdir()
        with closing(store):
            counts[store.name], wrong = store.save(into)
        faults += wrong
        _tell(store, counts[store.name], _archived(into))
    if settings.raven_credentials:
        count = credentials.copy(settings.raven_credentials, part / CREDENTIALS)
        print(f"credentials: {count:,} files")
    made = Manifest(__version__, at, now(), counts, manifest.checksums(part))
    copies.put(part / FILE, msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    return faults


def _backup_parser() -> argparse.ArgumentParser:
    description = (
        "Copy the stores that are set, with the months that left them, and the folder of\n"
        "credentials to a new folder in FOLDER.  Services go on meanwhile.  A reader's\n"
        "spool is left out: a copy of it, put back, would number readings twice.\n\n"
    ) + STATUSES.format(failed="nothing was kept, or not all: standard error says what")
    parser = service.parser(NAME, description, BackupSettings)
    parser.add_argument(
        "--keep",
        metavar="N",
        type=_positive,
        help="remove the oldest backups afterwards, but for the last N",
    )
    _add_folder(parser, "where backups are; made if there is none, for its owner alone")
    return parser


# raven-restore


def restore() -> int:
    """Run ``raven-restore``; return the exit status."""
    return _run(RESTORE, _restore_parser(), _restore)


def _restore(settings: BackupSettings, arguments: argparse.Namespace) -> int:
    found = backups.newest_last(arguments.folder)
    if not found:
        return _refused([f"{arguments.folder} has no backup that is whole"])
    backup = found[-1]
    made = manifest.read(backup)
    if faults := list(manifest.faults(backup, made)):
        return _refused(f"{backup}: {fault}" for fault in faults)
    print(f"restoring {backup}, made by {made.version} from {made.begun:%Y-%m-%d %H:%M:%S} UTC on")
    if arguments.credentials:
        return _restore_credentials(settings, backup / CREDENTIALS, arguments.replace)
    return _restore_stores(settings, backup, made, arguments.replace)


def _restore_credentials(settings: BackupSettings, saved: Path, replace: bool) -> int:
    folder = settings.raven_credentials
    if not folder:
        print(f"{RESTORE}: RAVEN_CREDENTIALS is not set: say which folder", file=sys.stderr)
        return EXIT_SETTINGS
    if not saved.is_dir():
        return _refused(["the backup has no credentials"])
    if not replace and (others := credentials.obstacles(saved, folder)):
        return _refused(
            [
                f"{folder} has others in {', '.join(others)}: --replace puts those of the backup there"
            ]
        )
    print(f"credentials: {credentials.copy(saved, folder):,} files")
    return 0


def _restore_stores(settings: BackupSettings, backup: Path, made: Manifest, replace: bool) -> int:
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(store)) for store in settings.stores()]
        chosen = [store for store in stores if store.name in made.stores]
        if not chosen:
            kept = " and ".join(made.stores) or "no store"
            return _refused(
                [f"the backup is of {kept}, of which none is set: see MYSQL_URL, MONGO_URL"]
            )
        obstacles = [] if replace else [one for store in chosen if (one := store.obstacle())]
        if obstacles:
            return _refused(f"{one}: --replace removes everything there first" for one in obstacles)
        for store in chosen:
            folder = _of(backup, store)
            _tell(store, store.load(folder), _archived(folder))
        for name in made.stores.keys() - {store.name for store in chosen}:
            print(f"{name}: in the backup, but not set, so left as it is")
    return 0


def _refused(reasons: Iterable[str]) -> int:
    for reason in reasons:
        print(f"{RESTORE}: {reason}", file=sys.stderr)
    return EXIT_FAILED


def _restore_parser() -> argparse.ArgumentParser:
    description = (
        "Put the newest backup in FOLDER, or the one that FOLDER is, into the stores that\n"
        "are set.  Stop their services first.  Every file is checked before anything is\n"
        "changed.  A restore that was interrupted is begun again in the same way.\n\n"
    ) + STATUSES.format(failed="the backup cannot be used, or something is there already")
    parser = service.parser(RESTORE, description, BackupSettings)
    parser.add_argument(
        "--credentials",
        action="store_true",
        help="put back the folder of credentials instead: before the databases are made with them",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="remove what is there, whatever it is: everything in the databases",
    )
    _add_folder(parser, "where backups are, or one of them")
    return parser


# Both


def _run(
    name: str,
    parser: argparse.ArgumentParser,
    command: Callable[[BackupSettings, argparse.Namespace], int],
) -> int:
    arguments = parser.parse_args()
    if not (arguments.folder or arguments.check_config):
        print(f"{name}: say FOLDER", file=sys.stderr)
        return EXIT_USAGE
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What it makes has every reading and every password.
    os.umask(0o077)

    def failing(settings: BackupSettings) -> int:
        try:
            return command(settings, arguments)
        except (FatalError, PoisonError, ValueError, *archives.UNREADABLE) as error:
            print(f"{name}: {_told(error, arguments.folder)}", file=sys.stderr)
            return EXIT_FAILED

    return run(name, BackupSettings, arguments, failing)


def _told(error: Exception, folder: Path) -> str:
    """Return what went wrong, and where: of a full disk the system says no file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or folder}: {error.strerror}"
    return str(error)


def _of(folder: Path, store: Copying) -> Path:
    return folder / store.name.lower()


def _archived(folder: Path) -> int:
    return len(list((folder / copies.ARCHIVE).glob("*")))


def _tell(store: Copying, counts: Counts, files: int) -> None:
    archived = f", and {files:,} files of archived months" if files else ""
    print(f"{store.name}: {sum(counts.values()):,} records in {len(counts)} files{archived}")


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from 1")
    return int(text)


def _add_folder(parser: argparse.ArgumentParser, about: str) -> None:
    # --check-config needs none.
    parser.add_argument("folder", nargs="?", metavar="FOLDER", type=Path, help=about)
