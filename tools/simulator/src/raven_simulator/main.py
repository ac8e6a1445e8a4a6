"""Wiring, the loop, and the signals."""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from raven_simulator import control, history, load, options, orders, replay
from raven_simulator.device import Device
from raven_simulator.faults import Faults
from raven_simulator.ledger import Ledger
from raven_simulator.models import MODELS, Setup
from raven_simulator.ports import PortError, PtyPort, TcpPort, split_address
from raven_simulator.station import Limits, Station
from raven_simulator.timeline import Timeline
from raven_simulator.usb import FUNCTIONS
from raven_simulator.usb_port import UsbPort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raven_simulator.options import Options
    from raven_simulator.ports import Port
    from raven_simulator.station import Reporter

# Reports due within this time share one look at the line.
_TICK_S: Final = 0.002
# How long a reader may take at the end for what is still on the line, when nobody asked to stop.
_DRAIN_S: Final = 5.0
_USAGE_STATUS: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulator; returns the exit status, 0, or 2 for a file or port that cannot be used."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["history"]:
        return history.main(words[1:])
    chosen = options.parse(words)
    with ExitStack() as stack:
        try:
            stations = _stations(chosen, stack)
            for station in stations:
                station.port.plug()
                stack.callback(station.port.unplug)
        except (OSError, load.BadTableError, PortError) as error:
            sys.stderr.write(f"raven-simulator: {error}\n")
            return _USAGE_STATUS
        for station in stations:
            _say(f"ready {station.port.address}")
        _Loop(stations, controlled=chosen.control).run()
        for station in stations:
            sys.stderr.write(station.summary() + "\n")
    return 0


def _stations(chosen: Options, stack: ExitStack) -> list[Station]:
    """Wire each device to its port."""
    ledger: TextIO | None = None
    if chosen.ledger is not None:
        ledger = stack.enter_context(chosen.ledger.open("w", encoding="utf-8"))
    table = None if chosen.csv is None else _read_table(chosen.csv)
    pieces = None if chosen.capture is None else _read_capture(chosen.capture)
    day_s = options.now_of_day_s() if chosen.time_of_day is None else chosen.time_of_day
    timed = tuple(fault for fault in chosen.fault if not isinstance(fault, orders.Chance))
    chances = {
        fault.kind: fault.probability for fault in chosen.fault if isinstance(fault, orders.Chance)
    }

    def station(n: int) -> Station:
        device = chosen.device_mac + n
        reporter: Reporter
        if pieces is not None:
            reporter = replay.Replay(pieces, _demand_period_s(chosen))
        else:
            rng = _random(chosen.seed, n, "load")
            source: load.Source = (
                load.Household(rng, solar=chosen.solar) if table is None else load.Playback(table)
            )
            reporter = Device(MODELS[chosen.model], _setup(chosen, n, day_s), source, rng)
        return Station(
            reporter=reporter,
            faults=Faults(_random(chosen.seed, n, "faults"), chances),
            timeline=Timeline(timed, n),
            port=_port(chosen, n),
            ledger=Ledger(device, ledger),
            limits=Limits(chosen.count, chosen.duration, chosen.wait),
            verbatim=pieces is not None,
        )

    return [station(n) for n in range(chosen.devices)]


def _setup(chosen: Options, n: int, day_s: float) -> Setup:
    rng = _random(chosen.seed, n, "meter")
    delivered_wh = rng.randrange(8_000_000, 60_000_000)
    received_wh = rng.randrange(1_000_000, 9_000_000) if chosen.solar else 0
    return Setup(
        device=chosen.device_mac + n,
        meter=chosen.meter_mac + n,
        speed=_real_demand_period_s(chosen) / _demand_period_s(chosen),
        day_s=day_s,
        utc_offset_s=time.localtime().tm_gmtoff,
        negative_width=chosen.negative_width,
        message=chosen.message,
        delivered_wh=delivered_wh if chosen.register is None else chosen.register,
        received_wh=received_wh,
        past_s=chosen.past * 3600,
        intervals=chosen.intervals,
    )


def _port(chosen: Options, n: int) -> Port:
    if chosen.pty is not None:
        return PtyPort(Path(chosen.pty.replace("{n}", str(n))))
    host, number = split_address(chosen.tcp or chosen.usbip or "")
    number = number + n if number else 0
    return TcpPort(host, number) if chosen.tcp else UsbPort(host, number, FUNCTIONS[chosen.model])


def _real_demand_period_s(chosen: Options) -> float:
    return float(MODELS[chosen.model].periods_s["demand"] or 1)


