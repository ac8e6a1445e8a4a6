"""The add-on's configuration, by what the Supervisor's own validation takes."""

from __future__ import annotations

import re
import runpy
from typing import Final

import pytest
import yaml
from msgspec import structs

from raven_dashboard.settings import DashboardSettings
from raven_harness import stack
from ravenbus import __version__

CONFIG: Final = yaml.safe_load((stack.ROOT / "config.yaml").read_text())
PROGRAMS: Final = runpy.run_path(str(stack.ROOT / "deploy" / "homeassistant" / "run.py"))[
    "programs"
]

# supervisor/addons/validate.py and supervisor/store/validate.py, as far as we use them.
REQUIRED: Final = {"name", "version", "slug", "description", "arch"}
FORMS: Final = {
    "slug": r"[-_.a-z0-9]+",
    "startup": "initialize|system|services|application|once",
    "boot": "auto|manual|manual_only",
    "url": r"https?://\S+",
    "panel_icon": r"mdi:[a-z-]+",
    "panel_title": r".+",
}
TYPES: Final = {
    "arch": list,
    "init": bool,
    "uart": bool,
    "services": list,
    "timeout": int,
    "ingress": bool,
    "ingress_port": int,
    "ports": dict,
    "ports_description": dict,
    "options": dict,
    "schema": dict,
}
ELEMENT: Final = (
    r"(bool|email|url|port|device(\(.+\))?|(str|password|int|float)(\(\d*,\d*\))?"
    r"|match\(.*\)|list\(.+\))\??"
)


def elements(schema):
    for value in schema.values():
        for one in value if isinstance(value, list) else [value]:
            yield from elements(one) if isinstance(one, dict) else [one]


def test_the_supervisor_takes_the_configuration():
    """Each key is one that it knows, of its type and form."""
    assert REQUIRED <= CONFIG.keys() <= REQUIRED | FORMS.keys() | TYPES.keys()
    for key, form in FORMS.items():
        assert re.fullmatch(form, CONFIG[key]), key
    for key, kind in TYPES.items():
        assert isinstance(CONFIG[key], kind), key
    assert set(CONFIG["arch"]) <= {"aarch64", "amd64"}
    assert all(re.fullmatch(r"(mqtt|mysql):(provide|want|need)", one) for one in CONFIG["services"])
    assert 10 <= CONFIG["timeout"] <= 300
    assert all(re.fullmatch(r"\d+/(tcp|udp)", port) for port in CONFIG["ports"])
    assert CONFIG["ports_description"].keys() <= CONFIG["ports"].keys()
    for one in elements(CONFIG["schema"]):
        assert re.fullmatch(ELEMENT, one), one


def test_an_option_without_a_default_need_not_be_set():
    """A person can start it as it is installed: what has no default is optional."""
    needed = {
        key
        for key, one in CONFIG["schema"].items()
        if not (isinstance(one, list) or one.endswith("?"))
    }
    assert needed == CONFIG["options"].keys()


def test_the_repository_is_one_of_add_ons():
    """It has a name and an address; the add-on's version is the release's."""
    repository = yaml.safe_load((stack.ROOT / "repository.yaml").read_text())
    assert repository.keys() == {"name", "url"}
    assert CONFIG["version"] == __version__


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"raven-reader"}),
        ({"dashboard_password": "correct horse"}, {"raven-reader"}),
        (
            {"mysql_url": "mysql://db/raven"},
            {"raven-reader", "raven-sql-writer", "raven-dashboard"},
        ),
        (
            {"mongo_url": "mongodb://db/raven"},
            {"raven-reader", "raven-mongo-recorder", "raven-dashboard"},
        ),
    ],
)
def test_options_say_what_runs(options, expected):
    """The reader always, a store's service with its URL, the dashboard with a store."""
    found = PROGRAMS({"device": "auto", "mqtt_url": "mqtt://broker", **options}, {"PATH": "/bin"})
    assert found.keys() == expected
    assert all(env["MQTT_URL"] == "mqtt://broker" for env in found.values())
    has_store = len(expected) > 1
    assert (found["raven-reader"].get("RAVEN_STORES") == "none") is not has_store
    assert not {"MYSQL_URL", "MONGO_URL", "RAVEN_DASHBOARD_PASSWORD"} & found["raven-reader"].keys()


@pytest.mark.parametrize("said", [{}, {"dashboard_password": ""}])
def test_a_password_that_is_not_set_is_one_that_nobody_knows(said):
    """Another one at each start; the pages are then seen through the Supervisor alone."""
    options = {"device": "auto", "mqtt_url": "mqtt://broker", "mysql_url": "mysql://db/raven"}
    first, second = (PROGRAMS(options | said, {})["raven-dashboard"] for _ in range(2))
    assert first["RAVEN_DASHBOARD_TRUSTED_PROXY"] == "172.30.32.2"
    assert len(first["RAVEN_DASHBOARD_PASSWORD"]) >= 32
    assert first["RAVEN_DASHBOARD_PASSWORD"] != second["RAVEN_DASHBOARD_PASSWORD"]
    known = PROGRAMS(options | {"dashboard_password": "correct horse"}, {})["raven-dashboard"]
    assert known["RAVEN_DASHBOARD_PASSWORD"] == "correct horse"  # noqa: S105 - the test's own


def test_ingress_leads_to_the_port_at_which_the_dashboard_listens():
    """The same as the one that a person may open, which is closed as it is installed."""
    default = {field.name: field.default for field in structs.fields(DashboardSettings)}
    assert CONFIG["ingress_port"] == default["raven_dashboard_port"]
    assert CONFIG["ports"] == {f"{CONFIG['ingress_port']}/tcp": None}


def test_any_other_setting_can_be_made():
    """By name and value, also one that an option has set."""
    settings = [
        {"name": "RAVEN_STORES", "value": "auto"},
        {"name": "RAVEN_LINK_ASK_S", "value": "60"},
    ]
    env = PROGRAMS({"device": "auto", "mqtt_url": "mqtt://broker", "settings": settings}, {})
    assert env["raven-reader"]["RAVEN_STORES"] == "auto"
    assert env["raven-reader"]["RAVEN_LINK_ASK_S"] == "60"
