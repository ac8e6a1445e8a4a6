"""The dashboard's API over real stores and a real broker: what is asked, and what is answered."""

from __future__ import annotations

import csv
import http.client
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote, urlencode, urljoin

import jsonschema
import pytest
import schemathesis
from hypothesis import settings
from pymongo import MongoClient
from schemathesis.specs.openapi.checks import positive_data_acceptance

from raven_dashboard import api
from raven_harness import stack
from ravenbus.messages import Confirmation, Envelope, Item, Reading, Status, encode
from ravenbus.notifications import (
    CurrentSummationDelivered,
    InstantaneousDemand,
    PriceCluster,
    scaled,
)
from ravenbus.topics import LATEST, STATUS, STORED, Topics
from ravenmongo.rollups import RollUps
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from tests.kinds import METER, new_hash

from .sql import Db
from .system import Client, wait_until

NODE = "house"
ZONE = "Europe/Berlin"
PROXY = "127.0.0.2"
HASH = new_hash()
DAY = datetime(2026, 3, 28, 23, tzinfo=UTC)
"""The local 29 March, which has 23 hours."""
SPAN = {"node": NODE, "meter": METER, "from": "2026-03-29", "to": "2026-03-30"}
TARIFF = """
currency = "EUR"
[[tariff]]
valid_from = 2026-01-01
fixed_per_day = 0.5
[[tariff.rate]]
name = "night"
to = "06:00"
price = 0.2
[[tariff.rate]]
name = "day"
price = 0.3
"""
DOCUMENT = api.document()
BOTH = pytest.mark.parametrize("at", ["MySQL", "MongoDB"], indirect=True)


def reading(seq: int, at: datetime, kind: type, **said: Any) -> Reading:
    envelope = Envelope(node=NODE, run="r", hash=HASH, seq=seq, received=at)
    common = {"device": None, "meter": METER, "time": at.replace(microsecond=0)}
    return Reading(envelope, kind(**common, **said))


def demand(seq: int, at: datetime, watts: int) -> Reading:
    scale = {"multiplier": 1, "divisor": 1000}
    return reading(
        seq, at, InstantaneousDemand, demand=watts, demand_kw=scaled(watts, 1, 1000), **scale
    )


def registers(seq: int, at: datetime, delivered: int, received: int) -> Reading:
    kwh = {"delivered_kwh": scaled(delivered, 1, 1000), "received_kwh": scaled(received, 1, 1000)}
    raw = {"summation_delivered": delivered, "summation_received": received}
    return reading(seq, at, CurrentSummationDelivered, multiplier=1, divisor=1000, **raw, **kwh)


def past() -> list[Item]:
    """Return the day: 1 kWh an hour taken, from 1 kW to 1.22 kW, and 2 kW at last."""
    found: list[Item] = []
    for hour in range(-1, 24):
        at = DAY + timedelta(hours=hour)
        found.append(registers(2 * hour + 3, at, 5000 + 1000 * hour, 700))
        found.append(demand(2 * hour + 4, at, 1000 + 10 * hour))
    return [*found, demand(100, DAY + timedelta(hours=22, minutes=59), 2000)]


class Dashboard:
    """The service, its broker and who asks it."""

    def __init__(self, folder: Path, **store: str) -> None:
        self.password, self.token = secrets.token_hex(8), secrets.token_hex(16)
        self.metrics = stack.free_port()
        self.broker = stack.Broker(folder, [NODE, "dashboard", "mongo-recorder", "watcher"])
        self.process = stack.dashboard(
            folder,
            self.broker.url("dashboard"),
            RAVEN_TIME_ZONE=ZONE,
            RAVEN_DASHBOARD_PASSWORD=self.password,
            RAVEN_DASHBOARD_TOKEN=self.token,
            RAVEN_DASHBOARD_TRUSTED_PROXY=PROXY,
            RAVEN_HEALTH_FILE=str(folder / "health"),
            RAVEN_METRICS_PORT=str(self.metrics),
            **store,
        )
        (folder / "tariff.toml").write_text(TARIFF)
        self.process.env["RAVEN_TARIFF"] = str(folder / "tariff.toml")
        self.health = folder / "health"
        self.broker.start()
        self.process.start()

    def send(
        self, method: str, path: str, body: str = "", *, source: str = "", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.process.port, timeout=60, source_address=(source, 0)
        )
        with closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            answer = connection.getresponse()
            return answer, answer.read()

    def get(self, what: str, status: int = 200, /, **query: str) -> Any:
        """Ask the API with the token; require that the answer is as the document says."""
        path = f"/api/v1/{what}?{urlencode(query)}"
        answer, body = self.send("GET", path, Authorization=f"Bearer {self.token}")
        assert answer.status == status, body
        require_as_documented(what, answer, body)
        return body.decode() if what == "csv" and status == 200 else json.loads(body)

    def close(self) -> None:
        for one in (self.process, self.broker):
            if one.running:
                one.kill()