def _demand_period_s(chosen: Options) -> float:
    if chosen.rate is not None:
        return 1 / chosen.rate
    return _real_demand_period_s(chosen) / chosen.speed


def _read_table(path: Path) -> load.Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = load.read_table(lines)
    except (load.BadTableError, UnicodeDecodeError) as error:
        raise load.BadTableError(f"{path}: {error}") from error
    if table.skipped:
        sys.stderr.write(f"{path}: {table.skipped} rows of -1 left out\n")
    return table


def _read_capture(path: Path) -> list[bytes]:
    pieces = replay.split(path.read_bytes())
    if not pieces:
        raise load.BadTableError(f"{path}: the file is empty")
    return pieces


def _random(seed: int, n: int, use: str) -> random.Random:
    return random.Random(f"{seed} {n} {use}")  # noqa: S311 - a simulation has to repeat


def _say(line: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class _Loop:
    """Steps every station when it is due or its port has something, until all are done or a signal says stop."""

    def __init__(self, stations: Sequence[Station], *, controlled: bool) -> None:
        self._stations = stations
        self._stop = False
        self._stdin: int | None = sys.stdin.fileno() if controlled else None
        self._typed = b""

    def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        while not self._stop and not all(station.done for station in self._stations):
            self._turn()
            self._obey()
        for station in self._stations:
            station.finish()
        give_up_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < give_up_s and not self._all_drained():
            self._turn()
        for station in self._stations:
            station.abandon(time.time())

    def _end(self, *_: object) -> None:
        self._stop = True

    def _all_drained(self) -> bool:
        now_s = time.monotonic()
        drained = [station.drained(now_s) for station in self._stations]
        return all(drained)

    def _turn(self) -> None:
        for station in self._stations:
            station.step(time.monotonic(), time.time())
            if station.problem is not None:
                sys.stderr.write(f"raven-simulator: {station.problem}\n")
                station.problem = None
        now_s = time.monotonic()
        wake_s = min(station.wake_s(now_s) for station in self._stations)
        poll = select.poll()
        if self._stdin is not None:
            poll.register(self._stdin, select.POLLIN)
        for station in self._stations:
            descriptor = station.port.descriptor()
            if descriptor is not None:
                room = select.POLLOUT if station.blocked else 0
                poll.register(descriptor, select.POLLIN | room)
        poll.poll(max(wake_s - now_s, _TICK_S) * 1000)

    def _obey(self) -> None:
        """Obey the control lines that have come."""
        if self._stdin is None or not select.select([self._stdin], [], [], 0)[0]:
            return
        data = os.read(self._stdin, 65536)
        if not data:
            self._stdin = None
            return
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            try:
                order = control.parse(text)
                answer = self._do(order)
            except (ValueError, PortError) as error:
                _say(f"error {error}")
            else:
                _say(f"ok {answer}")

    def _do(self, order: control.Order) -> str:
        if order.device is not None and order.device >= len(self._stations):
            raise ValueError(f"no device {order.device}; there are {len(self._stations)}")
        if order.verb == "stop":
            self._stop = True
            return "stop"
        chosen = [
            (n, station) for n, station in enumerate(self._stations) if order.device in (None, n)
        ]
        return " ".join([order.verb, *filter(None, [self._one(order, n, s) for n, s in chosen])])

    def _one(self, order: control.Order, n: int, station: Station) -> str:
        """Do an order to one station; returns what is worth telling."""
        now_s, unix_s = time.monotonic(), time.time()
        match order.verb, order.argument:
            case "unplug", _:
                if not station.port.plugged:
                    raise ValueError(f"device {n} is unplugged already")
                station.unplug(now_s)
                while station.port.plugged:
                    self._turn()
            case "replug", link:
                if station.port.plugged:
                    raise ValueError(f"device {n} is plugged already")
                address = link.replace("{n}", str(n)) if isinstance(link, str) else None
                station.replug(address, now_s, unix_s)
                return station.port.address
            case "reset", _:
                station.reset()
            case "stall", _:
                station.stall()
            case "silence", bool(on):
                station.silent = on
                return "on" if on else "off"
            case "clock", float(by_s):
                station.clock_offset_s += by_s
                return f"{by_s:g}"
            case "send", bytes(raw):
                station.send(raw, now_s, unix_s)
                return f"{len(raw)} bytes"
            case "fault", orders.Chance(kind, probability):
                station.faults.set(kind, probability)
                return f"{kind}:{probability:g}"
        return ""


if __name__ == "__main__":
    sys.exit(main())
