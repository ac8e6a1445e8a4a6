"""The stick: what it is, what it sends, and what it answers.  No clock and no line of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raven_simulator import reports
from raven_simulator.meter import Meter
from raven_simulator.reports import UNSET
from raven_simulator.schedule import Schedule

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from raven_simulator.commands import Command
    from raven_simulator.load import Source
    from raven_simulator.models import Model, Setup
    from raven_simulator.station import Moment

    Handler = Callable[[Command, Moment], list[bytes] | None]

# A batch lets the line be written and read between reports when many are due.
_BATCH: Final = 64


class Device:
    """A RAVEn or EMU-2 joined to one meter."""

    def __init__(self, model: Model, setup: Setup, source: Source, rng: random.Random) -> None:
        self._model = model
        self._ids = setup.ids
        self._network = reports.Network(ext_pan=setup.meter, channel=rng.randint(11, 26))
        self._meter = Meter(model, setup, source)
        self._reports: Mapping[str, Callable[[Moment, float], bytes]] = {
            "demand": self._meter.demand,
            "summation": self._meter.summation,
            "price": self._meter.price,
            "message": self._meter.message,
            "time": self._meter.time,
        }
        self._schedule = Schedule(model.periods_s, self._reports, setup.speed)
        self._sent: dict[str, bytes] = {}
        self._account: dict[str, str] = {"nickname": "House"}
        self._handlers = self._commands()

    def start(self, moment: Moment) -> list[bytes]:
        """Start the schedule and return ConnectionStatus Connected."""
        self._meter.start(moment)
        self._schedule.start(moment)
        return self._joined()

    def restart(self, moment: Moment) -> list[bytes]:
        """Start the schedule anew and return the ConnectionStatus series of a device that rejoins."""
        self._schedule.start(moment)
        rejoining = [self._status(status, None, 0) for status in ("Initializing", "Rejoining")]
        return [*rejoining, *self._joined()]

    def due_s(self) -> float:
        """Elapsed wall seconds at which the next report is due; infinity when every event is disabled."""
        return self._schedule.due_s()

    def due(self, moment: Moment) -> list[bytes]:
        """Scheduled reports due by now, oldest first, not more than a batch."""
        found: list[bytes] = []
        while len(found) < _BATCH and (taken := self._schedule.take(moment)):
            found.append(self._report(*taken, moment))
        return found

    def skip(self, moment: Moment) -> None:
        """Leave out what is due by now; the schedule keeps its phase."""
        self._schedule.skip(moment)

    def answer(self, command: Command, moment: Moment) -> list[bytes]:
        """Notifications in answer to a command (RAVEn XML API r127 p.8-29)."""
        handler = self._handlers.get(command.name)
        if handler is None:
            return [reports.warning()] if self._model.warns else []
        return handler(command, moment) or []

    def _report(self, event: str, at_s: float, moment: Moment) -> bytes:
        self._sent[event] = self._reports[event](moment, at_s)
        return self._sent[event]

    def _commands(self) -> Mapping[str, Handler]:
        meter, identity = self._meter, self._model.identity
        device, meter_id = self._ids["device"], self._ids["meter"]
        handlers: dict[str, Handler] = {
            "initialize": lambda *_: None,
            "factory_reset": lambda *_: None,
            "restart": lambda _, moment: self.restart(moment),
            "get_connection_status": lambda *_: self._joined(),
            "get_network_info": self._get_network_info,
            "get_device_info": lambda *_: [reports.device_info(device=device, identity=identity)],
            "get_schedule": self._get_schedule,
            "set_schedule": self._set_schedule,
            "set_schedule_default": self._set_schedule_default,
            "get_meter_list": lambda *_: [reports.meter_list(device=device, meters=[meter_id])],
            "get_meter_info": self._get_meter_info,
            "set_meter_info": lambda command, _: self._account.update(command.parameters),
            "get_time": lambda _, moment: [meter.time(moment, 0)],
            "get_message": lambda _, moment: [meter.message(moment, 0)],
            "confirm_message": lambda command, _: meter.confirm_message(command.number("id")),
            "get_current_price": self._get_current_price,
            "set_current_price": self._set_current_price,
            "get_instantaneous_demand": self._cached("demand"),
            "get_current_summation_delivered": self._cached("summation"),
            "get_current_period_usage": lambda *_: [meter.period_usage()],
            "get_last_period_usage": lambda *_: [meter.last_period_usage()],
            "close_current_period": lambda _, moment: meter.close_period(moment),
            "get_profile_data": self._get_profile_data,
            "set_fast_poll": self._set_fast_poll,
        }
        if self._model.extended:
            handlers |= {
                "get_fast_poll_status": lambda *_: [self._fast_poll_status()],
                "get_price_blocks": lambda _, moment: [meter.price_blocks(moment)],
                "get_billing_periods": lambda _, moment: [meter.billing_periods(moment)],
            }
        return handlers

    # Of the meter

    def _cached(self, event: str) -> Handler:
        """Answer with what was sent last, unless a refresh is asked for."""

        def answer(command: Command, moment: Moment) -> list[bytes]:
            if not command.flag("refresh", default=False) and event in self._sent:
                return [self._sent[event]]
            return [self._report(event, self._schedule.at_s(moment), moment)]

        return answer

    def _get_profile_data(self, command: Command, moment: Moment) -> list[bytes]:
        received = command.parameters.get("intervalchannel", "").lower() == "received"
        end = min(command.number("endtime") or UNSET, moment.clock)
        asked = command.number("numberofperiods") or 0
        return [self._meter.profile(asked, end, moment, received=received)]

    def _get_current_price(self, command: Command, moment: Moment) -> list[bytes]:
        refresh = command.flag("refresh", default=False)
        price = self._meter.new_price if refresh else self._meter.price
        return [price(moment, self._schedule.at_s(moment))]

    def _set_current_price(self, command: Command, moment: Moment) -> list[bytes]:
        self._meter.set_price(*map(command.number, ("price", "trailingdigits", "currency")))
        return [self._meter.new_price(moment, self._schedule.at_s(moment))]

    # Of the schedule

    def _get_schedule(self, command: Command, _: Moment) -> list[bytes]:
        named = command.parameters.get("event", "").lower()
        mode = command.parameters.get("mode", "default") if self._model.extended else None
        return [
            reports.schedule_info(**self._ids, event=event, frequency_s=period_s, mode=mode)
            for event, period_s in self._schedule.periods_s.items()
            if named in ("", event)
        ]

    def _set_schedule(self, command: Command, moment: Moment) -> None:
        event = command.parameters.get("event", "").lower()
        frequency = command.number("frequency")
        if event in self._schedule.periods_s:
            period_s = self._schedule.periods_s[event]
            if not command.flag("enabled", default=True) or frequency in (0, UNSET):
                period_s = None
            elif frequency is not None and 0 < frequency < UNSET:
                period_s = frequency
            self._schedule.set(event, period_s, moment)

    def _set_schedule_default(self, command: Command, moment: Moment) -> None:
        named = command.parameters.get("event", "").lower()
        for event, period_s in self._model.periods_s.items():
            if named in ("", event):
                self._schedule.set(event, period_s, moment)

    def _set_fast_poll(self, command: Command, moment: Moment) -> list[bytes]:
        duration_s = (command.number("duration") or 0) * self._model.fast_poll_unit_s
        self._schedule.poll_fast(command.number("frequency") or 0, duration_s, moment)
        return [self._fast_poll_status()] if self._model.extended else []

    def _fast_poll_status(self) -> bytes:
        poll = self._schedule.fast_poll
        return reports.fast_poll_status(
            **self._ids, frequency_s=min(poll.frequency_s, 0xFF), end=poll.end
        )

    # Of the stick

    def _joined(self) -> list[bytes]:
        return [self._status("Connected", "Successfully Joined", 100)]

    def _status(self, status: str, description: str | None, link_strength: int) -> bytes:
        return reports.connection_status(
            **self._ids,
            status=status,
            description=description,
            network=self._network,
            link_strength=link_strength,
        )

    def _get_network_info(self, _: Command, __: Moment) -> list[bytes]:
        return [
            reports.network_info(
                device=self._ids["device"],
                coordinator=self._ids["meter"],
                description="Successfully Joined",
                network=self._network,
            )
        ]

    def _get_meter_info(self, _: Command, __: Moment) -> list[bytes]:
        known = self._account
        return [
            reports.meter_info(
                **self._ids,
                nick_name=known.get("nickname", ""),
                account=known.get("account", ""),
                auth=known.get("auth", ""),
                host=known.get("host", ""),
                enabled=known.get("enabled", "Y").upper() != "N",
            )
        ]
