"""A database of a store's own for each run, as its bench looks at it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Protocol

import pymysql  # type: ignore[import-untyped]
from pymongo import ASCENDING, MongoClient

import stream
from raven_harness import stack
from raven_harness.stack import MariaDb, Mongo
from ravenbus.history import DEMAND
from ravenbus.messages import Reading
from ravenbus.notifications import KINDS
from ravensql import schema
from ravensql.rows import COLUMNS
from ravensql.settings import MysqlUrl

METER: Final = f"{stream.METER:016x}"


class Store(Protocol):
    """A database of a program's own, as it is looked at."""

    url: str

    def demands(self, since: datetime | None) -> int:
        """Return how many demands there are since a time, by an index: that costs little."""

    def numbers(self, of: Reading) -> list[int]:
        """Return the numbers of a reading's run, each as often as it is there."""

    def close(self) -> None:
        """Close the connection."""


class Tables:
    """Our tables; for a peer without what only we need of them."""

    def __init__(self, server: MariaDb, *, ours: bool) -> None:
        self.url = server.database()
        place = MysqlUrl(self.url)
        schema.migrate(place)
        account = {"user": place.user, "password": place.password, "database": place.database}
        address = place.addresses[0]._asdict()
        self._connection = pymysql.connect(**address, **account, autocommit=True)
        if not ours:
            for table in COLUMNS:
                self._ask(
                    f"ALTER TABLE {table} DROP KEY identity, DROP KEY by_relayed, "
                    "DROP KEY IF EXISTS by_rolled_up REMOVE PARTITIONING"
                )

    def demands(self, since: datetime | None) -> int:
        """Return how many demands there are since a time."""
        query = "SELECT COUNT(*) FROM instantaneous_demand WHERE meter = %s AND time >= %s"
        return int(self._ask(query, METER, since)[0][0])

    def numbers(self, of: Reading) -> list[int]:
        """Return the numbers of a reading's run, each as often as it is there."""
        queries = [f"SELECT seq FROM {table} WHERE hash = %s" for table in COLUMNS]  # noqa: S608 - names are ours
        return [seq for query in queries for (seq,) in self._ask(query, of.envelope.hash)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, query: str, *values: object) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(query, values)
        return cursor.fetchall()


class Documents:
    """Collections by kind; of a peer with the one index that it needs to show them."""

    def __init__(self, server: Mongo, name: str, *, ours: bool) -> None:
        self.url = stack.in_database(server.url, name)
        self._client = MongoClient[dict[str, Any]](self.url)
        self._database = self._client.get_default_database()
        if not ours:
            for kind in KINDS:
                self._database[kind].create_index([("meter", ASCENDING), ("time", ASCENDING)])

    def demands(self, since: datetime | None) -> int:
        """Return how many demands there are since a time."""
        query = {"meter": METER, "time": {"$gte": since}}
        return self._database[DEMAND].count_documents(query)

    def numbers(self, of: Reading) -> list[int]:
        """Return the numbers of a reading's run, each as often as it is there."""
        found = (
            self._database[kind].find({"hash": of.envelope.hash}, {"seq": 1}) for kind in KINDS
        )
        return [int(one["seq"]) for documents in found for one in documents]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
