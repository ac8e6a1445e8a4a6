"""The pages in containers, over each store, and over volumes that are older than they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.compose.project import Project, say, wait_until


def send(
    home: Project, method: str, path: str, body: str = "", **headers: str
) -> tuple[Any, bytes]:
    """Send a request to where the pages are published; return the answer and what it holds."""
    connection = HTTPConnection("127.0.0.1", home.port("dashboard", 8080), timeout=60)
    with closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()


def asked(home: Project, what: str) -> Any:
    """Return what the API answers to the token that was made, once the store is there."""
    token = home.compose("run", "--rm", "credentials", "token").stdout.strip()

    def answered() -> bytes | None:
        answer, body = send(home, "GET", f"/api/v1/{what}", Authorization=f"Bearer {token}")
        assert answer.status in (200, 503), body
        return body if answer.status == 200 else None

    return json.loads(wait_until(answered, "the store is there"))


@pytest.mark.parametrize("profile", ["sql", "mqtt"])
def test_the_pages_show_what_the_store_has(project: Callable[..., Project], profile: str):
    """The password that was made opens them; accounts that are missing in a volume are made."""
    profiles = ("--profile", "demo", "--profile", profile)
    home = project()
    home.up(*profiles)
    home.wait_healthy("reader", "dashboard")
    (found,) = wait_until(lambda: asked(home, "meters")["meters"], "a meter is there")
    now = wait_until(
        lambda: (said := asked(home, f"now?node={found['node']}"))["kw"] is not None and said,
        "its demand is heard",
    )
    say(f"  now: {now['kw']} kW of {found['node']}")
    password = home.compose("run", "--rm", "credentials", "password").stdout.strip()
    opened, _ = send(home, "POST", "/login", urlencode({"password": password}))
    assert (opened.status, opened.headers["location"]) == (303, "./")
    assert send(home, "GET", "/api/v1/meters")[0].status == 401

    store = {"sql": "mysql", "mqtt": "mongo"}[profile]
    if store == "mysql":
        drop = "mysql --defaults-extra-file=/credentials/root.cnf -e \"DROP USER 'dashboard'@'%'\""
    else:
        drop = "echo 'raven.dropUser(\"dashboard\")' >/tmp/x.js; cd /docker-entrypoint-initdb.d; "
        drop += "mongosh --quiet --nodb login.mongodb /tmp/x.js"
    home.all("exec", "-T", store, "sh", "-c", drop)
    home.all("down")
    forget = "rm /made/*dashboard* /for/dashboard/*"
    home.compose("run", "--rm", "--entrypoint", "sh", "credentials", "-c", forget)
    home.up(*profiles)
    home.wait_healthy("reader", "dashboard")
    assert asked(home, "meters")["meters"][0]["node"] == found["node"]
