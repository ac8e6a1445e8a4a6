"""A database of one test's own on MariaDB or another server."""

from __future__ import annotations

import csv
import os
import secrets
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pymysql

from raven_harness import stack
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from tests import judge

from .system import System

# Nobody here is signed by a public authority; loading them all takes 30 ms of each connection.
os.environ["SSL_CERT_FILE"] = os.devnull

DATA = Path(os.environ.get("RAVEN_DATA", stack.ROOT.parent / "shared" / "data"))

LEGACY = """
CREATE TABLE instantaneous_demand (
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, demand INT(11) NOT NULL,
  multiplier INT(11) NOT NULL, divisor INT(11) NOT NULL, run TEXT NOT NULL,
  hash VARCHAR(100) NOT NULL
) ENGINE = %s DEFAULT CHARSET = latin1 COLLATE = latin1_swedish_ci;
CREATE TABLE run_info (
  name VARCHAR(100) NOT NULL, hash VARCHAR(100) NOT NULL, meter_id VARCHAR(100) NOT NULL,
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = %s DEFAULT CHARSET = latin1 COLLATE = latin1_swedish_ci;
"""
OLD_INSERT = (
    "INSERT INTO instantaneous_demand (demand, multiplier, divisor, run, hash) "
    "VALUES (%s, %s, %s, %s, %s)"
)


class Db:
    """A database on the server, with an account that may use nothing else."""

    def __init__(self, admin_url: str) -> None:
        self.server = MysqlUrl(admin_url)
        self.name = f"raven_{uuid.uuid4().hex[:12]}"
        self.user = self.name
        self.password = secrets.token_hex(12)
        self.admin(f"CREATE DATABASE {self.name} CHARACTER SET latin1")
        self.admin(f"CREATE USER {self.user}@'%' IDENTIFIED BY '{self.password}'")
        self.admin(f"GRANT ALL ON {self.name}.* TO {self.user}@'%'")
        ((version,),) = self.admin("SELECT VERSION()")
        self.is_mariadb = "MariaDB" in version

    @property
    def url(self) -> str:
        host = str(self.server.addresses[0])
        return f"mysql://{self.user}:{self.password}@{host}/{self.name}"

    def admin(self, query: str) -> Sequence[tuple[Any, ...]]:
        """Run a statement as the administrator."""
        with closing(self._connect(self.server.user, self.server.password)) as connection:
            return run(connection, query)

    def set_password(self, password: str) -> None:
        """Change what the server takes from the account."""
        self.admin(f"ALTER USER {self.user}@'%' IDENTIFIED BY '{password}'")

    def drop(self) -> None:
        """Leave nothing behind on a server that is not ours."""
        self.admin(f"DROP DATABASE {self.name}")
        self.admin(f"DROP USER {self.user}@'%'")

    def connect(self, **options: Any) -> Any:
        """Return a connection as another program of the same user has it."""
        return self._connect(self.user, self.password, database=self.name, **options)

    def _connect(self, user: str, password: str, **options: Any) -> Any:
        where = self.server.addresses[0]._asdict()
        usual = {"autocommit": True, "read_timeout": 60}
        return pymysql.connect(user=user, password=password, **(where | usual | options))

    def __call__(self, query: str, *args: Any, zone: str = "+00:00") -> Sequence[tuple[Any, ...]]:
        """Run a statement in a session of its own, in UTC."""
        with closing(self.connect(init_command=f"SET time_zone = '{zone}'")) as connection:
            return run(connection, query, *args)

    def sink(self) -> MysqlSink:
        return MysqlSink(MysqlUrl(self.url))

    def insert_legacy(self, file: Path, most: int | None = None) -> None:
        """Insert the rows of a real table of python-raven, or the first so many of them."""
        with file.open(newline="") as lines, closing(self.connect(autocommit=False)) as connection:
            run(connection, "SET time_zone = '+00:00'")
            with connection.cursor() as cursor:
                query = (
                    "INSERT INTO instantaneous_demand (time, demand, multiplier, divisor, run, "
                    "hash) VALUES (%s, %s, %s, %s, %s, '')"
                )
                cursor.executemany(query, list(islice(csv.reader(lines), most)))
            connection.commit()

    def make_legacy(self, engine: str = "InnoDB") -> None:
        for statement in filter(str.strip, LEGACY.split(";")):
            self(statement.replace("%s", engine))


def run(connection: Any, query: str, *args: Any) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, args or None)
        return cursor.fetchall()


class SqlSystem(System):
    """Broker, stick and reader as elsewhere; the store is MariaDB."""

    def __init__(self, folder: Path, mongo: stack.Mongo | None, db: Db, broker: Any = None) -> None:
        super().__init__(folder, mongo, broker=broker)
        self.sql = db
        self.writer = self.another_writer("sql-writer")

    def another_writer(self, name: str) -> stack.Process:
        url = self.broker.url("sql-writer")
        process = stack.sql_writer(self.folder, url, self.sql.url, name, RAVEN_CLIENT_ID=name)
        self.others.append(process)
        return process

    def start_writing(self, *options: str, reader: bool = True) -> None:
        """Start everything; the writer has its subscription before the stick reports."""
        self.broker.start()
        self.writer.start()
        self.wait_for_log(self.writer, "connected to the broker")
        self.plug_in(*options)
        if reader:
            self.reader.start()

    def stored(self) -> tuple[Counter[str], list[int]]:
        return judge.in_sql(self.sql.url, self.accepted()[0])
