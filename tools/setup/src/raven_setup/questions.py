"""What the person is asked, and what answers it instead: options and the environment."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

import msgspec

from raven_reader.serial_port import DeviceLocation, Stick
from raven_setup.plan import Answers, Store
from raven_setup.units import HIDDEN
from ravenbus.settings import MqttUrl, NodeName
from ravenmongo.settings import MongoUrl
from ravensql.settings import MysqlUrl

STORES: Final[Mapping[Store, str]] = {
    "mysql": "MariaDB on this machine, and pages in a browser",
    "mongo": "a MongoDB whose URL you give, and pages in a browser",
    "server": "a python-raven server elsewhere, whose URL you give",
}


NONE: Final = "none"
NO_BACKUPS: Final = (*(f"{folder}/" for folder in HIDDEN), "/etc/raven/", "/var/lib/raven-")
"""Where no backup can be: what its service does not see, what is in it, what is removed."""


class AnswerError(ValueError):
    """An answer that cannot be used: says what is allowed."""


class Person(Protocol):
    """Who is asked."""

    def say(self, text: str) -> None:
        """Show a line."""

    def ask(self, question: str, default: str) -> str:
        """Return what is answered, the default if nothing is."""


class Questions:
    """Asks what is not known: each answer is an option's, the environment's or a person's."""

    def __init__(
        self,
        options: Namespace,
        environ: Mapping[str, str],
        person: Person,
        earlier: Answers | None,
    ) -> None:
        self._options = options
        self._environ = environ
        self._person = person
        self._earlier = earlier or Answers("auto", "mysql")

    def answers(self, sticks: Sequence[Stick]) -> Answers:
        """Return all answers; raise AnswerError for one that cannot be used."""
        was, told = self._earlier, self._options
        device = told.device or self._environ.get("RAVEN_DEVICE") or self._which_stick(sticks)
        store = cast("Store", told.store or self._where_to())
        node = told.node or self._environ.get("RAVEN_NODE") or was.node
        mqtt_url = self._environ.get("MQTT_URL") or was.mqtt_url
        mongo_url = mysql_url = upstream = None
        if store == "server":
            allowed = "mqtts://house-7:password@server.example.org:8883"
            mqtt_url = self._given("MQTT_URL", "URL of the server", mqtt_url, allowed)
        if store == "mongo":
            allowed = "mongodb://user:password@host/raven"
            mongo_url = self._given("MONGO_URL", "URL of MongoDB", was.mongo_url, allowed)
        if store == "mysql":
            mysql_url = self._environ.get("MYSQL_URL") or was.mysql_url
            upstream = self._environ.get("UPSTREAM_MQTT_URL") or was.upstream_url
        answers = Answers(
            device,
            store,
            node,
            mqtt_url,
            self._certificates("MQTT_TLS_CA", mqtt_url, was.mqtt_ca),
            mysql_url,
            mongo_url,
            upstream,
            self._certificates("UPSTREAM_MQTT_TLS_CA", upstream, was.upstream_ca),
            self._backup(store),
        )
        check(answers)
        return answers

    def _which_stick(self, sticks: Sequence[Stick]) -> str:
        say = self._person.say
        say("Enter alone takes what is in [brackets].\n\nWhich stick?")
        names = [stick.link or stick.path for stick in sticks]
        for number, stick in enumerate(sticks, 1):
            say(f"  {number}     {stick.model} at {stick.path}")
        say("  auto  the one that is plugged in, at whichever port")
        say("  or a port by its name: /dev/serial/by-id/..., socket://host:port (ser2net)")
        if not sticks:
            say("None is plugged in; with auto it is found as soon as it is.")
        answer = self._person.ask("Stick", self._earlier.device)
        is_number = answer.isdecimal() and 1 <= int(answer) <= len(names)
        return names[int(answer) - 1] if is_number else answer

    def _where_to(self) -> str:
        self._person.say("\nWhere do the readings go?")
        for name, meaning in STORES.items():
            self._person.say(f"  {name:8}{meaning}")
        return self._person.ask("Store", self._earlier.store)

    def _backup(self, store: Store) -> str | None:
        folder = self._options.backup or self._earlier.backup
        if store != "server" and not self._options.backup:
            self._person.say("\nBack up each night to which folder?  The last 7 backups stay.")
            self._person.say("  none  no backups")
            self._person.say("  or a folder, as /var/backups/raven; best on another disk")
            folder = self._person.ask("Folder", folder or NONE)
        return None if folder == NONE else folder

    def _given(self, name: str, question: str, was: str | None, example: str) -> str:
        """Return a URL that has to be given."""
        if url := self._environ.get(name):
            return url
        self._person.say(f"\nAs in {example}")
        # What was given before holds a password, and is not shown.
        url = self._person.ask(question, "the one from before" if was else "")
        if not url:
            raise AnswerError(f"{name} is not set: allowed is a URL as {example}")
        return was if was and url == "the one from before" else url

    def _certificates(self, name: str, url: str | None, was: str | None) -> str | None:
        if not (url or "").startswith("mqtts://"):
            return None
        if path := self._environ.get(name):
            return path
        self._person.say(
            "\nWhich file has its certificates, as ca.pem?  None if they are public ones."
        )
        path = self._person.ask("File", was or NONE)
        return None if path == NONE else path


def check(answers: Answers) -> None:
    """Raise AnswerError if an answer cannot be used."""
    if answers.store not in STORES:
        raise AnswerError(f"store {answers.store!r}: allowed is {', '.join(STORES)}")
    urls: Sequence[tuple[str, Callable[[str], object], str | None]] = (
        ("RAVEN_DEVICE", DeviceLocation, answers.device),
        ("RAVEN_NODE", lambda text: msgspec.convert(text, NodeName), answers.node),
        ("MQTT_URL", MqttUrl, answers.mqtt_url),
        ("MYSQL_URL", MysqlUrl, answers.mysql_url),
        ("MONGO_URL", MongoUrl, answers.mongo_url),
        ("UPSTREAM_MQTT_URL", MqttUrl, answers.upstream_url),
    )
    for name, kind, text in urls:
        try:
            if text:
                kind(text)
        except ValueError as error:
            raise AnswerError(f"{name}: {error}") from None
    if answers.backup and (
        not re.fullmatch(r"(/[\w.-]+)+", answers.backup, re.ASCII)
        or f"{answers.backup}/".startswith(NO_BACKUPS)
    ):
        raise AnswerError(
            f"folder for backups {answers.backup!r}: allowed is a path from / on, of letters, "
            f"digits, _, . and -, and not in {', '.join(HIDDEN)} or /etc/raven"
        )
    if answers.backup and (folder := Path(answers.backup)).exists() and folder.stat().st_uid:
        raise AnswerError(
            f"folder for backups '{folder}' is not root's: allowed is one of root's, or a new one"
        )
    for path in (answers.mqtt_ca, answers.upstream_ca):
        if path and not Path(path).is_file():
            raise AnswerError(f"{path}: allowed is a file with certificates")
