"""Takes away what was put into place on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from raven_setup import machine
from raven_setup.accounts import MYSQL_RIGHTS
from raven_setup.machine import PIPX, SETTINGS, Record
from raven_setup.plan import HERE, Answers
from raven_setup.setting_up import BROKER
from raven_setup.units import BACKUP, BACKUP_TIMER, READER, SERVICES

STATE: Final = Path("/var/lib")
OURS: Final = tuple(f"raven-{service.name}" for service in SERVICES)


def remove(record: Record, say: Callable[[str], None], *, data: bool) -> None:
    """Stop the services and take away files and accounts; readings go only with ``data``."""
    files = record.files
    say("  services, their settings and the udev rule")
    if units := _units():
        machine.run(["systemctl", "disable", "--now", "--quiet", *units])
        machine.works(["systemctl", "clean", "--what=state", BACKUP_TIMER])
    for file in {*files, *SETTINGS.glob("*.env")}:
        record.remove(file)
    machine.reload_units()
    machine.works(["systemctl", "reset-failed", "raven-*"])
    machine.reload_rules()
    if BROKER in files:
        say("  accounts of the broker")
        machine.works(["systemctl", "try-restart", "mosquitto"])
    if record.has_database:
        say("  accounts of the database")
        machine.sql(f"DROP USER IF EXISTS '{account}'@'{HERE}';" for account in MYSQL_RIGHTS)
    if data:
        if record.has_database:
            say("  readings: the database raven")
            machine.sql(["DROP DATABASE IF EXISTS raven;"])
        say("  readings: the spool and the archive")
        for folder in _states():
            shutil.rmtree(folder.resolve())
            folder.unlink(missing_ok=True)
    record.clear()


def kept(record: Record, was: Answers | None, *, data: bool) -> Iterator[str]:
    """Yield what stays, and how it goes; ``was`` are the answers to which all was set up."""
    if not data:
        if record.has_database:
            yield "the readings in the database raven: sudo mariadb -e 'DROP DATABASE raven'"
        yield from (f"what the service keeps in {folder}" for folder in _states())
    if was and was.backup:
        yield f"the backups in {was.backup}"
    if record.packages:
        yield f"Debian's packages: apt-get remove {' '.join(record.packages)}"
    yield f"the programs: {PIPX} uninstall python-raven"


def _states() -> list[Path]:
    """Return the folders in which services keep data, further readers' too."""
    folders = [*(STATE / name for name in OURS), *STATE.glob(f"raven-{READER.name}-*")]
    return sorted(folder for folder in folders if folder.exists())


def _units() -> list[str]:
    """Return the units of ours that run or are to run, further readers' too."""
    # With a pattern, a list of files that is empty is an error.
    options = ["--no-legend", "--plain", "--type=service,timer"]
    lines = machine.run(["systemctl", "list-units", "--all", "--state=loaded", *options])
    lines += machine.run(["systemctl", "list-unit-files", *options])
    names = {line.split()[0] for line in lines.splitlines() if line.strip()}
    ours = (*OURS, f"raven-{BACKUP}.")
    return sorted(one for one in names if one.startswith(ours) and not one.endswith("@.service"))
