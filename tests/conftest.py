"""What tests of every folder share: one server of each kind of store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def started_again(server: stack.Server | None) -> Iterator[Any]:
    """Yield a server, and start it again for the next test if this one has killed it."""
    yield server
    if server and not server.running:
        server.start()


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
    """The server, which a test may kill."""
    yield from started_again(mariadb_server)


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
    """The server, which a test may kill."""
    yield from started_again(mongo_server)
