"""Stores as one would write them in an hour: paho, and PyMySQL or pymongo.

``store_peers.py tables|documents BROKER_URL CLIENT_ID TOPIC STORE_URL BATCH``: readings that a
session holds become rows or documents, committed when so many have come or after a second without
that; each for itself where the batch is 1.  paho acknowledges each as soon as it was handed over.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import pymysql  # type: ignore[import-untyped]
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from pymongo import MongoClient

from ravenbus.settings import MqttUrl
from ravensql.rows import COLUMNS, DERIVED, IDENTITY
from ravensql.settings import MysqlUrl

FLUSH_AFTER_S: Final = 1.0
TIMES: Final = ("time", "received", "claimed_time", "start_time")
PLAIN: Final = {
    table: [name for name in IDENTITY + own if name not in DERIVED]
    for table, own in COLUMNS.items()
}
"""The columns of each table that a reading says something for."""

Reading = dict[str, Any]
Put = Callable[[str, list[Reading]], object]


def tables(url: str) -> tuple[Put, Callable[[], None]]:
    """Return what inserts rows of a table, and what commits them."""
    place = MysqlUrl(url)
    account = {"user": place.user, "password": place.password, "database": place.database}
    connection = pymysql.connect(**place.addresses[0]._asdict(), **account)
    cursor = connection.cursor()
    inserts = {
        table: f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"  # noqa: S608 - names are ours
        for table, names in PLAIN.items()
    }

    def put(kind: str, readings: list[Reading]) -> None:
        table = kind if kind in PLAIN else "notification"
        rows = []
        for reading in readings:
            row = {**reading, "body": None if kind in PLAIN else json.dumps(reading)}
            row |= {name: row[name] and row[name][:-1] for name in TIMES if name in row}
            row["device_time"], row["time"] = row["time"], row["time"] or row["received"]
            rows.append([row[name] for name in PLAIN[table]])
        cursor.executemany(inserts[table], rows)

    return put, connection.commit


def documents(url: str) -> tuple[Put, Callable[[], None]]:
    """Return what inserts documents of a collection, and what has nothing left to do then."""
    database = MongoClient[Reading](url).get_default_database()

    def put(kind: str, readings: list[Reading]) -> None:
        for reading in readings:
            reading |= {
                name: reading[name] and datetime.fromisoformat(reading[name])
                for name in TIMES
                if name in reading
            }
        database[kind].insert_many(readings, ordered=False)

    return put, lambda: None


def main(store: str, url: str, client_id: str, topic: str, store_url: str, batch: str) -> None:
    """Store until SIGTERM."""
    put, commit = {"tables": tables, "documents": documents}[store](store_url)
    size = int(batch)
    waiting: list[Reading] = []
    since = time.monotonic()
    running = True

    def flush() -> None:
        nonlocal since
        by_kind: dict[str, list[Reading]] = defaultdict(list)
        for reading in waiting:
            by_kind[reading["kind"]].append(reading)
        for kind, readings in by_kind.items():
            put(kind, readings)
        commit()
        waiting.clear()
        since = time.monotonic()

    def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
        waiting.append(json.loads(message.payload))
        if len(waiting) >= size:
            flush()

    def end(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, end)
    place = MqttUrl(url)
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
    client.username_pw_set(place.username, place.password)
    client.on_message = on_message
    client.connect(*place.addresses[0])
    client.subscribe(topic, qos=1)
    while running:
        if client.loop(FLUSH_AFTER_S):
            sys.exit("the connection is lost")
        if waiting and time.monotonic() - since > FLUSH_AFTER_S:
            flush()
    if waiting:
        flush()
    client.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
