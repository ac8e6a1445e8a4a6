"""A laboratory's server with both databases, which people reach with programs of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from raven_harness import stack
from ravensql.settings import MysqlUrl
from tests.compose.project import Project, say, wait_until

LABORATORY = ("--profile", "server", "--profile", "server-sql")
HOME = ("--profile", "edge", "--profile", "demo")
FORGET = {
    "mysql": "mysql --defaults-extra-file=/credentials/root.cnf -e \"DROP USER 'analyst'@'%'\"",
    "mongo": "echo 'raven.dropUser(\"analyst\")' >/tmp/x.js; cd /docker-entrypoint-initdb.d; "
    "mongosh --quiet --nodb login.mongodb /tmp/x.js",
}


def to_mysql(url: MysqlUrl, **trust: Any) -> pymysql.Connection:
    """Connect from this host as people do."""
    (address,) = url.addresses
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=url.user,
        password=url.password,
        database=url.database,
        **trust,
    )


def test_people_read_published_databases_over_tls_and_write_nothing(
    project: Callable[..., Project], tmp_path: Path
):
    """Volumes that are older get the account; services go on, over TLS too, and no reading is lost."""
    ports = {"MYSQL_PUBLISH": "", "MONGO_PUBLISH": ""}
    server = project(**ports)
    server.up(*LABORATORY, *HOME)
    server.wait_healthy("sql-writer", "mongo-recorder", "dashboard", "reader")
    assert set(server.ps()) == {
        *("credentials", "broker", "mysql", "mongo", "sql-writer", "mongo-recorder", "dashboard"),
        *("reader", "simulator"),
    }
    stored = server.wait_complete(server.in_mysql, "MySQL", more_than=3)
    for database, forget in FORGET.items():
        server.all("exec", "-T", database, "sh", "-c", forget)

    server.set(**{name: f"127.0.0.1:{stack.free_port()}" for name in ports})
    server.up(*LABORATORY, *HOME)
    server.wait_healthy("mysql", "mongo", "sql-writer", "mongo-recorder", "dashboard", "reader")
    for stored_in, name in ((server.in_mysql, "MySQL"), (server.in_mongo, "MongoDB")):
        server.wait_complete(stored_in, f"{name}, published", more_than=stored + 3)

    urls = server.compose("run", "--rm", "credentials", "analyst", shown=True).stdout.split()
    ca = tmp_path / "ca.pem"
    ca.write_text(server.compose("run", "--rm", "credentials", "ca").stdout)
    mysql, mongo = (url.replace("ca.pem", str(ca)) for url in urls)

    url = MysqlUrl(mysql)
    trust = {"ssl_ca": str(ca), "ssl_verify_cert": True, "ssl_verify_identity": True}
    with closing(to_mysql(url, **trust)) as db, db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM instantaneous_demand")
        ((count,),) = cursor.fetchall()
        assert count > 0
        cursor.execute("SHOW GRANTS")
        granted = [line for (line,) in cursor.fetchall()]
        assert granted == [
            "GRANT USAGE ON *.* TO `analyst`@`%`",
            "GRANT SELECT ON `raven`.* TO `analyst`@`%`",
        ]
        for change in ("DELETE FROM instantaneous_demand", "DROP TABLE notification"):
            with pytest.raises(pymysql.err.OperationalError, match="command denied"):
                cursor.execute(change)
    with pytest.raises(pymysql.err.OperationalError, match="insecure transport"):
        to_mysql(url, ssl_disabled=True)
    say(
        f"  analyst counts {count} demands in MySQL over TLS; without it: refused; writing: refused"
    )

    def counted() -> int | None:
        """The account comes a moment after an older volume's server is there."""
        try:
            return client["raven"]["instantaneous_demand"].count_documents({})
        except OperationFailure:
            return None

    client: MongoClient[dict[str, Any]] = MongoClient(mongo, serverSelectionTimeoutMS=5000)
    with closing(client):
        count = wait_until(counted, "MongoDB has the account")
        with pytest.raises(OperationFailure) as refused:
            client["raven"]["instantaneous_demand"].delete_many({})
        assert refused.value.code == 13
    plain: MongoClient[dict[str, Any]] = MongoClient(
        mongo.partition("?")[0], serverSelectionTimeoutMS=3000
    )
    with closing(plain), pytest.raises(ServerSelectionTimeoutError):
        plain["raven"].list_collection_names()
    say(f"  analyst counts {count} demands in MongoDB over TLS; without it: refused; writing too")
