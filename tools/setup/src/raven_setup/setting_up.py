"""Puts a plan into place on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from raven_setup import broker, machine
from raven_setup.accounts import mysql_account, mysql_grants
from raven_setup.files import FILES
from raven_setup.machine import SETTINGS, Record, SetupError
from raven_setup.plan import HERE, VERIFY, Plan
from raven_setup.settings import merged, parse
from raven_setup.units import (
    BACKUP,
    BACKUP_TIMER,
    BACKUP_UNIT,
    FURTHER_READER,
    SERVICES,
    backup_unit,
)

UNITS: Final = Path("/etc/systemd/system")
RULES: Final = Path("/etc/udev/rules.d/99-raven.rules")
MOSQUITTO: Final = Path("/etc/mosquitto")
PASSWORDS: Final = MOSQUITTO / "raven.passwords"
ACCESS_LIST: Final = MOSQUITTO / "raven.acl"
BROKER: Final = MOSQUITTO / "conf.d" / "raven.conf"

Say = Callable[[str], None]


def found_settings() -> dict[str, dict[str, str]]:
    """Return what the files of settings hold, by their names without ``.env``."""
    return {file.stem: parse(file.read_text("utf-8")) for file in sorted(SETTINGS.glob("*.env"))}


def missing_packages(plan: Plan) -> list[str]:
    """Return the packages of Debian's that the plan needs and that are not here."""
    wanted = []
    if plan.broker and not machine.has("mosquitto"):
        wanted.append("mosquitto")
    if plan.database and not machine.has("mariadb", "mysql", "mysqld"):
        wanted.append("mariadb-server")
    return wanted


def obstacles(plan: Plan) -> Iterator[str]:
    """Yield what the broker that is here says already of who is let in."""
    if plan.broker:
        files = [MOSQUITTO / "mosquitto.conf", *sorted((MOSQUITTO / "conf.d").glob("*.conf"))]
        # Somebody's comment may be in another character set.
        texts = {str(f): f.read_text("latin-1") for f in files if f.exists() and f != BROKER}
        yield from broker.rivals(texts)


def set_up(plan: Plan, commands: Path, record: Record, say: Say) -> None:
    """Do all that the plan says; what is right already is left alone."""
    # First: if anything fails, the next run goes on with the same names and passwords.
    say(f"  settings: {SETTINGS}/*.env")
    changed = {name for name in plan.settings if _settings(name, plan, record)}
    if packages := missing_packages(plan):
        say(f"  installing from Debian: {', '.join(packages)} (some minutes)")
        machine.install(packages)
        record.note_packages(packages)
    if plan.broker:
        say(f"  accounts of the broker: {', '.join(plan.broker)}")
        _broker(plan, record)
    if plan.database:
        say(f"  database raven, with accounts {', '.join(plan.database)}")
        machine.sql(_statements(plan))
        record.note_database()
    units = [service.unit for service in plan.services]
    say(f"  services: {', '.join(unit.removesuffix('.service') for unit in units)}")
    _without_others(plan, record)
    for service in (*plan.services, FURTHER_READER):
        if record.put(UNITS / service.unit, service.text(commands)):
            changed.add(service.name)
    if plan.backup:
        say(f"  backups: each night to {plan.backup}")
        # Later a folder that is missing is on a disk that is away.
        if record.put(UNITS / BACKUP_UNIT, backup_unit(commands, plan.backup)):
            Path(plan.backup).mkdir(mode=0o700, parents=True, exist_ok=True)
        record.put(UNITS / BACKUP_TIMER, (FILES / BACKUP_TIMER).read_text("utf-8"))
    machine.reload_units()
    rules = [FILES / name for name in ("99-raven.rules", "99-raven-reader.rules")]
    if record.put(RULES, "\n".join(rule.read_text("utf-8") for rule in rules)):
        machine.reload_rules()
    machine.run(["systemctl", "enable", "--quiet", *units])
    for service in plan.services:
        verb = "restart" if service.name in changed else "start"
        if not machine.works(["systemctl", verb, service.unit]):
            said = machine.last_words(service.unit)
            raise SetupError(f"{service.unit} does not start; its last words:\n{said}")
    if plan.backup:
        machine.run(["systemctl", "enable", "--now", "--quiet", BACKUP_TIMER])


def _broker(plan: Plan, record: Record) -> None:
    held = PASSWORDS.read_text("utf-8") if PASSWORDS.exists() else ""
    text = broker.passwords(held, plan.broker)
    accounts = record.write(PASSWORDS, text, 0o640, "mosquitto")
    rights = broker.access_list((FILES / "acl").read_text("utf-8"), plan.node)
    accounts |= record.put(ACCESS_LIST, rights, 0o640, "mosquitto")
    if record.put(BROKER, (FILES / "mosquitto.conf").read_text("utf-8")):
        machine.run(["systemctl", "enable", "--quiet", "mosquitto"])
        machine.run(["systemctl", "restart", "mosquitto"])
    elif accounts:
        machine.run(["systemctl", "reload-or-restart", "mosquitto"])


def _statements(plan: Plan) -> Iterator[str]:
    yield "CREATE DATABASE IF NOT EXISTS raven;"
    for account, password in plan.database.items():
        yield from mysql_account(account, HERE, password)
        yield from mysql_grants(account, HERE)


def _settings(name: str, plan: Plan, record: Record) -> bool:
    file = SETTINGS / f"{name}.env"
    if file.exists():
        held = file.read_text("utf-8")
    else:
        held = f"# Settings of raven-{name}: docs/configuration.md has them all.\n"
        if name in {service.name for service in SERVICES}:
            held += f"# After a change: systemctl restart raven-{name}\n"
    return record.write(file, merged(held, plan.settings[name]), 0o600)


def _without_others(plan: Plan, record: Record) -> None:
    """Stop what an earlier plan had and this one has not; its settings go, its data stay."""
    for service in SERVICES:
        unit = UNITS / service.unit
        if service not in plan.services and unit in record.files:
            machine.run(["systemctl", "disable", "--now", "--quiet", service.unit])
            record.remove(unit)
            record.remove(SETTINGS / f"{service.name}.env")
    if not plan.backup and UNITS / BACKUP_TIMER in record.files:
        machine.run(["systemctl", "disable", "--now", "--quiet", BACKUP_TIMER])
        machine.works(["systemctl", "clean", "--what=state", BACKUP_TIMER])
        record.remove(UNITS / BACKUP_TIMER)
        record.remove(UNITS / BACKUP_UNIT)
    for name in {VERIFY, BACKUP} - plan.settings.keys():
        record.remove(SETTINGS / f"{name}.env")
