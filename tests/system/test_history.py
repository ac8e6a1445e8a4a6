"""History is the same from MySQL, from MongoDB and from a plain list of the readings."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ravenbus.cost import by_rate, cost
from ravenbus.demand import Demand
from ravenbus.energy import Register, growth, in_order
from ravenbus.forgetting import LetterSink
from ravenbus.history import History, Meter, MeterHistory, RunSpan, Step, runs_of
from ravenbus.messages import Envelope, Reading, Run
from ravenbus.notifications import (
    CurrentSummationDelivered,
    InstantaneousDemand,
    ProfileData,
    derived,
)
from ravenbus.periods import PERIODS_S, start_of
from ravenbus.tariff import Rate, Tariff, TariffFile, TariffPrices, Tier
from ravenmongo import housekeeping
from ravenmongo.history import MongoHistory
from ravenmongo.rollups import RollUps
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from ravensql.history import MysqlHistory
from ravensql.settings import MysqlUrl
from tests.kinds import METER, new_hash

from .sql import Db
from .system import System, wait_until

CHANGES = {
    "Europe/Berlin": (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "America/New_York": (datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)),
    "Australia/Adelaide": (
        datetime(2026, 4, 4, 16, 30, tzinfo=UTC),
        datetime(2026, 10, 3, 16, 30, tzinfo=UTC),
    ),
    "Asia/Kolkata": (datetime(2026, 3, 31, 18, 30, tzinfo=UTC),),
    "UTC": (datetime(2026, 3, 1, tzinfo=UTC),),
}
"""When clocks change, or a month begins, UTC."""
ANOTHER = "0013500100abcde0"
SCALES = {METER: (1, 1000), ANOTHER: (2, 3), None: (0, 0)}
SHORTEST = timedelta(seconds=PERIODS_S[0])
SHORTER = timedelta(hours=44)
"""As there are many 5 minutes."""

NIGHT = Rate(name="night", start="22:15", end="06:00", price=Decimal("0.2345"))
DAY = Rate(
    name="day", tiers=[Tier(price=Decimal(1), up_to_kwh=Decimal(1)), Tier(price=Decimal("0.5"))]
)
TARIFF = TariffFile(
    currency="EUR",
    tariffs=[Tariff(valid_from=date(2026, 1, 1), rates=[NIGHT, DAY], feed_in=Decimal("0.08"))],
)


def reading(
    node: str, hash_: str, seq: int, meter: str | None, at: datetime, **said: Any
) -> Reading:
    """Return a demand, or registers, that the stick said at a time; ``timed`` if by its clock."""
    multiplier, divisor = SCALES[meter]
    time = at if said.pop("timed", True) else None
    common = {"device": None, "meter": meter, "time": time}
    common |= {"multiplier": multiplier, "divisor": divisor}
    kind, derived_values = (
        (InstantaneousDemand, {"demand_kw": None})
        if "demand" in said
        else (CurrentSummationDelivered, {"delivered_kwh": None, "received_kwh": None})
    )
    envelope = Envelope(node=node, run="r", hash=hash_, seq=seq, received=at)
    return Reading(envelope, kind(**common, **derived_values, **said))


registers = st.one_of(
    st.none(),
    st.integers(0, 3),
    st.integers(17_078_000, 17_078_900),
    st.integers(2**32 - 3, 2**32 - 1),
)
said = st.one_of(
    st.fixed_dictionaries({"demand": st.one_of(st.none(), st.integers(-4000, 4000))}),
    st.fixed_dictionaries({"summation_delivered": registers, "summation_received": registers}),
)
around = st.one_of(st.integers(-8000, 8000), st.integers(-130_000, 130_000))
"""Seconds from where the clocks change."""
things = st.lists(
    st.tuples(
        st.sampled_from([("a", METER), ("b", METER), ("a", ANOTHER), ("b", None)]),
        *(around, st.integers(0, 999), st.sampled_from([True, True, False]), said),
    ),
    min_size=1,
    max_size=16,
)
places = st.sampled_from([(zone, at) for zone, all_ in CHANGES.items() for at in all_])


class Plain(NamedTuple):
    """The model: one meter's readings, each a time to the second, in a list."""

    kw: list[tuple[datetime, Decimal]]
    registers: list[Register]

    @classmethod
    def of(cls, readings: Sequence[Reading], node: str, meter: str) -> Plain:
        plain = cls([], [])
        for one in readings:
            found: Any = one.notification
            if (one.envelope.node, found.meter or "") != (node, meter):
                continue
            at = (found.time or one.envelope.received).replace(microsecond=0, tzinfo=None)
            scale = found.multiplier, found.divisor
            if isinstance(found, InstantaneousDemand):
                kw = derived(found.demand, *scale)
                if kw is not None:
                    plain.kw.append((at, kw))
            else:
                raw = (found.summation_delivered, found.summation_received)
                delivered, received = (derived(one, *scale) for one in raw)
                unit = derived(1, *scale)
                assert unit
                plain.registers.append(Register(at, (delivered, received), unit))
        return plain

    def demand(self, key: Callable[[datetime], Any]) -> dict[Any, Demand]:
        groups = defaultdict(list)
        for at, kw in self.kw:
            groups[key(at)].append(kw)
        return {of: Demand(len(kw), sum(kw), min(kw), max(kw)) for of, kw in groups.items()}

    def energy(self, key: Callable[[datetime], Any]) -> dict[Any, list[Any]]:
        """Return of each group its readings, then of each side first, last and growth."""
        found: dict[Any, list[Any]] = {}
        for one in self.registers:
            group = found.setdefault(key(one.time), [0, None, None, None, None, None, None])
            group[0] += 1
        for side, (first, last, grew) in enumerate(((1, 2, 3), (4, 5, 6))):
            with_value = [one for one in self.registers if one.kwh[side] is not None]
            ordered = sorted(with_value, key=in_order(side))
            for number, one in enumerate(ordered):
                group = found[key(one.time)]
                group[first] = group[first] or (one.time, one.kwh[side])
                group[last] = (one.time, one.kwh[side])
                grown = growth(ordered[number - 1], one, side) if number else Decimal(0)
                group[grew] = (group[grew] or Decimal(0)) + grown
        return found


