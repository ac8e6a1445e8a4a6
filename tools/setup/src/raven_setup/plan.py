"""What a machine gets: which services, with which settings and accounts (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from raven_setup.accounts import made_node, made_password
from raven_setup.units import (
    BACKUP,
    DASHBOARD,
    MONGO_RECORDER,
    READER,
    SQL_RELAY,
    SQL_WRITER,
    Service,
)
from ravenbus.settings import MqttUrl, NodeName

Store = Literal["mysql", "mongo", "server"]
SettingsOf = Mapping[str, Mapping[str, str | None]]
"""By the name of the file without ``.env``; None is a variable that has to go."""

HERE: Final = "localhost"
VERIFY: Final = "verify"
READER_STATE: Final = "/var/lib/raven-reader"
BACKUP_FOLDER: Final = "BACKUP_FOLDER"
STORE_SERVICE: Final[Mapping[Store, Service]] = {"mysql": SQL_WRITER, "mongo": MONGO_RECORDER}


@dataclass(frozen=True)
class Answers:
    """What the person wants."""

    device: str
    store: Store
    node: str | None = None
    mqtt_url: str | None = None
    """A broker elsewhere; None is one on this machine."""
    mqtt_ca: str | None = None
    """File with the certificates to trust there."""
    mysql_url: str | None = None
    """A database elsewhere; None is MariaDB on this machine."""
    mongo_url: str | None = None
    upstream_url: str | None = None
    upstream_ca: str | None = None
    backup: str | None = None
    """Folder for a backup each night; None is no backup."""


@dataclass(frozen=True)
class Plan:
    """What follows from the answers."""

    services: tuple[Service, ...]
    settings: SettingsOf
    node: str
    broker: Mapping[str, str]
    """Passwords of this machine's broker by account; none where it has no broker."""
    database: Mapping[str, str]
    """Passwords of this machine's MariaDB by account."""
    backup: str | None
    """Folder for a backup each night."""


def plan(
    answers: Answers,
    found: Mapping[str, Mapping[str, str]],
    zone: str,
    made: Callable[[], str] = made_password,
) -> Plan:
    """Return what the answers come to; a value that an earlier run or the user set stays.

    ``found`` has the files of settings by name, ``zone`` is the machine's time zone.
    """
    node = (
        answers.node
        or found.get("reader", {}).get("RAVEN_NODE")
        or _account_of(answers.mqtt_url)
        or made_node()
    )

    # What was made for another broker or database is no URL of this one.
    was = earlier(found)
    same_broker = was and (was.mqtt_url, was.node) == (answers.mqtt_url, node)
    same_database = was and was.mysql_url == answers.mysql_url

    def mqtt(name: str, account: str) -> dict[str, str | None]:
        at = found.get(name, {}).get("MQTT_URL")
        if not (at and (same_broker or (not answers.mqtt_url and _is_of(at, account)))):
            at = answers.mqtt_url or f"mqtt://{account}:{quote(made(), '')}@{HERE}"
        return {"MQTT_URL": at, "MQTT_TLS_CA": answers.mqtt_ca}

    def mysql(name: str) -> str:
        at = found.get(name, {}).get("MYSQL_URL")
        if at and (same_database or (not answers.mysql_url and _is_of(at, name))):
            return at
        return answers.mysql_url or f"mysql://{name}:{quote(made(), '')}@{HERE}/raven"

    def stores(name: str) -> dict[str, str | None]:
        return {
            "MYSQL_URL": mysql(name) if answers.store == "mysql" else None,
            "MONGO_URL": answers.mongo_url if answers.store == "mongo" else None,
        }

    # A store that is there first has every reading from the first on.
    services: list[Service] = []
    settings: dict[str, Mapping[str, str | None]] = {
        READER.name: {"RAVEN_DEVICE": answers.device, "RAVEN_NODE": node, **mqtt("reader", node)}
    }
    if answers.store != "server":
        service = STORE_SERVICE[answers.store]
        services += [service, DASHBOARD]
        its = {name: value for name, value in stores(service.name).items() if value}
        settings[service.name] = {**mqtt(service.name, service.name), **its}
        pages = found.get(DASHBOARD.name, {})
        settings[DASHBOARD.name] = {
            **mqtt(DASHBOARD.name, DASHBOARD.name),
            **stores(DASHBOARD.name),
            "RAVEN_DASHBOARD_PASSWORD": pages.get("RAVEN_DASHBOARD_PASSWORD") or made(),
            "RAVEN_TIME_ZONE": pages.get("RAVEN_TIME_ZONE") or zone,
        }
        settings[VERIFY] = {**mqtt(VERIFY, VERIFY), **stores(VERIFY), "RAVEN_STATE": READER_STATE}
    if answers.upstream_url:
        services.append(SQL_RELAY)
        settings[SQL_RELAY.name] = {
            "RAVEN_NODE": node,
            "MYSQL_URL": mysql(SQL_RELAY.name),
            "UPSTREAM_MQTT_URL": answers.upstream_url,
            "UPSTREAM_MQTT_TLS_CA": answers.upstream_ca,
        }
    if answers.backup:
        settings[BACKUP] = {
            BACKUP_FOLDER: answers.backup,
            "RAVEN_CREDENTIALS": "/etc/raven",
            **_kept(SQL_WRITER, "MYSQL_URL", "RAVEN_SQL_ARCHIVE", settings, found),
            **_kept(MONGO_RECORDER, "MONGO_URL", "RAVEN_MONGO_ARCHIVE", settings, found),
        }
    return Plan(
        (*services, READER),
        settings,
        node,
        {} if answers.mqtt_url else _accounts(settings, "MQTT_URL"),
        {} if answers.mysql_url else _accounts(settings, "MYSQL_URL"),
        answers.backup,
    )


