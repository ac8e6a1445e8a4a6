"""How fast history answers as the dashboard's pages ask it, and what the pages weigh."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from zoneinfo import ZoneInfo

import growth
import page
import system
from raven_harness import stack
from ravenbus import demand, energy
from ravenbus.history import History, MeterHistory, Step, edges
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import CurrentSummationDelivered
from ravenbus.periods import PERIODS_S, start_of
from ravensql import schema
from ravensql.history import MysqlHistory
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from results import Row

REPEATS: Final = 5
ZONE: Final = ZoneInfo("Europe/Berlin")
NODE: Final = "house"
METER: Final = growth.METER
DAY: Final = timedelta(days=1)
YEARS: Final = 10
A_HOME: Final = 366 * 86400 // growth.EVERY_S
"""A home has so many demands at most: a year and a day of them."""
AT_ONCE: Final = 200_000
BATCH: Final = 500

TEXT: Final = f"""\
## History, and the dashboard's pages

MariaDB as for *growth*, with as many demands as the row says, one each {growth.EVERY_S} s of as many homes as
that needs, of which one has a year at most; a register each 5 minutes; their roll-ups, which a
sample of days is checked with against the readings.  The home that is asked for has roll-ups of
{YEARS} years, as if older months were archived.  The last readings come through the writer's sink.

Asked is what the pages ask, over HTTP of a dashboard in the zone {ZONE.key}, and beside it the same of
`ravenbus.history` on `ravensql.history` without a dashboard: each the median of {REPEATS}, the first of
them on a new connection; the ratio is of the answer over HTTP to its aim.

- *year*: demand by day, energy by month, and the summary (sums, peak, base load) of the last year;
- *ten years*: demand and energy by month;
- *today*: demand by 5 minutes; *last 15 minutes*: each reading of them;
- *latest values*: what a meter says now, with today's and this month's energy.

{page.TEXT}"""

REGISTERS: Final = """
INSERT INTO current_summation_delivered
  (time, received, device_time, node, meter, summation_delivered, summation_received, multiplier,
   divisor, run, hash, seq)
SELECT FROM_UNIXTIME(300 * seq), FROM_UNIXTIME(300 * seq), FROM_UNIXTIME(300 * seq), %(node)s,
  %(meter)s, 50 * seq, 10 * seq, 1, 1000, 'default', %(hash)s, seq
FROM seq_{first}_to_{last}
"""
DEMAND_BEFORE: Final = """
INSERT INTO demand_rollup (period_s, node, meter, start, readings, sum_kw, min_kw, max_kw)
SELECT 300, %(node)s, %(meter)s, FROM_UNIXTIME(300 * seq), 37, 85.1, 0.3, 4.3
FROM seq_{first}_to_{last}
"""
DEMAND: Final = """
INSERT INTO demand_rollup (period_s, node, meter, start, readings, sum_kw, min_kw, max_kw)
SELECT 300, node, meter, FROM_UNIXTIME(UNIX_TIMESTAMP(time) DIV 300 * 300) AS period, COUNT(*),
  SUM(demand_kw), MIN(demand_kw), MAX(demand_kw)
FROM demand WHERE node = %(node)s AND meter = %(meter)s GROUP BY period
"""
DEMAND_LONGER: Final = """
INSERT INTO demand_rollup (period_s, node, meter, start, readings, sum_kw, min_kw, max_kw)
SELECT {period}, node, meter, FROM_UNIXTIME(UNIX_TIMESTAMP(start) DIV {period} * {period}) AS period,
  SUM(readings), SUM(sum_kw), MIN(min_kw), MAX(max_kw)
FROM demand_rollup WHERE period_s = 300 GROUP BY node, meter, period
"""
ENERGY: Final = """
INSERT INTO energy_rollup
  (period_s, node, meter, start, readings, delivered_kwh_min, delivered_kwh_max, delivered_kwh,
   delivered_first, delivered_last, received_kwh_min, received_kwh_max, received_kwh,
   received_first, received_last)
