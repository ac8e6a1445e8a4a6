"""What a machine gets, by what its person answered and what is there already."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from raven_setup import main
from raven_setup.accounts import BROKER_ACCOUNTS
from raven_setup.plan import Answers, Plan, earlier, plan
from ravenbus.settings import SERVICE_ACCOUNTS

MYSQL = Answers("auto", "mysql", node="house")
MONGO = Answers("auto", "mongo", node="house", mongo_url="mongodb://me:x@db/raven")
SERVER = Answers("auto", "server", mqtt_url="mqtts://house-7:x@server", mqtt_ca="/ca.pem")


def made(answers: Answers, found: Any = None) -> Plan:
    numbers = count(1)
    return plan(answers, found or {}, "Europe/Berlin", lambda: f"made{next(numbers)}")


def held(plan_: Plan) -> dict[str, dict[str, str]]:
    """Return what the files of settings hold after a plan."""
    return {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in plan_.settings.items()
    }


def names(plan_: Plan) -> list[str]:
    return [service.name for service in plan_.services]


def test_each_store_has_its_services_and_the_store_starts_first():
    """So that it has every reading from the first on; a server elsewhere needs the reader alone."""
    assert names(made(MYSQL)) == ["sql-writer", "dashboard", "reader"]
    assert names(made(MONGO)) == ["mongo-recorder", "dashboard", "reader"]
    assert names(made(SERVER)) == ["reader"]
    upstream = replace(MYSQL, upstream_url="mqtts://me:x@up")
    assert "sql-relay" in names(made(upstream))


def test_each_service_has_an_account_of_its_own_here():
    """At the broker and in the database, each with another password."""
    plan_ = made(MYSQL)
    assert set(plan_.broker) == {"house", "sql-writer", "dashboard", "verify"}
    assert set(plan_.database) == {"sql-writer", "dashboard", "verify"}
    passwords = [*plan_.broker.values(), *plan_.database.values()]
    assert len(set(passwords)) == len(passwords)
    settings = held(plan_)
    assert settings["reader"]["MQTT_URL"] == f"mqtt://house:{plan_.broker['house']}@localhost"
    assert settings["dashboard"]["RAVEN_TIME_ZONE"] == "Europe/Berlin"


def test_what_is_elsewhere_gets_no_account_here():
    """Neither a broker, nor a database, whose URL was given; the home is called as its account."""
    plan_ = made(SERVER)
    assert not plan_.broker
    assert not plan_.database
    assert plan_.node == "house-7"
    own = replace(MYSQL, mqtt_url="mqtt://me:x@localhost", mysql_url="mysql://me:x@db/raven")
    assert (made(own).broker, made(own).database) == ({}, {})
    assert held(made(own))["verify"]["MYSQL_URL"] == "mysql://me:x@db/raven"
    assert not made(MONGO).database


@pytest.mark.parametrize(
    "answers",
    [
        MYSQL,
        MONGO,
        SERVER,
        replace(SERVER, mqtt_url="mqtt://house-7:x@localhost:1884", mqtt_ca=None),
        replace(MYSQL, mqtt_url="mqtt://me:x@localhost"),
        replace(MYSQL, mysql_url="mysql://me:x@localhost/mine", node="me"),
        replace(MYSQL, mqtt_url="mqtt://house:x@localhost"),
    ],
)
def test_the_same_answers_again_change_nothing(answers: Answers):
    """They are what is found by default, and no password is made anew."""
    first = made(answers)
    again = earlier(held(first))
    assert again == replace(answers, node=first.node)
    assert made(again, held(first)) == first


def test_what_the_user_changed_stays():
    """A URL of one service, the password of the pages, the time zone."""
    found = held(made(MYSQL))
    found["dashboard"] |= {
        "RAVEN_DASHBOARD_PASSWORD": "my own password",
        "RAVEN_TIME_ZONE": "America/New_York",
        "MYSQL_URL": "mysql://reader:x@replica/raven",
    }
    answers = earlier(found)
    assert answers
    assert held(made(answers, found))["dashboard"] == found["dashboard"]


def test_one_answer_more_changes_nothing_else():
    """A relay besides: what the user wrote into another service's file stays too."""
    found = held(made(MYSQL))
    found["dashboard"]["MYSQL_URL"] = "mysql://reader:x@replica/raven"
    found["verify"]["MQTT_URL"] = "mqtt://verify:x@elsewhere"
    after = held(made(replace(MYSQL, upstream_url="mqtts://me:x@up"), found))
    assert after.pop("sql-relay")
    assert after == found