def require_as_documented(what: str, answer: http.client.HTTPResponse, body: bytes) -> None:
    responses = DOCUMENT["paths"][f"/{what}"]["get"]["responses"]
    kind = str(answer.headers["content-type"]).partition(";")[0]
    schema = responses[str(answer.status)]["content"][kind]["schema"]
    if "json" in kind:
        jsonschema.validate(
            json.loads(body),
            {**schema, "components": DOCUMENT["components"]},
            jsonschema.Draft202012Validator,
        )


@pytest.fixture
def at(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    db: Db,
    mongo: stack.Mongo | None,
) -> Iterator[Dashboard]:
    """A dashboard over the store that the test names, filled."""
    if request.param == "MySQL":
        with closing(db.sink()) as sink:
            sink.prepare()
            sink.store(past())
        built = Dashboard(tmp_path, MYSQL_URL=db.url)
    else:
        assert mongo, "a server of yours is not filled"
        url = stack.in_database(mongo.url, f"raven_{secrets.token_hex(6)}")
        with closing(MongoSink(url)) as sink, closing(RollUps(MongoUrl(url), Event())) as counting:
            sink.prepare()
            sink.store(past())
            counting.count_due()
        built = Dashboard(tmp_path, MONGO_URL=url)
    yield built
    built.close()
    if request.param == "MongoDB":
        with MongoClient[Any](url) as client:
            client.drop_database(client.get_default_database())


@BOTH
def test_what_a_store_has_is_answered(at: Dashboard):
    """By steps, in sum, by key and as a file; of a day of 23 hours, from either store alike."""
    assert at.get("meters") == {
        "zone": ZONE,
        "meters": [
            {
                "node": NODE,
                "meter": METER,
                "first": "2026-03-28T22:00:00Z",
                "last": "2026-03-29T22:05:00Z",
            }
        ],
    }
    energy = at.get("energy", step="hour", **SPAN)
    assert energy["step"] == "hour"
    assert len(energy["start"]) == len(energy["end"]) == 23
    assert energy["start"][0] == DAY.timestamp()
    assert energy["delivered_kwh"] == [1.0] * 23
    assert energy["received_kwh"] == [0.0] * 23
    kw = at.get("demand", step="hour", **SPAN)
    assert kw["mean_kw"][:22] == [round(1 + hour / 100, 2) for hour in range(22)]
    assert kw["max_kw"][22] == 2.0
    assert at.get("demand", step="day", **SPAN)["start"] == [DAY.timestamp()]
    quiet = at.get("demand", **SPAN | {"from": "2026-03-30", "to": "2026-03-31"}, step="hour")
    assert quiet["mean_kw"][1:] == [None] * 23
    # The night has five hours, for an hour is left out; each hour's kWh was read at its end.
    assert energy_cost(at, "hour")[:6] == pytest.approx([0.2] * 5 + [0.3])
    assert energy_cost(at, "day") == pytest.approx([0.2 * 5 + 0.3 * 18 + 0.5])
    summary = at.get("summary", **SPAN)
    assert (summary["cost"], summary["currency"]) == (pytest.approx(6.9), "EUR")
    assert summary["delivered_kwh"] == 23.0
    assert summary["peak"] == {"kw": 2.0, "at": "2026-03-29T21:55:00Z"}
    assert summary["base_load_kw"] == 1.0
    by = at.get("by", key="weekday", **SPAN)
    assert (by["key"], by["delivered_kwh"]) == ([6], [23.0])
    assert at.get("by", key="hour", **SPAN)["key"] == [h for h in range(24) if h != 2]
    by = at.get("by", key="price", **SPAN)
    assert (by["key"], by["currency"]) == (["night", "day"], "EUR")
    assert (by["delivered_kwh"], by["cost"]) == ([5.0, 18.0], pytest.approx([1.0, 5.4]))
    del (only := dict(SPAN))["meter"]
    assert at.get("summary", **only) == summary