def plain(one: Any) -> list[Any]:
    """Return energy as the model says it."""
    found = [one.readings]
    for name in ("delivered", "received"):
        low, high, kwh, first, last = (
            getattr(one, f"{name}_{part}")
            for part in ("kwh_min", "kwh_max", "kwh", "first", "last")
        )
        found += [
            first and (first.replace(tzinfo=None), low),
            last and (last.replace(tzinfo=None), high),
            kwh,
        ]
    return found


def keys(zone: ZoneInfo) -> dict[Step, Callable[[datetime], Any]]:
    """Return by what the model groups times: what a clock in the home shows."""

    def local(at: datetime) -> datetime:
        return at.replace(tzinfo=UTC).astimezone(zone)

    return {
        Step.RAW: lambda at: at,
        Step.FIVE_MINUTES: start_of,
        Step.HOUR: lambda at: (local(at).date(), local(at).hour, local(at).fold),
        Step.DAY: lambda at: local(at).date(),
        Step.MONTH: lambda at: (local(at).year, local(at).month),
    }


def answers(of: MeterHistory, start: datetime, end: datetime) -> dict[str, Any]:
    """Return every answer that there is about a span."""
    odd = start + timedelta(hours=20, seconds=7), end - timedelta(hours=20, minutes=7)
    found: dict[str, Any] = {"total": of.total(*odd), "peak": of.peak(*odd)}
    found |= {"base load": of.base_load_kw(start, end)}
    tariff = TariffPrices(TARIFF, of.zone)
    found |= {"cost": cost(of, tariff, *odd), "rates": by_rate(of, tariff, *odd)}
    found |= {key: of.by(key, start, end) for key in ("hour", "weekday", "month")}
    for step in Step:
        span = (start + SHORTER, end - SHORTER) if step is Step.FIVE_MINUTES else (start, end)
        found |= {f"demand {step}": of.demand(*span, step)}
        found |= {f"energy {step}": of.energy(*span, step)}
    return found


def history(node: str, hash_: str, days: int) -> list[Reading]:
    """Return demands and registers of some days, among which are a reset and missing values."""
    chance = random.Random(days)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    found = []
    for seq in range(1, 12 * days + 1):
        count = chance.choice([None, seq, 17_078_000 + seq, 17_078_000 + seq])
        what: dict[str, Any] = (
            {"demand": seq} if seq % 3 else {"summation_delivered": count, "summation_received": 0}
        )
        at = start + timedelta(hours=2 * seq, seconds=chance.randint(0, 4000))
        found.append(reading(node, hash_, seq, METER, at, timed=seq % 7 > 0, **what))
    return found