SELECT 300, %(node)s, %(meter)s, FROM_UNIXTIME(300 * seq) AS at, 1, 0.05 * seq, 0.05 * seq, 0.05,
  FROM_UNIXTIME(300 * seq), FROM_UNIXTIME(300 * seq), 0.01 * seq, 0.01 * seq, 0.01,
  FROM_UNIXTIME(300 * seq), FROM_UNIXTIME(300 * seq)
FROM seq_{first}_to_{last}
"""
ENERGY_LONGER: Final = """
INSERT INTO energy_rollup
  (period_s, node, meter, start, readings, delivered_kwh_min, delivered_kwh_max, delivered_kwh,
   delivered_first, delivered_last, received_kwh_min, received_kwh_max, received_kwh,
   received_first, received_last)
SELECT {period}, node, meter, FROM_UNIXTIME(UNIX_TIMESTAMP(start) DIV {period} * {period}) AS period,
  SUM(readings), MIN(delivered_kwh_min), MAX(delivered_kwh_max), SUM(delivered_kwh),
  MIN(delivered_first), MAX(delivered_last), MIN(received_kwh_min), MAX(received_kwh_max),
  SUM(received_kwh), MIN(received_first), MAX(received_last)
FROM energy_rollup WHERE period_s = 300 GROUP BY node, meter, period
"""
LASTS: Final = """
INSERT INTO energy_meter
  (node, meter, delivered_last, delivered_kwh, received_last, received_kwh)
SELECT node, meter, MAX(delivered_last), MAX(delivered_kwh_max), MAX(received_last),
  MAX(received_kwh_max)
