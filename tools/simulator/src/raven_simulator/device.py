"""The stick: what it reports when, and what it answers.  No clock and no line of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from raven_simulator import reports
from raven_simulator.reports import UNSET

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from raven_simulator.commands import Command
    from raven_simulator.load import Sample, Source
    from raven_simulator.models import Model

# A batch lets the line be written and read between reports when many are due.
_BATCH: Final = 64

_PROFILE_MOST: Final = 12
_PROFILE_PERIOD_S: Final = 900
_PEAK_HOURS: Final = range(16, 21)
_UNTIL_CHANGED: Final = (UNSET, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: elapsed_s, wall seconds that only go forward, and the device's clock (seconds since 2000, or UNSET)."""

    elapsed_s: float
    clock: int


class Reporter(Protocol):
    """Source of what a station puts on a line: a device, or a capture played back."""

    def start(self, moment: Moment) -> list[bytes]:
        """Power on, and return the first fragments."""

    def restart(self, moment: Moment) -> list[bytes]:
        """Power on again after an unplug or a restart command, and return the first fragments."""

    def due_s(self) -> float:
        """Elapsed wall seconds at which the next fragment is due; infinity: never."""

    def due(self, moment: Moment) -> list[bytes]:
        """Fragments that are due by now, possibly not all of them."""

    def skip(self, moment: Moment) -> None:
        """Leave out what is due by now."""

    def answer(self, command: Command, moment: Moment) -> list[bytes]:
        """Fragments in answer to a command, possibly none."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Setup of a device.

    device and meter: EUI-64. speed: schedule seconds per wall second. day_s: second of the day at the start.
    utc_offset_s: LocalTime minus UTCTime. negative_width: hex digits of a negative demand, 6 or 8.
    delivered_wh and received_wh: the meter's registers at the start.
    """

    device: int
    meter: int
    speed: float = 1.0
    day_s: float = 0.0
    utc_offset_s: int = 0
    negative_width: int = 8
    message: str | None = None
    delivered_wh: float = 0.0
    received_wh: float = 0.0