def series(store: History, node: str) -> list[Any]:
    """Return every roll-up of a node in forty days."""
    start = datetime(2026, 3, 1)  # noqa: DTZ001 - UTC as stores have it
    found = []
    for period_s in PERIODS_S:
        length = timedelta(seconds=period_s)
        times = [start + number * length for number in range(timedelta(days=40) // length + 1)]
        of = node, METER, period_s, list(pairwise(times))
        found += [list(store.demand(*of)), list(store.energy(*of))]
    return found


def test_several_recorders_at_once_count_as_one(system: System):
    """Two store late and repeated readings and two count, at once: nothing is missed or doubled."""
    url = MongoUrl(system.mongo_url)
    written = history("a", new_hash(), 2)
    chance = random.Random(1)
    chance.shuffle(written)
    parts = [written[start : start + 4] for start in range(0, len(written), 4)]
    written_all = threading.Event()

    def write(mine: list[list[Reading]]) -> None:
        with closing(MongoSink(url.text)) as sink:
            for part in [*mine, mine[0]]:
                sink.store(part)

    def count() -> None:
        with closing(RollUps(url, threading.Event())) as counting:
            while not written_all.is_set():
                counting.count_due()

    with closing(MongoSink(url.text)) as sink, ThreadPoolExecutor(4) as pool:
        sink.prepare()
        counters = [pool.submit(count) for _ in range(2)]
        try:
            list(pool.map(write, (parts[::2], parts[1::2])))
        finally:
            written_all.set()
        for one in counters:
            one.result()
    with closing(RollUps(url, threading.Event())) as counting, closing(MongoSink(url.text)) as sink:
        counting.count_due()
        sink.store(history("b", new_hash(), 2))
        counting.count_due()
        assert series(counting, "a") == series(counting, "b")
        assert system.db.rollup_due.find_one() is None


def test_a_database_made_before_is_counted_at_the_first_start(system: System, caplog):
    """Meter by meter; what is interrupted goes on where it was, and it is done once."""
    caplog.set_level("INFO", "ravenmongo")
    url = MongoUrl(system.mongo_url)
    steps = iter([False, False, True])
    with closing(MongoSink(url.text)) as sink, closing(RollUps(url, threading.Event())) as counting:
        sink.prepare()
        sink.store(history("a", new_hash(), 4))
        counting.count_due()
        expected = series(counting, "a")
        for name in ("demand_rollup", "energy_rollup"):
            system.db[name].delete_many({})
    stop = threading.Event()
    stop.is_set = lambda: next(steps)  # type: ignore[method-assign] - asked before each day
    with closing(RollUps(url, stop)) as counting:
        assert counting.count_before(60)
    (progress,) = system.db.rollup_progress.find()
    assert progress["counted_to"] == datetime(2026, 3, 3, tzinfo=UTC)
    with closing(RollUps(url, threading.Event())) as counting:
        assert not counting.count_before(60)
        assert series(counting, "a") == expected
        assert not counting.count_before(60)
    said = [one.message for one in caplog.records]
    assert said == ["counting roll-ups", "counting roll-ups", "roll-ups are complete"]


def test_a_time_that_no_calendar_goes_on_from_stops_no_counting(system: System):
    """A message may claim any; what is beside it is counted, at the first start too."""
    url, hash_ = MongoUrl(system.mongo_url), new_hash()
    ends = (datetime.min, datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001, DTZ901
    odd = [
        reading("a", hash_, seq, METER, at.replace(tzinfo=UTC), **said)
        for seq, (at, said) in enumerate(
            (
                (at, said)
                for at in ends
                for said in ({"demand": 1}, {"summation_delivered": 1, "summation_received": 1})
            ),
            100,
        )
    ]
    with closing(MongoSink(url.text)) as sink, closing(RollUps(url, threading.Event())) as counting:
        sink.prepare()
        sink.store([*odd, *history("a", hash_, 4)])
        counting.count_due()
        expected = series(counting, "a")
        assert expected
        for name in ("demand_rollup", "energy_rollup"):
            system.db[name].delete_many({})
        assert not counting.count_before(60)
        assert series(counting, "a") == expected


def test_what_is_stored_is_counted_beside_over_an_outage(system: System, caplog, monkeypatch):
    """The problem is said once, and what was noted before is counted after it."""
    monkeypatch.setattr("ravenmongo.housekeeping.EVERY_S", 0.05)
    caplog.set_level("INFO", "ravenmongo")
    url, stop = MongoUrl(system.mongo_url), threading.Event()
    with closing(MongoSink(url.text)) as sink, closing(MongoHistory(url)) as store:
        sink.prepare()
        sink.store(history("a", new_hash(), 1))
        if system.mongo:
            system.mongo.kill()
        with ThreadPoolExecutor(1) as pool:
            counting = pool.submit(housekeeping.run, url, None, stop)
            try:
                if system.mongo:
                    wait_until(lambda: "roll-ups postponed" in caplog.text, "it is missed")
                    system.mongo.start()
                wait_until(lambda: system.db.rollup_progress.find_one("complete"), "it is counted")
                wait_until(lambda: not system.db.rollup_due.find_one(), "all is counted")
                sink.store(history("b", new_hash(), 1))
                wait_until(lambda: series(store, "b") == series(store, "a"), "both are the same")
            finally:
                stop.set()
            counting.result()
    if system.mongo:
        assert [caplog.text.count(f"roll-ups {what}") for what in ("postponed", "go on")] == [1, 1]


def test_both_stores_fill_a_gap_from_the_meters_intervals(db: Db, system: System):
    """Six hours of the longest day, of which the registers say nothing until they are over."""
    url, hash_, start = MongoUrl(system.mongo_url), new_hash(), datetime(2026, 10, 25, tzinfo=UTC)
    written: list[Reading] = []
    for minutes in (*range(0, 600, 5), *range(960, 1440, 5)):
        at, count = start + timedelta(minutes=minutes), 17_000_000 + 10 * minutes
        said = {"summation_delivered": count, "summation_received": 0}
        written.append(reading("a", hash_, len(written) + 1, METER, at, **said))
    for hour in (12, 14, 16):
        end = start + timedelta(hours=hour)
        intervals = ProfileData(
            device=None, meter=METER, time=end, end_time=end, interval_s=900, status=0,
            intervals=[100, 150, None, 200, 100, 150, 50, 200], interval_channel="delivered",
        )  # fmt: skip
        envelope = Envelope(
            node="a", run="r", hash=hash_, seq=len(written) + 1, received=end + timedelta(hours=5)
        )
        written.append(Reading(envelope, intervals))
    with (
        closing(db.sink()) as mysql_sink,
        closing(MongoSink(url.text)) as mongo_sink,
        closing(RollUps(url, threading.Event())) as counting,
        closing(MysqlHistory(MysqlUrl(db.url))) as mysql,
    ):
        for sink in (mysql_sink, mongo_sink):
            sink.prepare()
            sink.store(written)
        counting.count_due()
        found = [
            MeterHistory(store, "a", METER, ZoneInfo("Europe/Berlin")).energy(
                start - timedelta(hours=2), start + timedelta(hours=22), Step.HOUR
            )
            for store in (mysql, counting)
        ]
    assert found[0] == found[1]
    hours = found[0][12:19]
    assert [one.intervals for one in hours] == [4, 3, 4, 3, 4, 3, 0]
    kwh = [one.value and float(one.value.delivered_kwh or 0) for one in hours]
    # The newest is said first: of two hours the second lacks a quarter.
    assert kwh == [0.5, 0.45, 0.5, 0.45, 0.5, 0.45, pytest.approx(0.55 + 0.75 + 0.05)]


def test_a_run_lasts_until_the_next_one_of_its_node(db: Db, system: System):
    """In both stores, in whichever order they were announced, with its first and last reading."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    meets = start + timedelta(days=2, minutes=2)
    begin = {
        ("a", "first"): start,
        ("b", "first"): start + timedelta(days=1),
        ("a", "second"): meets,
    }
    runs = [
        Run(node=node, run=name, hash=new_hash(), started=at, meter=METER)
        for (node, name), at in begin.items()
    ]
    registers = {"summation_delivered": 900, "summation_received": None}
    readings = [
        reading("a", runs[0].hash, 1, METER, start + timedelta(minutes=7), demand=500),
        reading("a", runs[0].hash, 2, METER, start + timedelta(days=1, minutes=3), **registers),
        reading("a", runs[2].hash, 1, METER, meets + timedelta(minutes=1), demand=500),
    ]
    with (
        closing(db.sink()) as mysql_sink,
        closing(MongoSink(system.mongo_url)) as mongo_sink,
        closing(MysqlHistory(MysqlUrl(db.url))) as mysql,
        closing(MongoHistory(MongoUrl(system.mongo_url))) as mongo,
    ):
        for sink in (mysql_sink, mongo_sink):
            sink.prepare()
            sink.store(list(reversed(runs)))
            sink.store(readings)
        with closing(RollUps(MongoUrl(system.mongo_url), threading.Event())) as counting:
            counting.count_due()
        system.db["runs"].insert_one({"_id": "somebody else's"})
        found = [[runs_of(store, node) for node in "ab"] for store in (mysql, mongo)]
    expected = [
        [
            RunSpan(
                *("first", start, meets),
                *(start + timedelta(minutes=5), start + timedelta(days=1, minutes=5)),
            ),
            RunSpan(
                *("second", meets, None),
                *(start + timedelta(days=2), start + timedelta(days=2, minutes=5)),
            ),
        ],
        [RunSpan("first", start + timedelta(days=1), None, None, None)],
    ]
    assert found == [expected, expected]


def test_both_stores_and_a_plain_list_answer_the_same(db: Db, system: System):
    """To the last digit, whatever came late, twice or not, and where clocks change."""
    url, mysql_url = MongoUrl(system.mongo_url), MysqlUrl(db.url)
    sinks: list[list[LetterSink]] = [
        [db.sink(), db.sink()],
        [MongoSink(url.text), MongoSink(url.text)],
    ]
    counting = [RollUps(url, threading.Event()), RollUps(url, threading.Event())]
    stores: list[History] = [MysqlHistory(mysql_url), MongoHistory(url)]
    number = iter(range(10**6))

    @settings(max_examples=8)
    @given(places, things, st.randoms(use_true_random=False))
    def same(place: tuple[str, datetime], things: list[Any], chance: random.Random) -> None:
        zone_name, change = place
        mine = f"x{next(number)}"
        hashes = {node: new_hash() for node in ("a", "b")}
        written = [
            reading(
                mine + node, hashes[node], seq, meter, timed=timed, **what,
                at=change + timedelta(seconds=seconds, milliseconds=millis),
            )
            for seq, ((node, meter), seconds, millis, timed, what) in enumerate(things, 1)
        ]  # fmt: skip
        order = [*written, *chance.sample(written, (len(written) + 3) // 4)]
        chance.shuffle(order)
        while order:
            size = chance.randint(1, 6)
            batch, order = order[:size], order[size:]
            for of_store in sinks:
                chance.choice(of_store).store(batch)
            chance.choice(counting).count_due()

        nodes = (mine + "a", mine + "b")
        meters = [[one for one in store.meters() if one.node in nodes] for store in stores]
        assert meters[0] == meters[1]
        zone = ZoneInfo(zone_name)
        start, end = (change + timedelta(days=days) for days in (-2, 2))
        for node, meter, first, last in meters[0]:
            model = Plain.of(written, node, meter)
            times = [at for at, _ in model.kw] + [one.time for one in model.registers]
            assert first == start_of(min(times)).replace(tzinfo=UTC)
            assert last == (start_of(max(times)) + timedelta(minutes=5)).replace(tzinfo=UTC)
            mysql, mongo = (MeterHistory(store, node, meter, zone) for store in stores)
            found = answers(mysql, start, end)
            assert answers(mongo, start, end) == found
            require_model(model, found, zone, start, end)

    try:
        for of_store in sinks:
            of_store[0].prepare()
        same()
    finally:
        for one in (*sinks[0], *sinks[1], *counting, *stores):
            one.close()


def test_the_meters_are_found_without_a_look_at_every_period(db: Db):
    """Each page asks for them first, and a meter has a million periods in ten years."""
    with closing(db.sink()) as sink:
        sink.prepare()
    first, number = datetime(2026, 1, 1, tzinfo=UTC), 3000
    starts = [f"{first + n * SHORTEST:%F %T}" for n in range(number)]
    with closing(db.connect(init_command="SET time_zone = '+00:00'")) as connection:
        connection.cursor().executemany(
            "INSERT INTO demand_rollup (period_s, node, meter, start, readings, sum_kw, min_kw, "
            "max_kw) VALUES (300, %s, %s, %s, 1, 1, 1, 1)",
            [(node, METER, start) for node in ("house", "barn") for start in starts],
        )
    db("ANALYZE TABLE demand_rollup")
    with closing(MysqlHistory(MysqlUrl(db.url))) as store:
        before = reads(store)
        found = store.meters()
        assert reads(store) - before < number
    last = first + number * SHORTEST
    assert found == [Meter(node, METER, first, last) for node in ("barn", "house")]


def test_the_last_register_is_found_without_a_look_at_every_reading(db: Db):
    """Also one that the meter does not have, as most have none of what is given to the grid."""
    first, number, hash_ = datetime(2026, 1, 1, tzinfo=UTC), 2000, new_hash()
    registers = {"summation_delivered": 900, "summation_received": None}
    readings = [
        reading("house", hash_, n + 1, METER, first + n * 2 * SHORTEST, **registers)
        for n in range(number)
    ]
    with closing(db.sink()) as sink, closing(MysqlHistory(MysqlUrl(db.url))) as store:
        sink.prepare()
        for start in range(0, number, 500):
            sink.store(readings[start : start + 500])
        db("ANALYZE TABLE current_summation_delivered, energy_rollup")
        at = first + 5 * timedelta(days=1) + timedelta(seconds=1)
        before = reads(store)
        (found,) = store.last_registers("house", METER, at.replace(tzinfo=None))
        assert reads(store) - before < number / 2
    assert found.time == at.replace(tzinfo=None) - timedelta(seconds=1)
    assert found.kwh == (Decimal("0.9"), None)


def reads(store: MysqlHistory) -> int:
    """Return how many rows the server has read for a store's connection."""
    return sum(
        int(value) for _, value in store._rows("SHOW SESSION STATUS LIKE %s", ("Handler_read%",))
    )


def require_model(
    model: Plain, found: dict[str, Any], zone: ZoneInfo, start: datetime, end: datetime
) -> None:
    """Require that the answers are those of the model."""
    for step, key in keys(zone).items():
        by_demand, by_energy = model.demand(key), model.energy(key)
        if step is Step.FIVE_MINUTES:
            low, high = ((one.replace(tzinfo=None)) for one in (start + SHORTER, end - SHORTER))
            by_demand = {at: one for at, one in by_demand.items() if low <= at < high}
            by_energy = {at: one for at, one in by_energy.items() if low <= at < high}
        for parts in (found[f"demand {step}"], found[f"energy {step}"]):
            if step not in (Step.RAW, Step.FIVE_MINUTES):
                assert parts[0].start <= start < end <= parts[-1].end
            if step is not Step.RAW:
                assert all(one.end == other.start for one, other in pairwise(parts))
        keyed = {key(one.start.replace(tzinfo=None)): one.value for one in found[f"demand {step}"]}
        assert {of: one for of, one in keyed.items() if one} == by_demand
        keyed = {key(one.start.replace(tzinfo=None)): one.value for one in found[f"energy {step}"]}
        assert {of: plain(one) for of, one in keyed.items() if one} == by_energy
    low, high = (
        (start + timedelta(hours=20, seconds=7)).replace(tzinfo=None),
        (end - timedelta(hours=20, minutes=7)).replace(tzinfo=None),
    )
    of_demand, of_energy = found["total"]
    assert of_demand == model.demand(lambda at: low <= at < high).get(True)
    inside = model.energy(lambda at: low <= at < high).get(True)
    assert (of_energy and plain(of_energy)) == inside
    kw = [(-value, start_of(at)) for at, value in model.kw if low <= at < high]
    peak = found["peak"]
    assert (peak and (-peak.kw, peak.at.replace(tzinfo=None))) == min(kw, default=None)
    lowest: dict[Any, list[Decimal]] = defaultdict(list)
    for hour, one in model.demand(lambda at: start_of(at, 3600)).items():
        lowest[keys(zone)[Step.DAY](hour)].append(one.mean_kw)
    expected = median(map(min, lowest.values())) if lowest else None
    assert found["base load"] == (expected and round(expected, 9))
    assert {of: one.demand for of, one in found["hour"].items() if one.demand} == model.demand(
        lambda at: at.replace(tzinfo=UTC).astimezone(zone).hour
    )
