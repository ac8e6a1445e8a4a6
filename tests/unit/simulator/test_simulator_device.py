"""Schedule, registers and answers of the simulated stick."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from raven_simulator.commands import Command, Commands
from raven_simulator.device import Device
from raven_simulator.load import Household, Playback, Sample, Source, Table
from raven_simulator.models import EMU2, RAVEN, Model, Setup
from raven_simulator.reports import fields_of, kind_of
from raven_simulator.station import Moment

CLOCK = 0x3136E6C0


def make(model: Model = RAVEN, *, seed: int = 1, source: Source | None = None, **setup: float):
    rng = random.Random(seed)
    return Device(model, replace(Setup(device=1, meter=2), **setup), source or Household(rng), rng)


def at(elapsed_s: float):
    return Moment(elapsed_s, CLOCK + int(elapsed_s))


def run(device: Device, until_s: float):
    """Everything sent from start until until_s, each at the moment it is due."""
    sent = device.start(at(0))
    while (due_s := device.due_s()) <= until_s:
        sent += device.due(at(due_s))
    return sent


def ask(device: Device, name: str, elapsed_s: float = 0.0, **parameters: str):
    return device.answer(Command(name, parameters), at(elapsed_s))


def kinds(fragments: list[bytes]):
    return Counter(kind_of(fragment) for fragment in fragments)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            RAVEN,
            {
                "connection_status": 1,
                "instantaneous_demand": 450,
                "current_summation_delivered": 15,
                "price_cluster": 40,
                "message_cluster": 30,
                "time_cluster": 4,
            },
        ),
        (
            EMU2,
            {
                "connection_status": 1,
                "instantaneous_demand": 240,
                "current_summation_delivered": 15,
                "price_cluster": 40,
                "time_cluster": 4,
            },
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_hour_holds_the_models_schedule(model: Model, expected: dict[str, int]):
    """An hour of a model holds as many reports of each kind as its default schedule says."""
    assert kinds(run(make(model), 3600)) == expected


def test_speed_shortens_the_schedule_and_not_the_clock():
    """At 60 times the speed a minute holds an hour's reports, stamped with the minute."""
    sent = run(make(speed=60), 60)
    assert kinds(sent)["instantaneous_demand"] == 450
    stamps = [int(str(fields_of(f)["TimeStamp"]), 16) for f in sent if b"<Demand>" in f]
    assert stamps[0] == CLOCK
    assert stamps[-1] == CLOCK + 60


def test_demands_of_one_second_differ():
    """However many demands share a TimeStamp, none repeats another, so none is taken for a repetition."""
    device = make(speed=16000)
    device.start(at(0))
    demands = []
    while len(demands) < 2000:
        demands += [f for f in device.due(Moment(0.999, CLOCK)) if b"<Demand>" in f]
        if device.due_s() > 0.999:
            break
    assert len(demands) > 1900
    assert len(set(demands)) == len(demands)


def test_registers_hold_the_reported_demand_over_wall_time():
    """Two hours at 2 kW and then two at -1 kW put 4 kWh into one register and 2 kWh into the other, at any speed."""
    samples = [Sample(2000, exact=True)] * 2 + [Sample(-1000, exact=True)] * 3
    device = make(source=Playback(Table(samples, 0)), speed=8 / 3600, delivered_wh=500)
    sent = run(device, 4 * 3600 + 3600)
    fields = fields_of(ask(device, "get_current_summation_delivered", 5 * 3600, refresh="Y")[0])
    assert int(str(fields["SummationDelivered"]), 16) == 500 + 4000
    assert int(str(fields["SummationReceived"]), 16) == 2000
    assert len(str(fields["SummationDelivered"])) == len("0x") + 8
    demands = [fields_of(f)["Demand"] for f in sent if b"<Demand>" in f]
    assert demands == ["0x0007d0", "0x0007d0", "0xfffffc18", "0xfffffc18", "0xfffffc18"]


