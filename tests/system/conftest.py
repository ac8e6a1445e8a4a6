"""The fixtures: a system, and a database, of each test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raven_harness import stack
from ravensql.sink import MysqlSink

from .sql import Db, SqlSystem
from .system import System


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None) -> Iterator[System]:
    built = System(tmp_path, mongo)
    yield built
    built.close()


@pytest.fixture
def new_db(mariadb: stack.MariaDb | None) -> Iterator[Callable[[], Db]]:
    made: list[Db] = []

    def new() -> Db:
        made.append(Db(mariadb.admin_url if mariadb else os.environ["MYSQL_ADMIN_URL"]))
        return made[-1]

    yield new
    for one in made:
        one.drop()


@pytest.fixture
def db(new_db: Callable[[], Db]) -> Db:
    return new_db()


@pytest.fixture
def sql(tmp_path: Path, mongo: stack.Mongo | None, db: Db) -> Iterator[SqlSystem]:
    built = SqlSystem(tmp_path, mongo, db)
    yield built
    built.close()


@pytest.fixture
def sink(db: Db) -> Iterator[MysqlSink]:
    built = db.sink()
    built.prepare()
    yield built
    built.close()