FROM energy_rollup WHERE period_s = 86400 GROUP BY node, meter
"""


@dataclass(frozen=True)
class Question:
    """What a page asks: of the API, and of a history; ``aim_ms`` is for the answer over HTTP."""

    name: str
    path: str
    parameters: Mapping[str, str]
    ask: Callable[[MeterHistory], Any]
    aim_ms: float | None = None


def run(millions: Sequence[float]) -> list[Row]:
    """Measure databases of so many million demands, and return the rows."""
    found = []
    for size in (int(one * 1e6) for one in millions):
        with system.folder() as folder:
            mariadb = growth.server(folder)
            with system.started(mariadb):
                url = mariadb.database()
                fill(mariadb, url, size, datetime.now(UTC).replace(microsecond=0))
                of = f"{size / 1e6:g} million rows"
                opened = partial(MysqlHistory, MysqlUrl(url))
                found += _measured(folder, of, opened, MYSQL_URL=url)
    return found


def fill(server: stack.MariaDb, url: str, size: int, end: datetime) -> None:
    """Have a database hold so many demands up to a time, with registers and roll-ups.

    What has come since then is added by the writer's sink.
    """
    schema.migrate(MysqlUrl(url))
    until = int(end.timestamp())
    homes = [min(A_HOME, size - first) for first in range(0, size, A_HOME)]
    with growth.connected(server, url) as cursor:
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        for number, readings in enumerate(homes):
            node = f"home-{number}" if number else NODE
            since = until - growth.EVERY_S * readings
            of = {"node": node, "meter": METER, "hash": str(uuid.uuid4()), "start": since}
            registers = since // 300 + 1, until // 300
            if not number:
                # Rows of the oldest day have the partitions made from there on.
                _load(cursor, of, (1, 1), (registers[0], registers[0]))
                with closing(MysqlSink(MysqlUrl(url))) as sink:
                    sink.prepare()
                cursor.execute("SET SESSION unique_checks = 0")
                _load(cursor, of, (2, readings), (registers[0] + 1, registers[1]))
            else:
                _load(cursor, of, (1, readings), registers)
            cursor.execute(DEMAND, of)
            before = registers[0]
            if not number:
                before = int((end - YEARS * 365.25 * DAY).timestamp()) // 86400 * 288
                last = since // 86400 * 288 - 1
                cursor.execute(DEMAND_BEFORE.format(first=before, last=last), of)
            cursor.execute(ENERGY.format(first=before, last=registers[1]), of)
        for period in PERIODS_S[1:]:
            cursor.execute(DEMAND_LONGER.format(period=period))
            cursor.execute(ENERGY_LONGER.format(period=period))
        cursor.execute(LASTS)
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        cursor.execute("ANALYZE TABLE instantaneous_demand, demand_rollup, energy_rollup")
        cursor.fetchall()
        cursor.execute("SELECT COUNT(*) FROM instantaneous_demand")
        ((there,),) = cursor.fetchall()
    if there != size:
        raise RuntimeError(f"the database has {there} demands, not {size}")
    with closing(MysqlHistory(MysqlUrl(url))) as history:
        days = max(int(homes[0] * growth.EVERY_S / 86400) - 2, 1)
        for ago in {1, days // 2 + 1, days}:
            _require_same(history, start_of(end - ago * DAY, 86400).replace(tzinfo=UTC))
    _store_the_rest(url, end)


def _load(
    cursor: Any, of: Mapping[str, Any], demands: tuple[int, int], registers: tuple[int, int]
) -> None:
    """Insert demands and registers of a home by their numbers, some at a time."""
    for query, (first, last) in ((growth.LOAD, demands), (REGISTERS, registers)):
        for start in range(first, last + 1, AT_ONCE):
            stop = min(start + AT_ONCE - 1, last)
            every, node = growth.EVERY_S, of["node"]
            cursor.execute(
                query.format(every=every, node=node, meter=METER, first=start, last=stop), of
            )


def _require_same(history: History, start: datetime) -> None:
    """Raise RuntimeError if the roll-ups of a day are not what the product makes of its readings."""
    meter = MeterHistory(history, NODE, METER, ZoneInfo("UTC"))
    span = start, start + DAY
    for ask, combined in ((meter.demand, demand.combined), (meter.energy, energy.combined)):
        every: Any = ask
        came_to = {
            combined([part.value for part in every(*span, step) if part.value])
            for step in (Step.RAW, Step.FIVE_MINUTES, Step.HOUR, Step.DAY)
        }
        if len(came_to) != 1:
            raise RuntimeError(f"roll-ups of {start:%Y-%m-%d} and readings differ: {came_to}")


def _store_the_rest(url: str, since: datetime) -> None:
    """Store what comes from a time until now as the writer does."""
    hash_, now = str(uuid.uuid4()), datetime.now(UTC)
    demands = int((now - since).total_seconds()) // growth.EVERY_S
    readings = [
        growth.reading(hash_, seq, since + timedelta(seconds=(growth.EVERY_S - 1) * seq))
        for seq in range(1, demands + 1)
    ]
    numbers = range(int(since.timestamp()) // 300 + 1, int(now.timestamp()) // 300 + 1)
    readings += [_registers(hash_, seq, number) for seq, number in enumerate(numbers, demands + 1)]
    with closing(MysqlSink(MysqlUrl(url))) as sink:
        sink.prepare()
        for first in range(0, len(readings), BATCH):
            sink.store(readings[first : first + BATCH])


def _registers(hash_: str, seq: int, number: int) -> Reading:
    """Return the registers at the start of so many 5 minutes since 1970."""
    at = datetime.fromtimestamp(300 * number, UTC)
    said = CurrentSummationDelivered(
        device=None,
        meter=METER,
        time=at,
        summation_delivered=50 * number,
        summation_received=10 * number,
        multiplier=1,
        divisor=1000,
        delivered_kwh=number / 20,
        received_kwh=number / 100,
    )
    return Reading(Envelope(node=NODE, run="r", hash=hash_, seq=seq, received=at), said)


def _measured(folder: Path, of: str, opened: Callable[[], History], **store: str) -> list[Row]:
    """Return the rows of a store that is filled, and of a dashboard's pages on it."""
    broker = stack.Broker(folder, ["dashboard"])
    password, token = secrets.token_hex(8), secrets.token_hex(16)
    settings = {"RAVEN_TIME_ZONE": ZONE.key, "RAVEN_DASHBOARD_PASSWORD": password, **store}
    dashboard = stack.dashboard(
        folder, broker.url("dashboard"), RAVEN_DASHBOARD_TOKEN=token, **settings
    )
    address = f"http://127.0.0.1:{dashboard.port}"
    with system.started(broker, dashboard):
        rows = [_row(one, of, opened, address, token) for one in questions(datetime.now(UTC))]
        return [*rows, *page.measured(address, password, NODE, of)]


