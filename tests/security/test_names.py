"""What an operator may call a run: refused at the start in one clear line, or stored as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raven_harness import stack
from ravenbus.settings import SERVICE_ACCOUNTS
from tests.system.system import wait_until
from tests.unit.reader.examples import demand

from .conftest import Site
from .test_stick import Stick

REFUSED = {
    "a line": "a\n2026-01-01T00:00:00.000Z info raven-reader: forged",
    "an escape": "\x1b[2J",
    "delete": "\x7f",
    "10,000 characters": "x" * 10_000,
    "not UTF-8": "\udcff\udcfe",
}
TAKEN = '\'; DROP TABLE run_info; -- {"$gt": ""} $where \u202e\x9b2J\u2028 \U0001f50c\\'


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_name_that_cannot_be_used_stops_the_start(tmp_path: Path, name: str):
    """Status 78 and one line, which the name can neither end nor fill."""
    env = {"RAVEN_RUN": name, "RAVEN_STATE": str(tmp_path)}
    reader = stack.Process("reader", [str(stack.BIN / "raven-reader"), "run"], tmp_path, env)
    reader.start()
    assert reader.wait() == 78
    (line,) = reader.text().splitlines()
    assert line.startswith("raven-reader: RAVEN_RUN")
    assert "allowed is" in line
    assert line.isprintable()
    assert len(line) < 400


@pytest.mark.parametrize("name", SERVICE_ACCOUNTS)
def test_no_home_is_called_like_an_account_of_a_service(tmp_path: Path, name: str):
    """Its messages would be allowed what the service is allowed."""
    env = {"RAVEN_NODE": name, "RAVEN_STATE": str(tmp_path)}
    reader = stack.Process("reader", [str(stack.BIN / "raven-reader"), "run"], tmp_path, env)
    reader.start()
    assert reader.wait() == 78
    assert reader.text().startswith(f"raven-reader: RAVEN_NODE: '{name}' cannot be used: allowed")


@pytest.fixture
def stick() -> Iterator[Stick]:
    built = Stick()
    yield built
    built.close()


def test_an_odd_name_is_stored_as_it_is(site: Site, tmp_path: Path, stick: Stick):
    """SQL, operators, marks and four bytes go from the setting into both stores unchanged."""
    reader = stack.reader(
        tmp_path,
        stick.address,
        site.broker.url("neighbour"),
        "neighbour",
        RAVEN_RUN=TAKEN,
        RAVEN_MAX_CLOCK_SKEW_S="0",
    )
    site.run_process(reader)
    stick.send(demand())
    run, _ = wait_until(
        lambda: found if (found := stack.accepted(tmp_path, "neighbour"))[1] else None,
        "the reading is accepted",
    )
    stored = wait_until(lambda: site.db["instantaneous_demand"].find_one({"hash": run}), "stored")
    assert stored["run"] == TAKEN
    wait_until(lambda: site.db["runs"].find_one({"_id": run, "run": TAKEN}), "the run is stored")
    query = "SELECT d.run, r.name FROM instantaneous_demand d JOIN run_info r USING (hash)"
    rows = wait_until(lambda: site.sql(f"{query} WHERE hash = %s", run), "stored in MySQL")
    assert rows == ((TAKEN, TAKEN),)
    assert reader.stop() == 0
    assert all(line.isprintable() for line in reader.text().splitlines())