def energy_cost(at: Dashboard, step: str) -> list[float | None]:
    cost: list[float | None] = at.get("energy", **SPAN, step=step)["cost"]
    return cost


@BOTH
def test_a_file_has_all_steps_however_long_the_span(at: Dashboard):
    """Two years of hours; what is not known is empty, and no cell is one that computes."""
    long = SPAN | {"from": "2025-01-01", "to": "2027-01-01"}
    rows = list(csv.reader(at.get("csv", what="energy", step="hour", **long).splitlines()))
    assert rows[0] == ["start", "delivered_kwh", "received_kwh"]
    assert len(rows) == 1 + 2 * 365 * 24
    found = {row[0]: row[1:] for row in rows[1:]}
    assert len(found) == len(rows) - 1
    assert found["2026-03-29T03:00:00+02:00"] == ["1", "0"]
    assert found["2026-03-31T00:00:00+02:00"] == ["", ""]
    assert sum(float(row[1]) for row in rows[1:] if row[1]) == 24.0
    assert {cell[:1] for row in rows[1:] for cell in row} <= set("0123456789") | {""}


@BOTH
def test_sums_are_a_file_too(at: Dashboard):
    """With what the answer has that the page shows."""
    found = at.get("by", key="hour", **SPAN)
    head, *rows = csv.reader(at.get("csv", what="hour", **SPAN).splitlines())
    assert head == ["hour", "delivered_kwh", "received_kwh", "mean_kw", "cost", "currency"]
    for name, column in zip(["key", *head[1:4]], zip(*rows, strict=True), strict=False):
        assert [float(cell) if cell else None for cell in column] == found[name]


@BOTH
def test_what_homes_say_is_shown_as_they_say_it(at: Dashboard):
    """A reading is on an open page at once; now, homes, chain and metrics have the same."""
    home, store = Client(at.broker.url(NODE)), Client(at.broker.url("mongo-recorder"))
    topics, now = Topics(), datetime.now(UTC)
    wait_until(
        lambda: "broker" in [p["name"] for p in at.get("chain")["parts"] if p["state"] == "ok"],
        "the dashboard hears the broker",
    )
    said = demand(7, now, -1234)
    price = reading(
        8, now, PriceCluster, price=25, trailing_digits=2, price_per_kwh=0.25, currency=978
    )
    status = Status(node=NODE, service="online", device="silent", since=now, version="1.1.0")
    connection = http.client.HTTPConnection("127.0.0.1", at.process.port, timeout=60)
    with closing(connection):
        token = {"Authorization": f"Bearer {at.token}"}
        connection.request("GET", "/api/v1/live?node=house", headers=token)
        stream = connection.getresponse()
        assert stream.headers["content-type"].startswith("text/event-stream")
        stream.readline()
        home.publish(topics.of(STATUS, node=NODE), b"no JSON")
        home.publish(topics.of(LATEST, node=NODE, kind="price_cluster"), encode(price))
        home.publish(topics.of(LATEST, node=NODE, kind="instantaneous_demand"), encode(said))
        home.publish(topics.of(STATUS, node=NODE), encode(status))
        events: dict[str, Any] = {}
        while "state" not in events:
            if (line := stream.readline()).startswith(b"event: "):
                name = line.removeprefix(b"event: ").strip().decode()
                events[name] = json.loads(stream.readline().removeprefix(b"data: "))
    told = {"kind": "instantaneous_demand", "kw": -1.234, "direction": "exporting"}
    assert told.items() <= events["reading"].items()
    assert [one["level"] for one in events["state"]["states"]] == ["alarm"]
    confirmed = Confirmation(node=NODE, store="raven-mongo-recorder", runs={HASH: [(1, 8)]})
    store.publish(topics.of(STORED, node=NODE, store="raven-mongo-recorder"), encode(confirmed))

    assert wait_until(lambda: at.get("homes")["homes"][0]["complete_percent"], "it is confirmed")
    found = at.get("now", node=NODE)
    assert (found["kw"], found["direction"]) == (-1.234, "exporting")
    assert found["price"] == {"value": 0.25, "currency": "EUR"}
    assert "silent" in found["states"][0]["text"]
    (line,) = at.get("homes")["homes"]
    assert (line["node"], line["now_kw"], line["complete_percent"]) == (NODE, -1.234, 100.0)
    assert line["version"] == "1.1.0"
    chain = at.get("chain")
    assert (chain["node"], chain["nodes"], chain["dead_letters"]) == (NODE, [NODE], [])
    parts = {part["name"]: part["state"] for part in chain["parts"]}
    assert parts["stick"] == "alarm"
    assert parts["broker"] == parts["raven-mongo-recorder"] == "ok"
    lines = (stack.metrics(at.metrics) or "").splitlines()
    assert 'raven_home_unconfirmed{node="house",store="raven-mongo-recorder"} 0.0' in lines
    assert 'raven_home_clock_problem{node="house"} 0.0' in lines
    for client in (home, store):
        client.connection.close()


