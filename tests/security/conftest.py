"""A site that is attacked: broker, both stores and their databases, shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from raven_harness import stack
from tests.system.sql import Db
from tests.system.system import System

DEPLOYED = (stack.ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text()
PACKET_MAX = int(DEPLOYED.partition("max_packet_size ")[2].split()[0])


class Site(System):
    """A running broker, recorder and writer; ``sql`` is the writer's database."""

    def __init__(self, folder: Path, mongo: stack.Mongo | None, mysql_admin_url: str) -> None:
        super().__init__(folder, mongo, "neighbour")
        with Path(self.broker.command[-1]).open("a") as config:
            config.write(f"max_packet_size {PACKET_MAX}\n")
        self.sql = Db(mysql_admin_url)
        self.writer = stack.sql_writer(folder, self.broker.url("sql-writer"), self.sql.url)
        self.others.append(self.writer)

    def open(self) -> None:
        self.broker.start()
        for store in self.stores:
            store.start()
        for store in self.stores:
            self.wait_for_log(store, "connected to the broker")

    @property
    def stores(self) -> tuple[stack.Process, stack.Process]:
        return self.recorder, self.writer

    def close(self) -> None:
        super().close()
        self.sql.drop()


@pytest.fixture(scope="session")
def mysql_admin_url(mariadb_server: stack.MariaDb | None) -> str:
    return mariadb_server.admin_url if mariadb_server else os.environ["MYSQL_ADMIN_URL"]


@pytest.fixture(scope="session")
def open_site(
    tmp_path_factory: pytest.TempPathFactory, mongo_server: stack.Mongo | None, mysql_admin_url: str
) -> Iterator[Site]:
    built = Site(tmp_path_factory.mktemp("site"), mongo_server, mysql_admin_url)
    try:
        built.open()
        yield built
    finally:
        built.close()


@pytest.fixture
def site(open_site: Site) -> Iterator[Site]:
    """Yield the site; what a test starts beside it ends with the test, passed or not."""
    before = list(open_site.others)
    yield open_site
    for process in open_site.others:
        if process not in before and process.running:
            process.kill()
    open_site.others = before
