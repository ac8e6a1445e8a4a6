"""What tests of every folder share: one server of each kind of store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from raven_harness import stack

# The same examples each time, and no time limit: another machine, or a busy one, finds the same.
settings.register_profile(
    "raven",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("raven")

# It is processes that are killed here, never the machine: what they wrote need not reach a disk.
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.MariaDb | None]:
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
def mariadb(mariadb_server: stack.MariaDb | None) -> Iterator[stack.MariaDb | None]:
    """The server, which a test may kill: for the next one it is started again."""
    yield mariadb_server
    if mariadb_server and not mariadb_server.running:
        mariadb_server.start()


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Mongo | None]:
    """A server of our own, or none where MONGO_URL names one."""
    if os.environ.get("MONGO_URL"):
        yield None
        return
    server = stack.Mongo(tmp_path_factory.mktemp("mongo"))
    try:
        server.start()
        yield server
    finally:
        if server.running:
            server.kill()


@pytest.fixture
def mongo(mongo_server: stack.Mongo | None) -> Iterator[stack.Mongo | None]:
    """The server, which a test may kill: for the next one it is started again."""
    yield mongo_server
    if mongo_server and not mongo_server.running:
        mongo_server.start()
