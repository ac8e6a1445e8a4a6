"""From a full queue at the broker to stored documents."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from pymongo import ASCENDING, MongoClient, WriteConcern
from pymongo.database import Database

import system
from raven_harness.stack import Broker, Mongo, NoStore, free_port, in_database, recorder
from ravenbus.notifications import KINDS
from ravenmongo import documents
from results import Row, at_most, compared

ROUNDS: Final = 5
MESSAGES: Final = 20_000
BATCH: Final = 500
WINDOW: Final = 2 * BATCH
AIM: Final = 0.9
CPU_AIM_US: Final = 60
POLL_S: Final = 0.05
WITHOUT: Final = "recorder, store that costs nothing"

TEXT: Final = f"""\
## Recorder: from a full queue to stored documents

{MESSAGES:,} readings wait at the broker in the recorder's session.
Median of {ROUNDS} rounds.
The recorder's process is started and its own metrics are read every {POLL_S * 1000:.0f} ms;
the rate is that between the first look that finds something stored and the one that finds all,
and so is the CPU time of its process, in which these looks are.

Two ceilings, each in its own turn of the same round, of which the slower one counts:

- *bare paho*: a process that receives the same messages from a session of its own with the same
  Receive Maximum ({WINDOW}), acknowledges each by hand and does nothing else;
- *bare pymongo*: `insert_many` of the same documents, ready made, into collections with the same
  indexes, in batches of the same {BATCH} messages, unordered, `w=majority`, `j=true`; no MQTT.

The database is SecantusDB, which speaks MongoDB's protocol and syncs each commit here.
The *store that costs nothing* is a process that speaks it too, counts what is inserted by the
lengths of the documents, acknowledges it and keeps nothing; each round compares its count with the
messages.
What the recorder does with it is what the recorder itself can do, beside the same two ceilings.
Where our time goes, by samples of the recorder's stacks: a third is reading and checking messages,
18 % making documents, 17 % pymongo, and 13 % noting which roll-ups are due, which no ceiling has.
Broker, recorder and database share the machine's cores, and so does each ceiling with its server.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    with system.folder() as folder:
        broker = system.broker(folder)
        mongo, nothing = Mongo(folder), NoStore(folder)
        with system.started(broker, mongo, nothing):
            return [
                *_rows("recorder", *_measured(folder, broker, mongo)),
                *_rows(WITHOUT, *_measured(folder, broker, nothing)),
            ]


def _rows(what: str, rates: dict[str, list[float]], cpu_us: list[float]) -> list[Row]:
    slower = [min(both) for both in zip(rates["paho"], rates["pymongo"], strict=True)]
    per_s, ours = f"{what}, messages/s", rates["ours"]
    return [
        compared(per_s, ours, "the slower of the two", slower, AIM),
        compared(per_s, ours, "bare paho", rates["paho"]),
        compared(per_s, ours, "bare pymongo", rates["pymongo"]),
        at_most(f"{what}, CPU a message", cpu_us, CPU_AIM_US, "us"),
    ]


def _measured(
    folder: Path, broker: Broker, store: Mongo | NoStore
) -> tuple[dict[str, list[float]], list[float]]:
    """Return the rates with a store, and microseconds of CPU for a message, of each round."""
    rates: dict[str, list[float]] = defaultdict(list)
    cpu_us: list[float] = []
    with MongoClient[dict[str, Any]](store.url) as server:
        for number in range(ROUNDS):
            for name, rate in _round(folder, broker, store, server, number, cpu_us).items():
                rates[name].append(rate)
    return rates, cpu_us


def _round(
    folder: Path,
    broker: Broker,
    store: Mongo | NoStore,
    server: MongoClient[dict[str, Any]],
    number: int,
    cpu_us: list[float],
) -> dict[str, float]:
    port = free_port()
    url = broker.url("mongo-recorder")
    stored, ceiling = server[f"raven{number}"], server[f"ceiling{number}"]
    ours = recorder(
        folder,
        url,
        in_database(store.url, stored.name),
        RAVEN_METRICS_PORT=str(port),
        RAVEN_BATCH_SIZE=str(BATCH),
    )
    spool = folder / f"{store.name}-{number}.sqlite"
    system.filled_spool(spool, MESSAGES, seed=number)
    system.queued(ours, port, url, broker, spool, MESSAGES, WINDOW)

    def run_ours() -> float:
        per_s, one_us = system.rate(ours, port, "raven_stored_total", MESSAGES, POLL_S)
        cpu_us.append(one_us)
        return per_s

    ceilings = {
        "paho": lambda: system.drained(url, MESSAGES, WINDOW),
        "pymongo": lambda: _insert_many(ceiling, spool),
        "ours": run_ours,
    }
    found = system.in_turn(ceilings, number)
    for database in (stored, ceiling):
        documents = sum(database[kind].estimated_document_count() for kind in KINDS)
        if documents != MESSAGES:
            raise RuntimeError(f"{documents} of {MESSAGES} readings are in {database.name}")
    return found


def _insert_many(database: Database[dict[str, Any]], spool: Path) -> float:
    """Insert the documents as the recorder does, by kind within each batch."""
    readings = system.readings_in(spool)
    for kind in KINDS:
        database[kind].create_index([("meter", ASCENDING), ("time", ASCENDING)])
        database[kind].create_index([("run", ASCENDING), ("time", ASCENDING)])
    database[documents.DEAD_LETTER].create_index([("at", ASCENDING)])
    batches = []
    for at in range(0, MESSAGES, BATCH):
        by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for reading in readings[at : at + BATCH]:
            by_kind[reading.kind].append(documents.of_reading(reading))
        batches.append(by_kind)
    concern = WriteConcern("majority", j=True)
    collections = {kind: database.get_collection(kind, write_concern=concern) for kind in KINDS}
    start = time.perf_counter()
    for by_kind in batches:
        for kind, found in by_kind.items():
            collections[kind].insert_many(found, ordered=False)
    return MESSAGES / (time.perf_counter() - start)