def profile(device: Device, elapsed_s: float, **parameters: str):
    """Status and intervals, oldest first, of an answer."""
    fields = fields_of(ask(device, "get_profile_data", elapsed_s, **parameters)[0])
    intervals = fields.get("IntervalData", [])
    several = [intervals] if isinstance(intervals, str) else intervals
    return int(fields["Status"], 16), [int(one, 16) for one in reversed(several)]


def test_intervals_add_up_to_the_registers():
    """What both channels say of the quarters of two hours is what the registers grew by meanwhile."""
    device = make(source=Household(random.Random(3), solar=True), day_s=11 * 3600)
    start = 900 - CLOCK % 900
    device.start(at(0))
    counts = []
    for until_s in (start, start + 7200):
        while (due_s := device.due_s()) <= until_s:
            device.due(at(due_s))
        summation = ask(device, "get_current_summation_delivered", until_s, refresh="Y")[0]
        counts.append(fields_of(summation))
    for channel, name in (("Delivered", "SummationDelivered"), ("Received", "SummationReceived")):
        asked = {"numberofperiods": "0x08", "endtime": "0", "intervalchannel": channel}
        before, after = (int(one[name], 16) for one in counts)
        status, intervals = profile(device, start + 7200, **asked)
        assert (status, len(intervals), sum(intervals)) == (0, 8, after - before)


def test_intervals_end_where_asked_and_begin_with_the_meter():
    """An answer goes back from EndTime; there is none from before the start, as its status says."""
    device = make(source=Playback(Table((Sample(2000),), 0)))
    run(device, 3 * 3600)
    asked = {"numberofperiods": "0x0c", "intervalchannel": "Delivered"}
    assert profile(device, 3 * 3600, endtime="0", **asked) == (0, [500] * 11)
    assert profile(device, 3 * 3600, endtime=hex(CLOCK + 3600), **asked) == (0, [500] * 3)
    assert profile(device, 3 * 3600, endtime=hex(CLOCK), **asked) == (5, [])


def test_an_interval_is_the_same_whenever_it_is_asked_for():
    """What a second's fraction is at the time of the question changes no interval."""
    device = make(source=Household(random.Random(3)))
    run(device, 3 * 3600)
    asked = {"numberofperiods": "0x08", "endtime": hex(CLOCK + 9000)}
    answers = [profile(device, 3 * 3600 + part, **asked) for part in (0.0, 0.5, 0.9)]
    assert answers[0] == answers[1] == answers[2]


def test_an_emu2_sends_a_price_from_its_cache():
    """An EMU-2 re-sends a price unchanged, TimeStamp too, for 1800 s; a RAVEn's are all new."""

    def stamps(model: Model):
        sent = run(make(model), 3600)
        return len({fields_of(f)["TimeStamp"] for f in sent if kind_of(f) == "price_cluster"})

    assert stamps(EMU2) == 2
    assert stamps(RAVEN) == 40


ANSWERS = {
    "initialize": {},
    "factory_reset": {},
    "get_connection_status": {"connection_status": 1},
    "get_device_info": {"device_info": 1},
    "get_network_info": {"network_info": 1},
    "get_schedule": {"schedule_info": 5},
    "get_meter_list": {"meter_list": 1},
    "get_meter_info": {"meter_info": 1},
    "get_time": {"time_cluster": 1},
    "get_message": {"message_cluster": 1},
    "get_current_price": {"price_cluster": 1},
    "set_current_price": {"price_cluster": 1},
    "get_instantaneous_demand": {"instantaneous_demand": 1},
    "get_current_summation_delivered": {"current_summation_delivered": 1},
    "get_current_period_usage": {"current_period_usage": 1},
    "get_last_period_usage": {"last_period_usage": 1},
    "get_profile_data": {"profile_data": 1},
    "set_fast_poll": {},
    "close_current_period": {},
    "set_meter_info": {},
    "set_schedule": {},
    "confirm_message": {},
    "restart": {"connection_status": 3},
    "get_price_blocks": {"warning": 1},
    "no_such_command": {"warning": 1},
}
ANSWERS_EMU2 = ANSWERS | {
    "get_schedule": {"schedule_info": 9},
    "set_fast_poll": {"fast_poll_status": 1},
    "get_fast_poll_status": {"fast_poll_status": 1},
    "get_price_blocks": {"block_price_detail": 1},
    "get_billing_periods": {"billing_period_list": 1},
    "no_such_command": {},
}


