"""The home that is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from raven_harness import stack
from tests.brokers.brokers import Mosquitto21
from tests.system.sql import Db, SqlSystem


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a disk: MariaDB maps its journal into memory where it is on none."""
    with TemporaryDirectory(prefix="raven-power-", dir="/var/tmp") as made:
        yield Path(made)


@pytest.fixture
def disk(folder: Path) -> Path:
    """The folder that a cut is tried on."""
    made = folder / "disk"
    made.mkdir()
    return made


@pytest.fixture
def server(folder: Path, disk: Path) -> Iterator[stack.MariaDb]:
    """A MariaDB that runs."""
    # strace says of the kernel's own asynchronous writes only that they are.
    made = stack.MariaDb(disk, "--innodb-use-native-aio=0")
    made.log = folder / "mariadb.log"
    made.start()
    yield made
    if made.running:
        made.stop()


@pytest.fixture
def home(folder: Path, disk: Path, server: stack.MariaDb) -> Iterator[SqlSystem]:
    """A home, of which what has to last is on the disk."""
    database = Db(server.admin_url)
    # No document store takes part.
    built = SqlSystem(folder, stack.Mongo(folder), database, broker=Mosquitto21(disk))
    built.reader.env["RAVEN_STATE"] = str(disk / "state")
    yield built
    built.close()
