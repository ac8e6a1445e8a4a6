"""What tests of every folder share: one SQL server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
import stack


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