@pytest.mark.parametrize(
    ("model", "answers"), [(RAVEN, ANSWERS), (EMU2, ANSWERS_EMU2)], ids=["raven", "emu2"]
)
def test_commands_are_answered(model: Model, answers: dict[str, dict[str, int]]):
    """Each command is answered by the notification that the model answers with, and an unknown one as it does."""
    device = make(model)
    device.start(at(0))
    assert {name: dict(kinds(ask(device, name))) for name in answers} == answers


def test_set_schedule_changes_one_event():
    """A schedule that was set is followed and told, the others stay, and disabled means silent."""
    device = make()
    device.start(at(0))
    ask(device, "set_schedule", event="demand", frequency="0x0000003c", enabled="Y")
    ask(device, "set_schedule", event="price", frequency="0x0000005a", enabled="N")
    (told,) = ask(device, "get_schedule", event="demand")
    assert fields_of(told)["Frequency"] == "0x0000003c"
    sent = []
    while device.due_s() <= 3600:
        sent += device.due(at(device.due_s()))
    assert kinds(sent)["instantaneous_demand"] == 60
    assert kinds(sent)["price_cluster"] == 0
    assert kinds(sent)["current_summation_delivered"] == 15


def test_a_user_price_lasts_until_cleared():
    """A price set by the host is the device's price until a price of 0 is set."""
    device = make()
    device.start(at(0))
    (answer,) = ask(device, "set_current_price", price="0x7b", trailingdigits="0x02")
    assert fields_of(answer)["TierLabel"] == "Set by User"
    assert fields_of(ask(device, "get_current_price")[0])["Price"] == "0x0000007b"
    ask(device, "set_current_price", price="0", trailingdigits="0")
    assert fields_of(ask(device, "get_current_price")[0])["TierLabel"] != "Set by User"


def test_a_demand_without_refresh_comes_from_the_cache():
    """Asked without Refresh the device repeats its last demand, TimeStamp too; with it, it measures."""
    device = make()
    (scheduled,) = run(device, 8)[1:]
    assert ask(device, "get_instantaneous_demand", 9) == [scheduled]
    assert ask(device, "get_instantaneous_demand", 9, refresh="Y") != [scheduled]


def test_the_same_seed_sends_the_same():
    """Two devices with one seed send the same bytes; another seed sends others."""
    assert run(make(seed=5), 3600) == run(make(seed=5), 3600)
    assert run(make(seed=5), 3600) != run(make(seed=6), 3600)


def test_commands_in_any_pieces():
    """Commands are found byte by byte, between noise, in any case, with a closing tag in another case."""
    stream = (
        b"\r\n\0garbage</Command><Command><Name>half"
        b"<COMMAND><Name>Get_Time</name><Refresh>Y</Refresh></command>\r\n"
        b"<Command>\n <name>set_current_price</name>\n <Price>0x0000007b</Price></Command>"
    )
    commands = Commands()
    found = [c for byte in stream for c in commands.feed(bytes([byte])) if c.name]
    assert [c.name for c in found] == ["get_time", "set_current_price"]
    assert found[0].flag("refresh", default=False)
    assert found[1].number("price") == 123


def test_endless_noise_from_the_host_is_forgotten():
    """A host that never completes a command costs a bounded buffer, and the next command is still heard."""
    commands = Commands()
    for _ in range(1000):
        assert commands.feed(b"<Command><Name>" + b"x" * 100) == []
    assert len(commands._buffer) <= 4096
    assert [c.name for c in commands.feed(b"<Command><Name>restart</Name></Command>")] == [
        "restart"
    ]