def test_a_store_that_is_away_is_said_and_comes_back(
    tmp_path: Path, db: Db, mariadb: stack.MariaDb | None
):
    """What is live goes on; history is refused with a reason, and answered once it is back."""
    if mariadb is None:
        pytest.skip("a server of yours is not killed")
    with closing(db.sink()) as sink:
        sink.prepare()
        sink.store(past())
    with closing(Dashboard(tmp_path, MYSQL_URL=db.url)) as at:
        assert at.get("summary", **SPAN)["delivered_kwh"] == 23.0
        mariadb.kill()
        now = at.get("now", node=NODE, meter=METER)
        assert now["states"][0]["level"] == "alarm"
        assert now["states"][0]["text"].startswith("The store cannot be read: MySQL is away")
        assert at.get("homes")["homes"] == []
        chain = at.get("chain")
        assert chain["dead_letters"] is None
        assert chain["parts"][-1]["state"] == "alarm"
        assert "MySQL is away" in at.get("summary", 503, **SPAN)["detail"]
        wait_until(lambda: "store" in problems(at), "the health says it")
        mariadb.start()
        assert at.get("summary", **SPAN)["delivered_kwh"] == 23.0
        wait_until(lambda: problems(at) == {}, "the service is well")
        at.broker.kill()
        wait_until(lambda: "broker" in problems(at), "the broker's absence is said")
        assert at.get("now", node=NODE)["states"][0]["text"].startswith("The broker has been away")


def problems(at: Dashboard) -> Any:
    return json.loads(at.health.read_text())["problems"]


@pytest.fixture(scope="module")
def door(
    tmp_path_factory: pytest.TempPathFactory, mongo_server: stack.Mongo | None
) -> Iterator[Dashboard]:
    """A dashboard over a store with nothing in it, which many tests ask."""
    assert mongo_server, "a server of yours is not asked"
    url = stack.in_database(mongo_server.url, f"raven_{secrets.token_hex(6)}")
    built = Dashboard(tmp_path_factory.mktemp("door"), MONGO_URL=url)
    yield built
    built.close()


@pytest.mark.parametrize(
    ("what", "changes", "said"),
    [
        ("energy", {"step": "week"}, "step: 'week' cannot be used: allowed is auto, raw, 5min"),
        ("energy", {"from": "yesterday"}, "from: 'yesterday' cannot be used: allowed is a day as"),
        ("energy", {"to": "2026-03-29"}, "from is not before to: allowed is"),
        ("energy", {"to": "9999-12-31"}, "of the years 1971 to 8999"),
        (
            "demand",
            {"from": "2020-01-01", "step": "5min"},
            "too far apart for steps of 5min: allow",
        ),
        ("by", {"key": "color"}, "key: 'color' cannot be used: allowed is hour, weekday, month"),
        ("csv", {"what": "=1+1"}, "what: '=1+1' cannot be used: allowed is demand, energy, hour"),
        ("now", {"node": ""}, "node is missing"),
    ],
)
def test_what_cannot_be_answered_says_what_is_allowed(
    door: Dashboard, what: str, changes: dict[str, str], said: str
):
    """Status 400 with a sentence, as a problem of RFC 9457."""
    found = door.get(what, 400, **SPAN | changes)
    assert found["status"] == 400
    assert said in found["detail"]