class Device:
    """A RAVEn or EMU-2 joined to one meter.

    The schedule runs at the setup's speed; the clock and the registers do not: registers integrate the reported demand
    over wall time, so that summation agrees with demand and TimeStamps.
    """

    def __init__(self, model: Model, setup: Setup, source: Source, rng: random.Random) -> None:
        self._model = model
        self._setup = setup
        self._source = source
        self._rng = rng
        self._network = reports.Network(ext_pan=setup.meter, channel=rng.randint(11, 26))
        self._periods: dict[str, int | None] = dict(model.periods_s)
        self._due: dict[str, float] = {}
        self._register = _Register(setup.delivered_wh, setup.received_wh)
        self._demand = _Cached()
        self._summation = _Cached()
        self._price = _Cached()
        self._user_price: reports.Price | None = None
        self._message = None if setup.message is None else reports.Message(7, setup.message)
        self._message_clock = UNSET
        self._account: dict[str, str] = {"nickname": "House"}
        self._period = _Period(self._register.net_wh)
        self._fast_poll = _FastPoll()
        self._spread = _Spread()
        self._events: Mapping[str, Callable[[Moment, float], bytes]] = {
            "demand": self._new_demand,
            "summation": self._new_summation,
            "price": self._current_price,
            "message": self._message_report,
            "time": self._time,
        }
        self._handlers = self._commands()

    def start(self, moment: Moment) -> list[bytes]:
        """Start the schedule and return ConnectionStatus Connected."""
        self._message_clock = moment.clock
        self._period.start = moment.clock
        self._schedule_all(moment)
        return [self._status("Connected", "Successfully Joined")]

    def restart(self, moment: Moment) -> list[bytes]:
        """Start the schedule anew and return the ConnectionStatus series of a device that rejoins."""
        self._schedule_all(moment)
        return [
            self._status("Initializing", None, 0),
            self._status("Rejoining", None, 0),
            self._status("Connected", "Successfully Joined"),
        ]

    def due_s(self) -> float:
        """Elapsed wall seconds at which the next report is due; infinity when every event is disabled."""
        return min(self._due.values(), default=math.inf) / self._setup.speed

    def due(self, moment: Moment) -> list[bytes]:
        """Scheduled reports due by now, oldest first, not more than a batch."""
        found: list[bytes] = []
        while self._due and len(found) < _BATCH:
            event = min(self._due, key=self._due.__getitem__)
            at = self._due[event]
            if at / self._setup.speed > moment.elapsed_s:
                break
            found.append(self._events[event](moment, at))
            self._due[event] = at + self._period_s(event, moment)
        return found

    def skip(self, moment: Moment) -> None:
        """Leave out what is due by now; the schedule keeps its phase."""
        now = moment.elapsed_s * self._setup.speed
        for event, at in self._due.items():
            if at / self._setup.speed <= moment.elapsed_s:
                period = self._period_s(event, moment)
                self._due[event] = at + period * (max(math.floor((now - at) / period), 0) + 1)

    def answer(self, command: Command, moment: Moment) -> list[bytes]:
        """Notifications in answer to a command (RAVEn XML API r127 p.8-29)."""
        handler = self._handlers.get(command.name)
        if handler is None:
            return [reports.warning()] if self._model.warns else []
        return handler(command, moment)

    def _commands(self) -> Mapping[str, Callable[[Command, Moment], list[bytes]]]:
        handlers: dict[str, Callable[[Command, Moment], list[bytes]]] = {
            "initialize": _nothing,
            "factory_reset": _nothing,
            "restart": lambda _, moment: self.restart(moment),
            "get_connection_status": lambda *_: [self._status("Connected", "Successfully Joined")],
            "get_network_info": self._get_network_info,
            "get_device_info": self._get_device_info,
            "get_schedule": self._get_schedule,
            "set_schedule": self._set_schedule,
            "set_schedule_default": self._set_schedule_default,
            "get_meter_list": self._get_meter_list,
            "get_meter_info": self._get_meter_info,
            "set_meter_info": self._set_meter_info,
            "get_time": lambda _, moment: [self._time(moment, 0)],
            "get_message": lambda _, moment: [self._message_report(moment, 0)],
            "confirm_message": self._confirm_message,
            "get_current_price": self._get_current_price,
            "set_current_price": self._set_current_price,
            "get_instantaneous_demand": self._get_demand,
            "get_current_summation_delivered": self._get_summation,
            "get_current_period_usage": self._get_current_period_usage,
            "get_last_period_usage": self._get_last_period_usage,
            "close_current_period": self._close_current_period,
            "get_profile_data": self._get_profile_data,
            "set_fast_poll": self._set_fast_poll,
        }
        if self._model.extended:
            handlers |= {
                "get_fast_poll_status": lambda *_: [self._fast_poll_status()],
                "get_price_blocks": self._get_price_blocks,
                "get_billing_periods": self._get_billing_periods,
            }
        return handlers

    # Schedule

    def _schedule_all(self, moment: Moment) -> None:
        self._due.clear()
        for event in self._events:
            self._schedule(event, moment)

    def _schedule(self, event: str, moment: Moment) -> None:
        self._due.pop(event, None)
        period = self._period_s(event, moment)
        if event in self._events and period < math.inf:
            self._due[event] = moment.elapsed_s * self._setup.speed + period

    def _period_s(self, event: str, moment: Moment) -> float:
        period = self._periods.get(event) or math.inf
        if event == "demand" and moment.elapsed_s < self._fast_poll.until_s:
            return min(period, self._fast_poll.frequency_s)
        return period

    def _get_schedule(self, command: Command, _: Moment) -> list[bytes]:
        named = command.parameters.get("event", "").lower()
        events = [event for event in self._periods if named in ("", event)]
        mode = command.parameters.get("mode", "default") if self._model.extended else None
        return [
            reports.schedule_info(
                device=self._setup.device,
                meter=self._setup.meter,
                event=event,
                frequency_s=self._periods[event],
                mode=mode,
            )
            for event in events
        ]

    def _set_schedule(self, command: Command, moment: Moment) -> list[bytes]:
        event = command.parameters.get("event", "").lower()
        frequency = command.number("frequency")
        if event in self._periods:
            if not command.flag("enabled", default=True) or frequency in (0, UNSET):
                self._periods[event] = None
            elif frequency is not None and 0 < frequency < UNSET:
                self._periods[event] = frequency
            self._schedule(event, moment)
        return []

    def _set_schedule_default(self, command: Command, moment: Moment) -> list[bytes]:
        named = command.parameters.get("event", "").lower()
        for event, period in self._model.periods_s.items():
            if named in ("", event):
                self._periods[event] = period
                self._schedule(event, moment)
        return []

    def _set_fast_poll(self, command: Command, moment: Moment) -> list[bytes]:
        frequency = command.number("frequency") or 0
        duration = (command.number("duration") or 0) * self._model.fast_poll_unit_s
        if frequency > 0 and duration > 0:
            end = UNSET if moment.clock == UNSET else moment.clock + duration
            self._fast_poll = _FastPoll(frequency, moment.elapsed_s + duration, end)
        else:
            self._fast_poll = _FastPoll()
        self._schedule("demand", moment)
        return [self._fast_poll_status()] if self._model.extended else []

    # Demand and registers

    def _measure(self, moment: Moment, at_s: float) -> Sample:
        sample = self._source.sample(self._setup.day_s + at_s)
        if not sample.exact:
            sample = replace(sample, raw=self._spread.unused(sample.raw, moment.clock))
        self._register.measure(sample, moment.elapsed_s)
        return sample

    def _new_demand(self, moment: Moment, at_s: float) -> bytes:
        sample = self._measure(moment, at_s)
        positive = 0 <= sample.raw < -reports.NO_DEMAND
        width = 6 if positive else self._setup.negative_width
        if not reports.NO_DEMAND < sample.raw < -reports.NO_DEMAND:
            width = 8
        fragment = reports.instantaneous_demand(
            device=self._setup.device,
            meter=self._setup.meter,
            time=moment.clock,
            demand=sample.raw,
            multiplier=sample.multiplier,
            divisor=sample.divisor,
            width=width,
        )
        self._demand = _Cached(fragment, moment.elapsed_s)
        return fragment

    def _get_demand(self, command: Command, moment: Moment) -> list[bytes]:
        if not command.flag("refresh", default=False) and self._demand.fragment:
            return [self._demand.fragment]
        return [self._new_demand(moment, moment.elapsed_s * self._setup.speed)]

    def _new_summation(self, moment: Moment, at_s: float) -> bytes:
        del at_s
        register = self._register
        register.advance(moment.elapsed_s)
        multiplier, divisor = register.scale
        fragment = reports.current_summation_delivered(
            device=self._setup.device,
            meter=self._setup.meter,
            time=moment.clock,
            delivered=register.counts(register.delivered_wh),
            received=register.counts(register.received_wh),
            multiplier=multiplier,
            divisor=divisor,
            width=self._model.summation_width,
        )
        self._summation = _Cached(fragment, moment.elapsed_s)
        self._period.usage_wh = register.net_wh - self._period.base_wh
        self._period.updated = moment.clock
        return fragment

    def _get_summation(self, command: Command, moment: Moment) -> list[bytes]:
        if not command.flag("refresh", default=False) and self._summation.fragment:
            return [self._summation.fragment]
        return [self._new_summation(moment, 0)]

    def _get_current_period_usage(self, _: Command, __: Moment) -> list[bytes]:
        multiplier, divisor = self._register.scale
        return [
            reports.current_period_usage(
                device=self._setup.device,
                meter=self._setup.meter,
                time=self._period.updated,
                usage=self._register.counts(self._period.usage_wh),
                start=self._period.start,
                multiplier=multiplier,
                divisor=divisor,
                width=self._model.summation_width,
            )
        ]

    def _get_last_period_usage(self, _: Command, __: Moment) -> list[bytes]:
        multiplier, divisor = self._register.scale
        return [
            reports.last_period_usage(
                device=self._setup.device,
                meter=self._setup.meter,
                usage=self._register.counts(self._period.last_wh),
                period=self._period.last,
                multiplier=multiplier,
                divisor=divisor,
                width=self._model.summation_width,
            )
        ]

    def _close_current_period(self, _: Command, moment: Moment) -> list[bytes]:
        self._register.advance(moment.elapsed_s)
        closed = self._period
        self._period = _Period(self._register.net_wh, start=moment.clock, updated=moment.clock)
        self._period.last_wh = self._register.net_wh - closed.base_wh
        self._period.last = (closed.start, moment.clock)
        return []

    def _get_profile_data(self, command: Command, moment: Moment) -> list[bytes]:
        asked = command.number("numberofperiods") or 0
        received = command.parameters.get("intervalchannel", "").lower() == "received"
        end = command.number("endtime") or 0
        if end in (0, UNSET):
            end = 0 if moment.clock == UNSET else moment.clock
        quarter_wh = 0.0 if received else max(self._register.watts, 0.0) / 4
        return [
            reports.profile_data(
                device=self._setup.device,
                meter=self._setup.meter,
                end=end - end % _PROFILE_PERIOD_S,
                intervals=[
                    self._register.counts(quarter_wh * self._rng.uniform(0.7, 1.3))
                    for _ in range(min(asked, _PROFILE_MOST))
                ],
                status=4 if asked > _PROFILE_MOST else 0,
            )
        ]

    # Price

    def _current_price(self, moment: Moment, at_s: float) -> bytes:
        keep_s = (self._model.price_refresh_s or 0) / self._setup.speed
        if self._price.fragment and moment.elapsed_s - self._price.at_s < keep_s:
            return self._price.fragment
        return self._new_price(moment, at_s)

    def _new_price(self, moment: Moment, at_s: float) -> bytes:
        fragment = reports.price_cluster(
            device=self._setup.device,
            meter=self._setup.meter,
            time=moment.clock,
            price=self._user_price or _tariff(int((self._setup.day_s + at_s) / 3600) % 24),
            window=_UNTIL_CHANGED if self._model.extended else None,
        )
        self._price = _Cached(fragment, moment.elapsed_s)
        return fragment

    def _get_current_price(self, command: Command, moment: Moment) -> list[bytes]:
        at_s = moment.elapsed_s * self._setup.speed
        if command.flag("refresh", default=False):
            return [self._new_price(moment, at_s)]
        return [self._current_price(moment, at_s)]

    def _set_current_price(self, command: Command, moment: Moment) -> list[bytes]:
        raw = command.number("price")
        digits = command.number("trailingdigits")
        currency = command.number("currency")
        if raw is not None and 0 <= raw <= UNSET:
            self._user_price = None
            if raw:
                price = reports.Price(raw, (digits or 0) & 0xFF, "Set by User")
                self._user_price = replace(price, currency=(currency or price.currency) & 0xFFFF)
        return [self._new_price(moment, moment.elapsed_s * self._setup.speed)]

    def _get_price_blocks(self, _: Command, moment: Moment) -> list[bytes]:
        blocks = ((0x102C, 0x39AC), (UNSET, 0x42B5))
        return [
            reports.block_price_detail(
                device=self._setup.device,
                meter=self._setup.meter,
                time=moment.clock,
                blocks=blocks,
            )
        ]

    def _get_billing_periods(self, _: Command, moment: Moment) -> list[bytes]:
        current = None if self._period.start == UNSET else (self._period.start, 0xFFFF)
        return [
            reports.billing_period_list(
                device=self._setup.device,
                meter=self._setup.meter,
                time=moment.clock,
                current=current,
            )
        ]

    # The rest

    def _status(self, status: str, description: str | None, link_strength: int = 100) -> bytes:
        return reports.connection_status(
            device=self._setup.device,
            meter=self._setup.meter,
            status=status,
            description=description,
            network=self._network,
            link_strength=link_strength,
        )

    def _get_network_info(self, _: Command, __: Moment) -> list[bytes]:
        return [
            reports.network_info(
                device=self._setup.device,
                coordinator=self._setup.meter,
                description="Successfully Joined",
                network=self._network,
            )
        ]

    def _get_device_info(self, _: Command, __: Moment) -> list[bytes]:
        return [reports.device_info(device=self._setup.device, identity=self._model.identity)]

    def _get_meter_list(self, _: Command, __: Moment) -> list[bytes]:
        return [reports.meter_list(device=self._setup.device, meters=[self._setup.meter])]

    def _get_meter_info(self, _: Command, __: Moment) -> list[bytes]:
        known = self._account
        return [
            reports.meter_info(
                device=self._setup.device,
                meter=self._setup.meter,
                nick_name=known.get("nickname", ""),
                account=known.get("account", ""),
                auth=known.get("auth", ""),
                host=known.get("host", ""),
                enabled=known.get("enabled", "Y").upper() != "N",
            )
        ]

    def _set_meter_info(self, command: Command, _: Moment) -> list[bytes]:
        self._account |= command.parameters
        return []

    def _time(self, moment: Moment, at_s: float) -> bytes:
        del at_s
        utc = moment.clock
        local = UNSET if utc == UNSET else utc + self._setup.utc_offset_s
        return reports.time_cluster(
            device=self._setup.device, meter=self._setup.meter, utc=utc, local=local
        )

    def _message_report(self, moment: Moment, at_s: float) -> bytes:
        del moment, at_s
        return reports.message_cluster(
            device=self._setup.device,
            meter=self._setup.meter,
            time=self._message_clock,
            message=self._message,
            extended=self._model.extended,
        )

    def _confirm_message(self, command: Command, _: Moment) -> list[bytes]:
        if self._message and command.number("id") == self._message.id:
            self._message = replace(self._message, confirmed=True)
        return []

    def _fast_poll_status(self) -> bytes:
        return reports.fast_poll_status(
            device=self._setup.device,
            meter=self._setup.meter,
            frequency_s=min(self._fast_poll.frequency_s, 0xFF),
            end=self._fast_poll.end,
        )


