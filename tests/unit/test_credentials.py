"""The credentials that `docker compose up` makes."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import credentials
import pytest

from raven_harness import stack
from ravenbus.notifications import KINDS
from ravenbus.settings import SERVICE_ACCOUNTS
from ravensql.rows import COLUMNS

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


SERVER = {"SERVER_NAME": "raven.example.org", "MQTTS_PUBLISH": "8883"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the one-shot over the same volumes again and again."""
    monkeypatch.setattr(os, "chown", lambda *_: None)
    for name in ("made", "own", *(f"for/{service}" for service in credentials.USER_OF)):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "acl").write_text("user health\n")

    def run(**environ: str) -> credentials.Credentials:
        folders = [tmp_path / name for name in ("made", "own", "for", "acl")]
        made = credentials.Credentials(environ, *folders)
        made.hand_out()
        return made

    return run


def contents(folder: Path) -> dict[str, str]:
    """Return what every file of a folder holds; password lines have a new salt each time."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "passwords")
    return {str(file.relative_to(folder)): file.read_text() for file in files}


def test_what_was_made_stays(tmp_path: Path, make):
    """A second start changes nothing."""
    make()
    before = contents(tmp_path)
    make()
    assert contents(tmp_path) == before


def test_every_file_is_for_one_user(tmp_path: Path, make):
    """Nobody but its owner can read a credential."""
    make()
    files = [file for file in tmp_path.glob("for/*/*") if not file.is_symlink()]
    assert files
    assert {file.stat().st_mode & 0o777 for file in [*files, *tmp_path.glob("made/*")]} == {0o600}


def test_the_pages_have_accounts_that_read_alone(tmp_path: Path, make):
    """At the broker, in both databases and at the door; its owner's password takes the place."""
    made = make()
    given = contents(tmp_path / "for" / "dashboard")
    urls = {"mqtt_url", "mysql_url", "mongo_url"}
    trusted = {"mqtt_ca.pem", "mysql_ca.pem", "mongo_ca.pem"}
    assert given.keys() - trusted == {*urls, "password", "token", "notify_urls"}
    assert given["password"] == made.of_dashboard("password")
    (tmp_path / "own" / "dashboard-password").write_text("the owner's own\n")
    make()
    assert contents(tmp_path / "for")["dashboard/password"] == "the owner's own"


@pytest.mark.parametrize("account", ["dashboard", "analyst"])
def test_an_account_that_reads_does_nothing_else(tmp_path: Path, make, account: str):
    """In MySQL and in MongoDB."""
    make()
    rights = [
        line
        for line in (tmp_path / "for/mysql/accounts.sql").read_text().splitlines()
        if line.startswith("GRANT") and f"'{account}'" in line
    ]
    assert rights == [f"GRANT SELECT ON raven.* TO '{account}'@'%';"]
    (its,) = (
        line
        for line in (tmp_path / "for/mongo/accounts.js").read_text().splitlines()
        if f'"{account}"' in line
    )
    assert '"roles": [{"role": "read", "db": "raven"}]' in its


def test_a_published_database_is_reached_over_tls(tmp_path: Path, make):
    """By people under the server's name, by services under its own; the other one stays as it is."""
    server = "raven.example.org"
    made = make(SERVER_NAME=server, MQTTS_PUBLISH="8883", MYSQL_PUBLISH="127.0.0.1:3307")
    mysql, mongo = made.analyst()
    assert mysql.startswith("mysql://analyst:")
    assert mysql.endswith("@raven.example.org:3307/raven?ssl_ca=ca.pem")
    assert mongo.startswith("mongodb://analyst:")
    assert mongo.endswith("@mongo/raven")
    given = contents(tmp_path / "for")
    assert given["sql-writer/mysql_url"].endswith("@mysql/raven?ssl_ca=/credentials/mysql_ca.pem")
    assert given["sql-writer/mysql_ca.pem"] == made.ca()
    assert given["mongo-recorder/mongo_url"].endswith("@mongo/raven")
    assert given["mongo/login.mongodb"].endswith('@localhost/raven?authSource=admin")\n')
    make(MONGO_PUBLISH="27017")
    given = contents(tmp_path / "for")
    trust = "tls=true&tlsCAFile=/credentials/mongo_ca.pem"
    assert given["mongo-recorder/mongo_url"].endswith(f"@mongo/raven?{trust}")
    login = "authSource=admin&tls=true&tlsCAFile=/docker-entrypoint-initdb.d/ca.pem"
    assert given["mongo/login.mongodb"].endswith(f'@localhost/raven?{login}")\n')
    assert given["mongo/tools.yaml"].endswith(f'@localhost/?{login}"\n')
    assert given["sql-writer/mysql_url"].endswith("@mysql/raven")


