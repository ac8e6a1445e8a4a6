"""The commands ``raven-setup`` and ``raven-remove``."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from raven_reader.serial_port import find_sticks
from raven_setup import machine, plan, removing, setting_up
from raven_setup.machine import PIPX, SETTINGS, Record, SetupError
from raven_setup.plan import Answers, Plan
from raven_setup.questions import STORES, AnswerError, Questions
from raven_setup.units import DASHBOARD, HIDDEN
from ravenbus import __version__
from ravenbus.errors import RavenError
from ravenbus.service import EXIT_FAILED, EXIT_SETTINGS

NAME: Final = "raven-setup"
REMOVE: Final = "raven-remove"
EXIT_INTERRUPTED: Final = 130
FOR_ALL: Final = f"{PIPX} install 'python_raven-{__version__}-py3-none-any.whl[all]'"
ANSWERS: Final = """\
What can be told by the environment, too or alone:
  RAVEN_DEVICE, RAVEN_NODE  as --device and --node
  MQTT_URL, MQTT_TLS_CA     the server's broker for --store server; for other
                            stores a broker to use in place of one here
  MONGO_URL                 the database for --store mongo
  MYSQL_URL                 a database to use in place of MariaDB here
  UPSTREAM_MQTT_URL, UPSTREAM_MQTT_TLS_CA
                            a broker that gets every row of --store mysql
