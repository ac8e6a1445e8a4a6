"""The fixtures: a system, and a database, of each test's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stack

from raven_sql_writer.sink import MysqlSink

from .sql import Db, SqlSystem
from .system import System


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    built = System(tmp_path)
    yield built
    built.close()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.MariaDb | None]:
    """A server of our own, or none where MYSQL_ADMIN_URL names one of any make."""
    if os.environ.get("MYSQL_ADMIN_URL"):
        yield None
        return
    options = ["--default-time-zone=-08:00", "--max-allowed-packet=4M"]
    server = stack.MariaDb(tmp_path_factory.mktemp("mariadb"), *options)
    try:
        server.start()
        yield server
    finally:
        if server.running:
            server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


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
def sql(tmp_path: Path, db: Db) -> Iterator[SqlSystem]:
    built = SqlSystem(tmp_path, db)
    yield built
    built.close()


@pytest.fixture
def sink(db: Db) -> Iterator[MysqlSink]:
    built = db.sink()
    built.prepare()
    yield built
    built.close()
