"""A past that homes could have had, as raven-import takes it: JSON lines of readings."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from raven_simulator.load import DAY_S, Household, sun_w

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DESCRIPTION: Final = """\
Write a past that homes could have had to standard output: readings of demand and of
the registers, which grow by what the demand comes to.  Winter is darker and needs more,
weekends begin later, each third home, from the second on, has solar cells, and a home
is away for some days.  raven-import brings it into the stores, as any reading, over the bus,
the newest first: what is there meanwhile reaches without a gap to the end.

  raven-simulator history --days 400 --homes 3 | raven-import --format jsonl -
"""
_STEP_S: Final = 60
"""Seconds between the demands of which the registers are the sum."""
_AWAY_DAYS: Final = (150, 157)
_DEVICE: Final = 0xD8D5B90000001234
_METER: Final = 0x0013500100ABCDEF
_HINTS: Final = {"digits_right": 3, "digits_left": 15, "suppress_leading_zero": True}


@dataclass(frozen=True)
class Home:
    """A home and its past, which a seed decides; ``register_wh`` is the meter's at the end, at least."""

    number: int
    node: str
    seed: int
    end: datetime
    days: int
    every_s: int
    register_wh: int

    def readings(self) -> Iterator[dict[str, Any]]:
        """Yield the readings, the newest first.

        A register's growth over a gap belongs to where the gap ends, and so would all that is
        still to come.
        """
        counts = [*self._counts()]
        *_, delivered, received = counts[-1]
        end_wh = max(self.register_wh, delivered, received)
        run = uuid.uuid5(uuid.NAMESPACE_URL, f"raven-simulator history {self}")
        for number in range(len(counts), 0, -1):
            at, watts, taken, given = counts[number - 1]
            scale = {"multiplier": 1, "divisor": 1000, "claimed_time_utc": None} | _HINTS
            registers = end_wh - delivered + taken, end_wh - received + given
            wh = [math.floor(one) for one in registers]
            demand = {"kind": "instantaneous_demand", "demand": watts, "demand_kw": watts / 1000}
            summation = {
                "kind": "current_summation_delivered",
                "summation_delivered": wh[0],
                "delivered_kwh": wh[0] / 1000,
                "summation_received": wh[1] if self._has_solar else 0,
                "received_kwh": wh[1] / 1000 if self._has_solar else 0,
            }
            for seq, said in ((2 * number, summation), (2 * number - 1, demand)):
                yield {
                    "node": self.node,
                    "run": "simulated past",
                    "hash": str(run),
                    "seq": seq,
                    "received_utc": f"{at + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}",
                    "device": f"{_DEVICE + self.number:016x}",
                    "meter": f"{_METER + self.number:016x}",
                    "device_time_utc": f"{at:%Y-%m-%dT%H:%M:%SZ}",
                    **said,
                    **scale,
                }

    @property
    def _has_solar(self) -> bool:
        return self.number % 3 == 1

    def _counts(self) -> Iterator[tuple[datetime, int, float, float]]:
        """Yield each time that is reported, the demand in W, and what was taken and given by then in Wh."""
        household = Household(random.Random(f"{self.seed} {self.number} load"))  # noqa: S311 - it has to repeat
        clouds = random.Random(f"{self.seed} {self.number} clouds")  # noqa: S311
        begin, taken, given, clear = self.end - timedelta(days=self.days), 0.0, 0.0, 1.0
        for second in range(0, self.days * DAY_S + 1, _STEP_S):
            at = begin + timedelta(seconds=second)
            if second % 1800 == 0:
                clear = min(1.0, max(0.1, clear + clouds.uniform(-0.3, 0.3)))
            watts = self._watts(at, household.sample(second).watts, second // DAY_S, clear)
            if second % self.every_s == 0:
                yield at, watts, taken, given
            wh = watts * _STEP_S / 3600
            taken, given = taken + max(wh, 0), given - min(wh, 0)

    def _watts(self, at: datetime, household_w: float, day: int, clear: float) -> int:
        winter = math.cos(2 * math.pi * at.timetuple().tm_yday / 365)
        away = day in range(*_AWAY_DAYS)
        used = 90.0 if away else household_w * (1.15 + 0.3 * winter)
        if at.weekday() >= 5 and not away:  # noqa: PLR2004 - Saturday and Sunday
            used *= 1.2
        hour = at.hour + at.minute / 60
        made = sun_w(hour) * clear * (0.6 - 0.4 * winter) if self._has_solar else 0.0
        return round(used - made)


def main(arguments: Sequence[str]) -> int:
    """Write the past of the homes that are asked for; return the exit status."""
    chosen = _parser().parse_args(arguments)
    end = datetime.now(UTC) if chosen.end is None else chosen.end
    end -= timedelta(seconds=end.timestamp() % chosen.every)
    try:
        for number in range(chosen.homes):
            node = chosen.node if number == 0 else f"{chosen.node}-{number + 1}"
            register_wh = chosen.register + 1_234_567 * number
            home = Home(number, node, chosen.seed, end, chosen.days, chosen.every, register_wh)
            for reading in home.readings():
                sys.stdout.write(json.dumps(reading) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="raven-simulator history",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--days", metavar="N", type=_number(1, 4000), default=400, help="default: 400"
    )
    made.add_argument("--homes", metavar="N", type=_number(1, 1000), default=1, help="default: 1")
    made.add_argument(
        "--node", metavar="NAME", default="past", help="name of the first home; default: past"
    )
    made.add_argument(
        "--every",
        metavar="S",
        type=_number(_STEP_S, DAY_S, of=_STEP_S),
        default=900,
        help="seconds between reports, in whole minutes; default: 900",
    )
    made.add_argument(
        "--register",
        metavar="WH",
        type=_number(0, 2**40),
        default=20_000_000,
        help="register of the first home's meter at the end; default: 20000000",
    )
    made.add_argument(
        "--end", metavar="TIME", type=_time, help="as 2026-03-29T12:00:00Z; default: now"
    )
    made.add_argument("--seed", metavar="N", type=int, default=1, help="default: 1")
    return made


def _number(low: int, high: int, *, of: int = 1) -> Any:
    def convert(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not low <= number <= high or number % of:
            allowed = f"{low} to {high}" + (f", a multiple of {of}" if of > 1 else "")
            raise argparse.ArgumentTypeError(f"{text!r}: allowed is {allowed}")
        return number

    return convert


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a time as 2026-03-29T12:00:00Z")
    return time.astimezone(UTC)