class _Register:
    """The meter's two registers in Wh, fed by the last demand over the time that passed."""

    def __init__(self, delivered_wh: float, received_wh: float) -> None:
        self.delivered_wh = delivered_wh
        self.received_wh = received_wh
        self.watts = 0.0
        self.scale = (1, 1000)
        self._at_s: float | None = None

    @property
    def net_wh(self) -> float:
        return self.delivered_wh - self.received_wh

    def measure(self, sample: Sample, elapsed_s: float) -> None:
        self.advance(elapsed_s)
        self.watts = sample.watts
        self.scale = (sample.multiplier, sample.divisor)
        self._at_s = elapsed_s

    def advance(self, elapsed_s: float) -> None:
        if self._at_s is not None:
            energy_wh = self.watts * (elapsed_s - self._at_s) / 3600
            self.delivered_wh += max(energy_wh, 0.0)
            self.received_wh += max(-energy_wh, 0.0)
            self._at_s = elapsed_s

    def counts(self, energy_wh: float) -> int:
        multiplier, divisor = self.scale
        return int(energy_wh / 1000 * (divisor or 1) / (multiplier or 1))


class _Spread:
    """Keeps demands that share a TimeStamp apart, so that none is taken for another sent again."""

    def __init__(self) -> None:
        self._clock = UNSET
        self._after: dict[int, int] = {}

    def unused(self, raw: int, clock: int) -> int:
        if clock == UNSET:
            return raw
        if clock != self._clock:
            self._clock = clock
            self._after.clear()
        free = raw
        while free in self._after:
            free = self._after[free]
        self._after[raw] = self._after[free] = free + 1
        return free


@dataclass(slots=True)
class _Period:
    base_wh: float
    start: int = UNSET
    updated: int = UNSET
    usage_wh: float = 0.0
    last_wh: float = 0.0
    last: tuple[int, int] = (UNSET, UNSET)


@dataclass(frozen=True, slots=True)
class _FastPoll:
    frequency_s: int = 0
    until_s: float = -math.inf
    end: int = UNSET


@dataclass(frozen=True, slots=True)
class _Cached:
    fragment: bytes = b""
    at_s: float = 0.0


def _tariff(hour: int) -> reports.Price:
    if hour in _PEAK_HOURS:
        return reports.Price(2140, 4, "Tier 2", tier=2)
    return reports.Price(1090, 4, "Tier 1", tier=1)


def _nothing(_: Command, __: Moment) -> list[bytes]:
    return []