@pytest.mark.parametrize("account", ["me%40example.org", "dashboard", "dead", ""])
def test_a_home_is_not_called_as_no_home_may_be(account: str):
    """An account of a broker elsewhere can have any name; the home's is made then."""
    url = f"mqtts://{account}:x@server" if account else "mqtts://server"
    assert made(replace(SERVER, mqtt_url=url)).node.startswith("home-")


def test_a_url_that_cannot_be_read_is_told_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Somebody wrote it into a file of settings."""
    found = held(made(MYSQL))
    found["sql-writer"]["MYSQL_URL"] = "mysql://sql-writer:x@[::1/raven"
    monkeypatch.setattr(main, "_require_machine", lambda _: None)
    assert main._run("raven-setup", lambda: bool(earlier(found))) == 1
    assert capsys.readouterr().err == "raven-setup: Invalid IPv6 URL\n"


def test_another_store_leaves_nothing_of_the_one_before():
    """The pages look at the new one, and a server's account is not taken for one here."""
    pages = made(MONGO, held(made(MYSQL))).settings["dashboard"]
    assert pages["MYSQL_URL"] is None
    assert pages["MONGO_URL"] == MONGO.mongo_url
    home = held(made(replace(MYSQL, node=None), held(made(SERVER))))["reader"]
    assert home["MQTT_URL"] == "mqtt://house-7:made1@localhost"
    assert "MQTT_TLS_CA" not in home


def test_a_backup_goes_by_the_accounts_and_folders_of_the_stores():
    """Of those that are here; a folder of months that the user chose is taken, and nothing changes."""
    found = held(made(MYSQL)) | {"dashboard": {"MYSQL_URL": "mysql://reader:x@replica/raven"}}
    found["sql-writer"]["RAVEN_SQL_ARCHIVE"] = "/srv/months"
    answers = earlier(found)
    assert answers
    plan_ = made(replace(answers, backup="/srv/b"), found)
    assert held(plan_)["backup"] == {
        "BACKUP_FOLDER": "/srv/b",
        "RAVEN_CREDENTIALS": "/etc/raven",
        "MYSQL_URL": found["sql-writer"]["MYSQL_URL"],
        "RAVEN_SQL_ARCHIVE": "/srv/months",
    }
    assert held(plan_)["dashboard"]["MYSQL_URL"] == found["dashboard"]["MYSQL_URL"]
    assert plan_.settings["backup"]["MONGO_URL"] is None
    again = earlier(held(plan_))
    assert again
    assert again.backup == "/srv/b"
    mongo = held(made(replace(MONGO, backup="/srv/b")))["backup"]
    assert mongo["RAVEN_MONGO_ARCHIVE"] == "/var/lib/raven-mongo-recorder"
    assert "backup" not in held(made(replace(again, backup=None), held(plan_)))


def test_the_services_accounts_are_those_that_no_home_may_have():
    """Setup makes the accounts whose names every reader refuses."""
    assert BROKER_ACCOUNTS == SERVICE_ACCOUNTS


def test_a_port_that_is_not_there_is_said_before_all_is_done(tmp_path: Path):
    """A typing error looks like it; the stick may also be plugged in later."""
    port = str(tmp_path / "ttyACM0")
    assert main.stick(port) == f"{port}, which is not there now"
    Path(port).touch()
    assert [main.stick(one) for one in (port, "auto")] == [port, "auto"]