def questions(now: datetime) -> list[Question]:
    """Return what the pages ask at a time."""
    (today, tomorrow) = (
        one.replace(tzinfo=UTC) for one in edges(now, now + timedelta(seconds=1), Step.DAY, ZONE)
    )
    local = today.astimezone(ZONE)
    year, years = (local.replace(year=local.year - n, day=min(local.day, 28)) for n in (1, YEARS))
    years += DAY * 3  # the oldest roll-ups are of a day and a leap day later
    recent = now - timedelta(minutes=15)

    def series(name: str, start: datetime, end: datetime, step: Step, aim: float | None) -> Any:
        what = name.rsplit(maxsplit=1)[-1]
        parameters = {**_span(start, end), "step": step.value}
        return Question(name, what, parameters, lambda m: getattr(m, what)(start, end, step), aim)

    return [
        series("year, demand", year, tomorrow, Step.DAY, 50),
        series("year, energy", year, tomorrow, Step.MONTH, 50),
        Question(
            "year, summary",
            "summary",
            _span(year, tomorrow),
            lambda meter: (
                meter.total(year, tomorrow).demand,
                meter.peak(year, tomorrow),
                meter.base_load_kw(year, tomorrow),
            ),
            50,
        ),
        series("ten years by month, demand", years, tomorrow, Step.MONTH, 100),
        series("ten years by month, energy", years, tomorrow, Step.MONTH, 100),
        series("today, demand", today, tomorrow, Step.FIVE_MINUTES, None),
        series("last 15 minutes, demand", recent, now, Step.RAW, None),
        Question(
            "latest values",
            "now",
            {"node": NODE},
            lambda meter: (
                meter.history.meters(),
                *(meter.energy(now, now + timedelta(seconds=1), s) for s in (Step.DAY, Step.MONTH)),
            ),
        ),
    ]


def _span(start: datetime, end: datetime) -> dict[str, str]:
    utc = (one.astimezone(UTC).isoformat() for one in (start, end))
    return {"node": NODE, "meter": METER, **dict(zip(("from", "to"), utc, strict=True))}


def _row(
    question: Question, of: str, opened: Callable[[], History], address: str, token: str
) -> Row:
    with closing(opened()) as history:
        meter = MeterHistory(history, NODE, METER, ZONE)
        direct_ms = _timed(lambda: question.ask(meter))
    url = f"{address}/api/v1/{question.path}?{urlencode(question.parameters)}"
    request = Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own
    over_http_ms = _timed(lambda: _answer(request))
    aim = question.aim_ms
    return Row(
        f"history, {question.name}, {of}",
        f"{over_http_ms:.1f} ms",
        f"{f'aim {aim:.0f} ms; ' if aim else ''}without dashboard {direct_ms:.1f} ms",
        over_http_ms / aim if aim else None,
        1.0 if aim else None,
        at_most=True,
    )


def _answer(request: Request) -> Any:
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
        return json.load(answer)


def _timed(ask: Callable[[], Any]) -> float:
    """Return the median in ms; raise RuntimeError for an answer without a number."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found = ask()
        times.append(1000 * (time.perf_counter() - started))
    if not any(_numbers(found)):
        raise RuntimeError(f"an answer is empty: {found}")
    return median(times)


def _numbers(found: Any) -> Iterator[bool]:
    """Yield that there is a value of kW or kWh, for each in an answer."""
    match found:
        case float() | Decimal():
            yield True
        case dict():
            yield from (one for value in found.values() for one in _numbers(value))
        case list() | tuple():
            yield from (one for value in found for one in _numbers(value))