@pytest.mark.parametrize(("store", "folder"), [("mongo", "/data/db"), ("mysql", "/var/lib/mysql")])
def test_a_database_that_is_made_loses_its_mark(tmp_path: Path, make, store: str, folder: str):
    """The image runs the script after the accounts; where there is no mark, it does no harm."""
    make()
    data = tmp_path / "data"
    data.mkdir()
    (data / ".being-made").touch()
    (data / "table").touch()
    script = (tmp_path / "for" / store / "made.sh").read_text().replace(folder, str(data))
    for _ in range(2):
        subprocess.run(["bash", "-ec", script], check=True)
        assert [one.name for one in data.iterdir()] == ["table"]


def test_the_first_name_is_that_of_the_urls(make):
    """However long, or an address of IPv6; what is none is refused before anything breaks."""
    long = f"{'a' * 60}.example.org"
    for name, host in (
        (long, long),
        ("2001:db8::1, here", "[2001:db8::1]"),
        ("10.0.0.1", "10.0.0.1"),
    ):
        made = make(SERVER_NAME=name, MQTTS_PUBLISH="8883", MYSQL_PUBLISH="3306")
        assert made.account("house-7").endswith(f"@{host}:8883")
        assert f"@{host}:3306/" in next(made.analyst())
    for name in ("https://example.org", "example.org:8883", "müller.example.org", "-subj;x"):
        with pytest.raises(ValueError, match="allowed are names and addresses of this machine"):
            make(SERVER_NAME=name, MQTTS_PUBLISH="8883")