def earlier(found: Mapping[str, Mapping[str, str]]) -> Answers | None:
    """Return the answers from which files of settings were made, or None if there are none."""
    if not (reader := found.get(READER.name)):
        return None
    stores: list[Store] = [store for store, one in STORE_SERVICE.items() if one.name in found]
    store = stores[0] if stores else "server"
    relay = found.get(SQL_RELAY.name, {})

    def given(name: str, variable: str) -> str | None:
        """Return a URL that was not made here: those have an account for each service."""
        url = found.get(name, {}).get(variable)
        return None if _is_of(url, name) else url

    return Answers(
        reader.get("RAVEN_DEVICE", "auto"),
        store,
        reader.get("RAVEN_NODE"),
        given(READER.name if store == "server" else STORE_SERVICE[store].name, "MQTT_URL"),
        reader.get("MQTT_TLS_CA"),
        given(SQL_WRITER.name, "MYSQL_URL"),
        found.get(MONGO_RECORDER.name, {}).get("MONGO_URL"),
        relay.get("UPSTREAM_MQTT_URL"),
        relay.get("UPSTREAM_MQTT_TLS_CA"),
        found.get(BACKUP, {}).get(BACKUP_FOLDER),
    )


def _kept(
    service: Service,
    url: str,
    archive: str,
    settings: SettingsOf,
    found: Mapping[str, Mapping[str, str]],
) -> dict[str, str | None]:
    """Return where the backup finds a store and its archived months, None where it is not here."""
    if service.name not in settings:
        return {url: None, archive: None}
    folder = found.get(service.name, {}).get(archive) or f"/var/lib/raven-{service.name}"
    return {url: settings[service.name][url], archive: folder}


def _account_of(url: str | None) -> str | None:
    """Return the account that a URL names, if a home may be called so."""
    try:
        return msgspec.convert(url and MqttUrl(url).username, NodeName)
    except msgspec.ValidationError:
        return None


def _is_of(url: str | None, account: str) -> bool:
    """Say whether a URL is that of an account here."""
    if not url:
        return False
    found = urlsplit(url)
    return found.hostname == HERE and found.username == account


def _accounts(settings: SettingsOf, name: str) -> dict[str, str]:
    """Return the accounts that the services' URLs name, with their passwords."""
    urls = (urlsplit(values.get(name) or "") for values in settings.values())
    return {unquote(url.username): unquote(url.password or "") for url in urls if url.username}