"""


class Terminal:
    """The person at the terminal; with ``--yes`` each default is the answer."""

    def __init__(self, *, yes: bool) -> None:
        self._yes = yes

    def say(self, text: str) -> None:
        """Print a line."""
        if not self._yes:
            print(text)

    def ask(self, question: str, default: str) -> str:
        """Return what is typed, the default if nothing is."""
        if self._yes:
            return default
        try:
            return input(f"{question} [{default}]: ".replace(" []", "")).strip() or default
        except EOFError:
            raise AnswerError(
                "nobody answers: --yes takes what is not told as it is by default"
            ) from None


def main() -> int:
    """Set this machine up; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Set up the services of python-raven on this Debian machine, as root.\n"
        "It asks what is not told.  Run again, it changes what is answered otherwise,\n"
        "and keeps what you changed in its files.",
        epilog=ANSWERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    parser.add_argument("--device", metavar="PORT", help="the stick: auto, a path, socket://…")
    parser.add_argument("--store", choices=tuple(STORES), help="where readings go")
    parser.add_argument("--node", metavar="NAME", help="name of this home; by default one is made")
    parser.add_argument(
        "--backup", metavar="FOLDER", help="back up to it each night; none: make no backups"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing, take the defaults")
    options = parser.parse_args()
    return _run(NAME, lambda: _set_up(options))


def remove() -> int:
    """Take away what ``raven-setup`` made; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=REMOVE, description="Take away what raven-setup made; readings stay."
    )
    parser.add_argument("--version", action="version", version=f"{REMOVE} {__version__}")
    parser.add_argument(
        "--data", action="store_true", help="remove the readings too: database, spool, archive"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args()
    return _run(REMOVE, lambda: _remove(options))


def _run(name: str, command: Callable[[], int]) -> int:
    try:
        _require_machine(name)
        return command()
    except AnswerError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    except (OSError, RavenError, SetupError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED


def _require_machine(name: str) -> None:
    if os.geteuid():
        raise SetupError(f"only root can do that: sudo {name}")
    if not Path("/run/systemd/system").is_dir():
        raise SetupError("systemd does not run here, and services need it")


def _set_up(options: argparse.Namespace) -> int:
    commands = Path(sys.prefix) / "bin"
    if str(commands).startswith(tuple(f"{folder}/" for folder in HIDDEN)):
        raise SetupError(
            f"services do not see {commands}; install for the whole machine:\n  {FOR_ALL}"
        )
    person = Terminal(yes=options.yes)
    found = setting_up.found_settings()
    questions = Questions(options, os.environ, person, plan.earlier(found))
    answers = questions.answers(find_sticks())
    made = plan.plan(_with_certificates(answers), found, _time_zone())
    for service in made.services:
        machine.run([str(commands / f"raven-{service.name}"), "--version"])
    if rivals := list(setting_up.obstacles(made)):
        raise SetupError(
            "the broker here has settings of its own about who is let in:\n  "
            + "\n  ".join(rivals)
            + "\nTake them out, or make accounts there yourself, and say which one to use:"
            "\n  sudo MQTT_URL=mqtt://user:password@localhost raven-setup"
        )
    person.say("\nThis is what will be done:")
    person.say(f"  the stick: {stick(answers.device)}")
    _announce(made, person)
    if person.ask("\nGo on?", "yes").lower() not in ("y", "yes"):
        print("nothing was changed")
        return EXIT_FAILED
    record = Record(print)
    for source, target in _certificates(answers):
        record.write(target, source.read_text("utf-8"), 0o644)
    setting_up.set_up(made, commands, record, print)
    print(_how_to_see(made))
    return 0


def _announce(made: Plan, person: Terminal) -> None:
    packages = setting_up.missing_packages(made)
    if packages:
        person.say(f"  install from Debian: {', '.join(packages)}")
    if made.broker:
        person.say("  the broker (mosquitto) lets in nobody without a password, here too")
    if made.database:
        person.say("  MariaDB gets a database, raven")
    names = ", ".join(f"raven-{service.name}" for service in made.services)
    person.say(f"  services: {names}")
    if made.backup:
        person.say(f"  a backup each night to {made.backup}")


def stick(device: str) -> str:
    """Return which stick will be read, and if its port is not there."""
    is_away = device.startswith("/") and not Path(device).exists()
    return f"{device}, which is not there now" if is_away else device


def _with_certificates(answers: Answers) -> Answers:
    """Return the answers with certificates where the services can read them."""
    copies = {str(source): str(target) for source, target in _certificates(answers)}
    return replace(
        answers,
        mqtt_ca=copies.get(str(answers.mqtt_ca), answers.mqtt_ca),
        upstream_ca=copies.get(str(answers.upstream_ca), answers.upstream_ca),
    )


def _certificates(answers: Answers) -> list[tuple[Path, Path]]:
    """Return which files of certificates are copied where."""
    places = ((answers.mqtt_ca, "mqtt_ca.pem"), (answers.upstream_ca, "upstream_ca.pem"))
    return [(Path(source), SETTINGS / name) for source, name in places if source]


def _time_zone() -> str:
    """Return the machine's time zone by its name, UTC if it has none."""
    place = Path("/etc/localtime").resolve()
    zones = Path("/usr/share/zoneinfo")
    return str(place.relative_to(zones)) if place.is_relative_to(zones) else "UTC"


def _how_to_see(made: Plan) -> str:
    lines = ["", "python-raven runs."]
    if pages := setting_up.found_settings().get(DASHBOARD.name):
        port = pages.get("RAVEN_DASHBOARD_PORT", "8080")
        host = socket.gethostname()
        lines += [
            f"  power, in a browser   http://localhost:{port}",
            f"  its password          {pages['RAVEN_DASHBOARD_PASSWORD']}",
            f"  from another machine  ssh -L {port}:localhost:{port} {host}",
        ]
    lines += [
        f"  this home is called   {made.node}",
        "  the services          sudo systemctl status 'raven-*'",
        "  how the stick is      sudo journalctl -fu raven-reader",
        f"  settings              {SETTINGS}/*.env",
        *(["  a backup at once      sudo systemctl start raven-backup"] if made.backup else []),
        "  take it away again    sudo raven-remove",
    ]
    return "\n".join(lines)


def _remove(options: argparse.Namespace) -> int:
    person = Terminal(yes=options.yes)
    record = Record(print)
    was = plan.earlier(setting_up.found_settings())
    person.say("This removes the services, their settings and accounts.")
    if options.data:
        person.say("It removes all readings on this machine too.")
    if person.ask("Go on?", "no" if not options.yes else "yes").lower() not in ("y", "yes"):
        print("nothing was changed")
        return EXIT_FAILED
    removing.remove(record, print, data=options.data)
    print("\nThis stays:")
    for line in removing.kept(record, was, data=options.data):
        print(f"  {line}")
    return 0