@schemathesis.openapi.from_dict(DOCUMENT).exclude(path=["/live", "/csv"]).parametrize()
@settings(max_examples=25, derandomize=True, database=None, deadline=None)
def test_no_question_breaks_it(door: Dashboard, case: schemathesis.Case):
    """Whatever stands in a query, the answer is one that the document has, and no failure.

    What streams may be longer than anybody waits for.
    """
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{door.process.port}/api/v1",
        headers={"Authorization": f"Bearer {door.token}"},
        # No schema can say that a span begins before it ends, nor how many steps it may have.
        excluded_checks=[positive_data_acceptance],
    )


def test_a_price_is_not_sought_for_millennia(door: Dashboard):
    """A tariff has some for each day: beyond thirty years there is no cost, and an answer."""
    ages = SPAN | {"to": "8998-01-01"}
    assert door.get("summary", **ages)["cost"] is None
    assert door.get("by", **ages, key="price")["key"] == []


def test_the_document_can_be_fetched_and_nothing_is_beyond_it(door: Dashboard):
    """Other methods and addresses are problems too, and each answer has its headers."""
    token = {"Authorization": f"Bearer {door.token}"}
    answer, body = door.send("GET", "/api/openapi.json", **token)
    assert json.loads(body) == DOCUMENT
    answer, body = door.send("GET", "/api/v1/homes", **token)
    tag = answer.headers["etag"]
    again, body = door.send("GET", "/api/v1/homes", If_None_Match=tag, **token)
    assert (again.status, body) == (304, b"")
    for method, path, status in (
        ("POST", "/api/v1/homes", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/static/../web.py", 404),
        ("GET", "/static/%2e%2e/web.py", 404),
    ):
        answer, body = door.send(method, path, **token)
        assert answer.status == status, path
        assert json.loads(body)["status"] == status
        assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_nobody_sees_anything_without_the_password_or_the_token(door: Dashboard):
    """Pages lead to the login, and on; the API, its document and the stream are refused."""
    for path in ("/api/v1/meters", "/api/v1/live", "/api/openapi.json", "/api/nothing"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "raven=9999999999.x.y"}):
            answer, body = door.send("GET", path, **headers)
            assert answer.status == 401, path
            assert "allowed" in json.loads(body)["detail"].lower()
    answer, _ = door.send("GET", "/history?node=house")
    assert answer.headers["location"] == "login?next=%2Fhistory%3Fnode%3Dhouse"
    session = log_in(door)
    assert {"HttpOnly", "SameSite=strict"} <= set(session.split("; "))
    assert "Secure" not in session
    assert "Secure" in log_in(door, X_Forwarded_Proto="https").split("; ")
    cookie = session.partition(";")[0]
    assert door.send("GET", "/", Cookie=cookie)[0].status == 200
    assert door.send("GET", "/api/v1/meters", Cookie=cookie)[0].status == 200
    changed = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    assert door.send("GET", "/api/v1/meters", Cookie=changed)[0].status == 401


def test_the_trusted_proxy_is_known_by_its_connection_alone(door: Dashboard):
    """It needs no password; who writes its address in a header does."""
    for path in ("/", "/api/v1/meters"):
        assert door.send("GET", path, source=PROXY)[0].status == 200
        for source in ("127.0.0.1", "127.0.0.3"):
            said = {"X_Forwarded_For": PROXY, "X_Ingress_Path": "/x", "Forwarded": f"for={PROXY}"}
            answer, _ = door.send("GET", path, source=source, **said)
            assert answer.status in (303, 401)
            assert answer.headers["x-frame-options"] == "DENY"


def test_no_answer_leads_out_of_the_path_of_a_proxy(door: Dashboard):
    """A redirect is relative, and a page that is written with a slash at its end is none."""
    for path in ("/", "/history/", "/a/b/c"):
        answer, _ = door.send("GET", path)
        there = urljoin(f"https://proxy.example/under{path}", answer.headers["location"])
        assert there.startswith("https://proxy.example/under/login?")
    for path in ("/history/", "/static", "/api/v1/meters/"):
        assert door.send("GET", path, source=PROXY)[0].status == 404