@pytest.mark.skipif(not shutil.which("my_print_defaults"), reason="needs MariaDB's programs")
def test_the_owners_password_of_mysql_is_read_to_the_letter(tmp_path: Path, make):
    """By the check of the container, and by people as root, whatever characters it has."""
    its = r"""a"b\n\s#c'd%e$f;g -- h"""
    (tmp_path / "own" / "mysql-root").write_text(f"{its}\n")
    make()
    file = tmp_path / "for" / "mysql" / "root.cnf"
    command = ["my_print_defaults", f"--defaults-file={file}", "client"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"--password={its}\n" in said


def test_each_server_has_a_certificate_of_its_own(tmp_path: Path, make):
    """For the machine's names and its own, and a key that no other server knows."""
    make(**SERVER)
    keys = set()
    for server in ("broker", "mysql", "mongo"):
        folder = tmp_path / "for" / server
        pem = folder / "server.pem"
        its = ssl._ssl._test_decode_cert(str(pem))["subjectAltName"]  # type: ignore[attr-defined]
        assert {("DNS", "raven.example.org"), ("DNS", server)} <= set(its)
        keys.add((folder / "server.key" if server != "mongo" else pem).read_text())
    assert len(keys) == 3


def test_what_a_newer_version_needs_is_made(tmp_path: Path, make):
    """Volumes of an older version get what they lack and keep what they have."""
    make()
    before = contents(tmp_path)
    for name in ("made/mysql-sql-relay", "for/sql-relay/mysql_url", "made/ca.pem"):
        (tmp_path / name).unlink()
    make()
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert after["for/reader/mqtt_url"] == before["for/reader/mqtt_url"]
    assert after["for/sql-relay/mysql_url"] != before["for/sql-relay/mysql_url"]


def test_the_owners_values_take_the_place_of_ours(tmp_path: Path, make):
    """From the environment or from a file, percent-encoded where they become part of a URL."""
    (tmp_path / "own" / "mqtt-sql-writer").write_text("p@ss/word\n")
    (tmp_path / "own" / "mongo_url").write_text("mongodb://elsewhere/raven\n")
    make(UPSTREAM_MQTT_URL="mqtts://me:x@up")
    found = contents(tmp_path / "for")
    assert found["sql-writer/mqtt_url"] == "mqtt://sql-writer:p%40ss%2Fword@broker"
    assert found["mongo-recorder/mongo_url"] == "mongodb://elsewhere/raven"
    assert found["sql-relay/upstream_mqtt_url"] == "mqtts://me:x@up"


def test_a_node_is_called_as_its_account(tmp_path: Path, make):
    """RAVEN_NODE, else the account at another broker, else a name that is made once."""
    node = tmp_path / "for/reader/node"
    make()
    made = node.read_text()
    assert made.startswith("home-")
    make(MQTT_URL="mqtts://house-7:x@server")
    assert node.read_text() == "house-7"
    make(MQTT_URL="mqtts://me%40home:x@server", RAVEN_NODE="attic")
    assert node.read_text() == "attic"
    make()
    assert node.read_text() == made
    with pytest.raises(ValueError, match="allowed is 1 to 64 letters"):
        make(RAVEN_NODE="no name")
    with pytest.raises(ValueError, match="the account of a service"):
        make(RAVEN_NODE="watcher")


def test_the_services_accounts_are_those_that_no_home_may_have():
    """A container makes the accounts whose names every reader refuses."""
    assert credentials.BROKER_ACCOUNTS == SERVICE_ACCOUNTS


def test_home_assistant_commands_what_its_owner_names(tmp_path: Path, make):
    """This home unless others are named, or none; the lines go on where the access list ends."""
    acl = tmp_path / "for/broker/acl"
    for told, nodes in (
        ({"RAVEN_NODE": "house"}, ["house"]),
        ({"HOME_ASSISTANT_COMMANDS": "house-7, attic"}, ["house-7", "attic"]),
        ({"HOME_ASSISTANT_COMMANDS": ""}, []),
    ):
        make(**told)
        lines = [f"topic write raven/v1/{node}/command" for node in nodes]
        assert acl.read_text().splitlines() == ["user health", *lines]
    with pytest.raises(ValueError, match="allowed is 1 to 64 letters"):
        make(HOME_ASSISTANT_COMMANDS="+")


def test_a_server_is_published(make):
    """Who names a server says on which port others reach it; nobody is cut off without a word."""
    with pytest.raises(ValueError, match="MQTTS_PUBLISH=8883"):
        make(SERVER_NAME="raven.example.org")


def test_a_broker_account_comes_and_goes(tmp_path: Path, make):
    """An account is made once, printed as a URL for the server's name, and can be removed."""
    made = make(**SERVER)
    url = made.account("house-7")
    assert url.startswith("mqtts://house-7:")
    assert url.endswith("@raven.example.org:8883")
    assert made.account("house-7") == url
    passwords = tmp_path / "for/broker/passwords"
    assert "\nhouse-7:$7$" in passwords.read_text()
    made.remove("house-7")
    assert "house-7" not in passwords.read_text()
    with pytest.raises(ValueError, match="no account"):
        made.remove("house-7")


def test_the_certificate_follows_the_servers_names(tmp_path: Path, make):
    """A new name gets a new certificate from the same authority, which clients go on trusting."""
    make()
    ca, first = ((tmp_path / "made" / name).read_text() for name in ("ca.pem", "server.pem"))
    make(SERVER_NAME="raven.example.org, 192.0.2.7", MQTTS_PUBLISH="8883")
    server = tmp_path / "for/broker/server.pem"
    assert (tmp_path / "made/ca.pem").read_text() == ca
    assert server.read_text() != first
    names = ssl._ssl._test_decode_cert(str(server))["subjectAltName"]  # type: ignore[attr-defined]
    assert ("DNS", "raven.example.org") in names
    assert ("IP Address", "192.0.2.7") in names
    ssl.create_default_context(cafile=tmp_path / "made/ca.pem")


def test_the_certificate_is_renewed_in_its_second_half(
    tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch
):
    """At the next start, or when asked; the authority that clients trust stays."""
    server, end = (tmp_path / "for/broker" / name for name in ("server.pem", "server.end"))
    now = time.time()
    made = make()
    ca, first = (tmp_path / "made/ca.pem").read_text(), server.read_text()
    days = (int(end.read_text()) - now) / 86400
    assert 729 < days < 731
    made.renew()
    second = server.read_text()
    assert second != first
    monkeypatch.setattr(credentials.time, "time", lambda: now + 360 * 86400)
    make()
    assert server.read_text() == second
    monkeypatch.setattr(credentials.time, "time", lambda: now + 380 * 86400)
    make()
    assert server.read_text() != second
    assert (tmp_path / "made/ca.pem").read_text() == ca


def test_a_certificate_of_twenty_years_is_replaced(tmp_path: Path, make):
    """Version 1.0 made them so."""
    make()
    names = tmp_path / "made/server.names"
    names.write_text('["localhost", "127.0.0.1", "broker"]')
    before = (tmp_path / "for/broker/server.pem").read_text()
    make()
    assert (tmp_path / "for/broker/server.pem").read_text() != before


def test_an_account_of_mysql_writes_what_is_its_own(tmp_path: Path, make):
    """The relay marks readings and keeps its books; what an older version granted is taken back."""
    make()
    lines = (tmp_path / "for/mysql/accounts.sql").read_text().splitlines()
    relay = [line for line in lines if line.endswith("'sql-relay'@'%';")]
    assert relay[0] == "REVOKE IF EXISTS ALL ON raven.* FROM 'sql-relay'@'%';"
    assert "GRANT SELECT ON raven.* TO 'sql-relay'@'%';" in relay
    written = {line.split(" ON raven.")[1].split()[0] for line in relay if "UPDATE" in line}
    assert written == {
        *COLUMNS,
        *("relay", "relay_run", "relay_store", "relay_waiting", "dead_letter"),
    }


def test_a_relay_of_several_homes_may_write_their_rows_and_no_others(tmp_path: Path, make):
    """With lines of each kind for each of them, after all others; its password stays."""
    made = make()
    (tmp_path / "acl").write_text(stack.ACL.read_text())
    url = made.relay("street", ["house", "barn"])
    assert url.startswith("mqtts://street:")
    acl = (tmp_path / "for/broker/acl").read_text()
    lines = acl.rpartition("user street\n")[2].splitlines()
    assert len(lines) == 2 * (len(KINDS) + 2)
    assert {line.split("/")[2] for line in lines} == {"house", "barn"}
    assert "topic write raven/v1/barn/reading/price_cluster" in lines
    assert "topic read raven/v1/barn/stored/+" in lines
    assert {line.split("/")[3] for line in lines} == {"reading", "run", "stored"}
    assert made.relay("street", ["house"]) == url
    assert "barn" not in (tmp_path / "for/broker/acl").read_text().rpartition("user street")[2]
    made.remove("street")
    assert "user street\n" not in (tmp_path / "for/broker/acl").read_text()


@pytest.mark.parametrize(
    ("name", "nodes"), [("verify", ["house"]), ("street", ["watcher"]), ("street", ["a/b"])]
)
def test_a_relay_is_no_service_and_relays_none(make, name: str, nodes: list[str]):
    """Else a home could be given what a store or the tools may."""
    with pytest.raises(ValueError, match=r"service|letters"):
        make().relay(name, nodes)
