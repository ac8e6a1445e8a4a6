"""What tests find in the stores: read without the code that they judge."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pymysql
from pymongo.database import Database

from ravenbus.notifications import KINDS
from ravensql.rows import COLUMNS
from ravensql.settings import MysqlUrl


def in_mongo(db: Database[dict[str, Any]], run: str) -> tuple[Counter[str], list[int]]:
    """Return what MongoDB has of a run: a count by kind, and every number in order."""
    kinds: Counter[str] = Counter()
    numbers: list[int] = []
    for kind in KINDS:
        found = [one["seq"] for one in db[kind].find({"hash": run}, {"seq": 1})]
        kinds[kind] += len(found)
        numbers += found
    return +kinds, sorted(numbers)


def in_sql(mysql_url: str, run: str) -> tuple[Counter[str], list[int]]:
    """Return what MySQL has of a run: a count by kind, and every number in order."""
    url = MysqlUrl(mysql_url)
    kinds = {table: "kind" if table == "notification" else f"'{table}'" for table in COLUMNS}
    query = " UNION ALL ".join(
        f"SELECT {kind}, seq FROM {table} WHERE hash = %(run)s"  # noqa: S608 - our names
        for table, kind in kinds.items()
    )
    account = {"user": url.user, "password": url.password, "database": url.database}
    with pymysql.connect(**url.addresses[0]._asdict(), **account) as connection:
        cursor = connection.cursor()
        cursor.execute(query, {"run": run})
        found = cursor.fetchall()
    return Counter(kind for kind, _ in found), sorted(seq for _, seq in found)
