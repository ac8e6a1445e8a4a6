"""Input of the benches, made from the simulator's reports: fragments, and the readings of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator

from raven_reader.decoding import decode
from raven_reader.framing import Parser
from raven_simulator import reports
from ravenbus.messages import Envelope, Reading, now
from ravenbus.notifications import Notification

DEVICE = 0x00158D0000000004
METER = 0x00078100001F1D2A
START = 0x2F000000
PIECE = 4096
"""Bytes fed at once, and what raven2mqtt reads at once."""

Report = Callable[[random.Random, int], bytes]


def _demand(chance: random.Random, time: int) -> bytes:
    return reports.instantaneous_demand(
        device=DEVICE, meter=METER, time=time, demand=chance.randrange(-4000, 9000)
    )


def _summation(chance: random.Random, time: int) -> bytes:
    return reports.current_summation_delivered(
        device=DEVICE,
        meter=METER,
        time=time,
        delivered=10_000_000 + time - START,
        received=chance.randrange(1_000_000),
    )


def _price(_chance: random.Random, time: int) -> bytes:
    price = reports.Price(raw=1387, trailing_digits=4, label="Set by User")
    return reports.price_cluster(device=DEVICE, meter=METER, time=time, price=price, window=None)


def _time(_chance: random.Random, time: int) -> bytes:
    return reports.time_cluster(device=DEVICE, meter=METER, utc=time, local=time - 18000)


def _message(_chance: random.Random, time: int) -> bytes:
    message = reports.Message(id=7, text="Peak hours from 4 to 9 p.m.")
    return reports.message_cluster(device=DEVICE, meter=METER, time=time, message=message)


def _network(_chance: random.Random, _time: int) -> bytes:
    network = reports.Network(ext_pan=0x001C640011EBBD5E)
    return reports.network_info(device=DEVICE, coordinator=METER, network=network)


MIX: tuple[Report, ...] = (
    *[_demand] * 14,
    *[_summation] * 2,
    _price,
    _time,
    _message,
    _network,
)
"""Kinds that both peers know too; seven of ten are demands, a real line has more of them."""


def fragments(count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield so many whole fragments with changing values, in the order of a shuffled mix."""
    chance = random.Random(seed)
    mix = list(MIX)
    for number in range(count):
        if number % len(mix) == 0:
            chance.shuffle(mix)
        yield mix[number % len(mix)](chance, START + 8 * number)


def pieces(data: bytes) -> list[bytes]:
    """Return the bytes as a serial port would hand them over."""
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


def notifications(count: int, seed: int = 1) -> list[Notification]:
    """Return so many notifications."""
    parser = Parser()
    return [decode(found) for data in fragments(count, seed) for found in parser.feed(data)]


def readings(node: str, count: int, seed: int = 1) -> list[Reading]:
    """Return so many readings of a run of their own."""
    run = str(uuid.uuid4())
    at = now()
    return [
        Reading(Envelope(node=node, run="bench", hash=run, seq=seq, received=at), notification)
        for seq, notification in enumerate(notifications(count, seed), 1)
    ]