def log_in(at: Dashboard, password: str = "", target: str = "/", **headers: str) -> str:
    form = f"password={quote(password or at.password)}&next={quote(target)}"
    answer, _ = at.send("POST", "/login", form, **headers)
    assert answer.status == 303
    return answer.headers["set-cookie"] or answer.headers["location"]


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil", "/\r\nX: y", "/../evil", "/static/evil"],
)
def test_a_login_leads_to_a_page_of_ours_alone(door: Dashboard, target: str):
    """However another address is written."""
    form = f"password={door.password}&next={quote(target)}"
    answer, _ = door.send("POST", "/login", form)
    assert answer.headers["location"] == "./"
    assert answer.headers["x"] is None


def test_another_site_logs_nobody_in_or_out(door: Dashboard):
    """A form that another page sends is refused."""
    for path in ("/login", "/logout"):
        cookie = log_in(door).partition(";")[0]
        headers = {"Origin": "https://evil.example", "Cookie": cookie}
        answer, _ = door.send("POST", path, f"password={door.password}", **headers)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_guessing_is_slow(tmp_path: Path, mongo: stack.Mongo | None):
    """After some wrong passwords the next is not looked at for a while, not even the right one.

    Whom a proxy of this machine names as another need not wait.
    """
    assert mongo, "a server of yours is not asked"
    with closing(Dashboard(tmp_path, MONGO_URL=mongo.url)) as at:
        places = [log_in(at, f"wrong-{number}") for number in range(12)]
        assert all(place.startswith("login?wrong=") for place in places)
        assert log_in(at).startswith("login?wrong=")
        assert log_in(at, X_Forwarded_For="192.0.2.9").startswith("raven=")
        assert "wrong-1" not in at.process.text()
        assert at.password not in at.process.text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "MYSQL_URL and MONGO_URL are not set: allowed is one or both"),
        ({"RAVEN_TIME_ZONE": "Mars/Base"}, "RAVEN_TIME_ZONE: 'Mars/Base' cannot be used: allowed"),
        (
            {"RAVEN_DASHBOARD_PASSWORD": "short"},
            "what it holds (not shown) cannot be used: allowed",
        ),
        (
            {"RAVEN_DASHBOARD_TRUSTED_PROXY": "supervisor"},
            "'supervisor' cannot be used: allowed is an IPv4 address, as 172.30.32.2",
        ),
        ({"RAVEN_DASHBOARD_TOKEN": "short"}, "allowed is 16 to 1024 visible ASCII characters"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    tmp_path: Path, settings: dict[str, str], said: str
):
    """Status 78, before anything listens."""
    usual = {"RAVEN_DASHBOARD_PASSWORD": "long enough", "MONGO_URL": "mongodb://localhost"}
    process = stack.dashboard(
        tmp_path,
        "mqtt://localhost",
        **((usual | settings) if settings else {"RAVEN_DASHBOARD_PASSWORD": "long enough"}),
    )
    stack.Process.start(process)
    assert process.wait() == 78
    assert said in process.text()


def test_an_address_that_is_taken_is_named(door: Dashboard, tmp_path: Path):
    """Status 1, with the settings to look at."""
    again = {
        **door.process.env,
        "RAVEN_HEALTH_FILE": str(tmp_path / "health"),
        "RAVEN_METRICS_PORT": "0",
    }
    second: Callable[..., stack.Server] = stack.dashboard
    process = second(tmp_path, door.broker.url("dashboard"))
    process.env = again
    stack.Process.start(process)
    assert process.wait() == 1
    assert "RAVEN_DASHBOARD_HOST and RAVEN_DASHBOARD_PORT" in process.text()


def test_it_ends_at_once_with_pages_open(door: Dashboard, tmp_path: Path):
    """SIGTERM ends it, with status 0, whoever listens; it says so."""
    at = Dashboard(tmp_path, MONGO_URL=door.process.env["MONGO_URL"])
    with closing(at), closing(http.client.HTTPConnection("127.0.0.1", at.process.port)) as open_:
        open_.request("GET", "/api/v1/live", headers={"Authorization": f"Bearer {at.token}"})
        open_.getresponse().readline()
        assert at.process.stop() == 0
        assert "stopped" in at.process.text()
