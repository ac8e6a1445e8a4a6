"""The command line."""

from __future__ import annotations

import argparse
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raven_simulator import __version__, control, orders
from raven_simulator.models import INTERVALS, MODELS
from raven_simulator.ports import PortError, split_address
from raven_simulator.timeline import Stall, Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAST_MOST_H: Final = 240
"""Each minute of them is one of the moments that a meter remembers."""
_EXAMPLES: Final = """\
examples:
  raven-simulator --pty /tmp/ttyRAVEN                  a RAVEn with its real schedule
  raven-simulator --pty /tmp/ttyRAVEN --speed 60       an hour of reports in a minute
  raven-simulator --model emu2 --tcp 127.0.0.1:2000    an EMU-2 for socket://127.0.0.1:2000
  raven-simulator --model emu2 --usbip 127.0.0.1:3240  an EMU-2 for `usbip attach -r 127.0.0.1 -b 1-1`
  raven-simulator --pty /tmp/tty{n} --devices 5 --rate 200 --wait --count 10000 --ledger sent.jsonl
  raven-simulator --pty /tmp/ttyRAVEN --speed 30 --solar --fault cut:0.02 --fault nul --fault unplug:20,5
  raven-simulator --pty /tmp/ttyRAVEN --capture capture.txt --rate 100 --wait

  raven-simulator history --days 400 --homes 3 | raven-import --format jsonl -
                                                       a past of three homes; see `history --help`

faults (AT, SECONDS, EVERY, UNTIL: wall seconds since the start; PROBABILITY: of each report):
  garbage nul cut overwrite letters digit repeat negative sentinel   [:PROBABILITY], 0.05 if not given
  midstart chunks oneline ff                                         [:PROBABILITY], 1 if not given
  silence:AT,SECONDS[,EVERY]   unplug:AT,SECONDS[,NEWLINK]   reset:AT   stall:AT (of --usbip)
  clock:AT,SECONDS   unset-clock[:UNTIL]

control lines (--control), each answered by one line "ok ..." or "error ...":
  {forms}
  @N before a line means device N only, counted from 0

exit status: 0 done or stopped by SIGINT or SIGTERM, 2 bad usage or a port or file that cannot be used
"""


class Options(argparse.Namespace):
    """Options from the command line, checked."""

    model: str
    pty: str | None
    tcp: str | None
    usbip: str | None
    devices: int
    device_mac: int
    meter_mac: int
    wait: bool
    speed: float
    rate: float | None
    count: int | None
    duration: float | None
    seed: int
    solar: bool
    time_of_day: float | None
    csv: Path | None
    capture: Path | None
    message: str | None
    register: int | None
    negative_width: int
    past: float
    intervals: str
    fault: list[orders.Chance | Timed]
    control: bool
    ledger: Path | None


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="raven-simulator",
        description="A Rainforest RAVEn or EMU-2 smart-meter stick as a pseudo-terminal, TCP port or USB device, with faults to order.",
        epilog=_EXAMPLES.replace("{forms}", "; ".join(control.FORMS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"raven-simulator {__version__}")

    port = made.add_argument_group("port").add_mutually_exclusive_group(required=True)
    port.add_argument(
        "--pty", metavar="LINK", help="pseudo-terminal behind this link; {n} is the device's number"
    )
    port.add_argument("--tcp", metavar="HOST:PORT", help="TCP port, 0 for any free one")
    port.add_argument(
        "--usbip", metavar="HOST:PORT", help="USB device that `usbip attach` plugs into a Linux"
    )

    device = made.add_argument_group("device")
    device.add_argument("--model", choices=tuple(MODELS), default="raven", help="default: raven")
    device.add_argument(
        "--devices", metavar="N", type=_positive_int, default=1, help="so many devices; default: 1"
    )
    device.add_argument(
        "--device-mac", metavar="HEX", type=_mac, default=0xD8D5B90000001234, help="the first's id"
    )
    device.add_argument(
        "--meter-mac", metavar="HEX", type=_mac, default=0x0013500100ABCDEF, help="its meter's id"
    )
    device.add_argument("--message", metavar="TEXT", help="a message from the utility")
    device.add_argument(
        "--register", metavar="WH", type=_not_negative_int, help="meter's register at the start"
    )
    device.add_argument(
        "--negative-width",
        type=int,
        choices=(6, 8),
        default=8,
        help="hex digits of a negative demand: 6 (24 bits) or 8 (32 bits, default)",
    )
    device.add_argument(
        "--past",
        metavar="HOURS",
        type=_past_h,
        default=0.0,
        help=f"the meter has intervals from before the start, of {PAST_MOST_H} hours at most",
    )
    device.add_argument(
        "--intervals",
        choices=INTERVALS,
        default="kept",
        help="how get_profile_data is answered: with all, three at most, every third invalid, refused",
    )

    pace = made.add_argument_group("pace")
    either = pace.add_mutually_exclusive_group()
    either.add_argument(
        "--speed", metavar="N", type=_positive, default=1.0, help="N times the real schedule"
    )
    either.add_argument(
        "--rate", metavar="R", type=_positive, help="R demands a second, the rest in proportion"
    )
    pace.add_argument(
        "--count", metavar="N", type=_positive_int, help="stop after N reports of each device"
    )
    pace.add_argument("--duration", metavar="S", type=_positive, help="stop after S seconds")
    pace.add_argument(
        "--wait", action="store_true", help="start each device when its first reader has opened it"
    )

    load = made.add_argument_group("load")
    source = load.add_mutually_exclusive_group()
    source.add_argument("--solar", action="store_true", help="a household that exports at midday")
    source.add_argument(
        "--csv",
        metavar="FILE",
        type=Path,
        help="demands from rows of time, demand[, multiplier, divisor], one for each report, over and over",
    )
    source.add_argument(
        "--capture",
        metavar="FILE",
        type=Path,
        help="raw bytes of a capture as they are, a fragment in place of each demand, once",
    )
    load.add_argument(
        "--time-of-day",
        metavar="HH:MM",
        type=_time_of_day,
        help="where the household's day starts; default: now",
    )
    load.add_argument("--seed", metavar="N", type=int, default=1, help="of all chance; default: 1")

    test = made.add_argument_group("test")
    test.add_argument(
        "--fault",
        metavar="KIND[:...]",
        type=_fault,
        action="append",
        default=[],
        help="a fault to order, repeatable; see below",
    )
    test.add_argument("--ledger", metavar="FILE", type=Path, help="a JSON line for each report")
    test.add_argument("--control", action="store_true", help="obey lines on standard input")
    return made


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; bad usage ends the process with status 2 and says why."""
    made = parser()
    options = made.parse_args(arguments, namespace=Options())
    if options.pty and options.devices > 1 and "{n}" not in options.pty:
        made.error("--devices needs {n} in --pty, such as --pty /tmp/ttyRAVEN{n}")
    for name, address in (("--tcp", options.tcp), ("--usbip", options.usbip)):
        if address is None:
            continue
        try:
            _, number = split_address(address)
        except PortError as error:
            made.error(f"argument {name}: {error}")
        if number and number + options.devices > 1 << 16:
            made.error(f"argument {name}: not enough ports after the first for --devices")
    if not options.usbip and any(isinstance(fault, Stall) for fault in options.fault):
        made.error("only a USB device (--usbip) stalls")
    if max(options.device_mac, options.meter_mac) + options.devices > 1 << 64:
        made.error("--device-mac or --meter-mac leaves no room to count up")
    chances = {fault.kind for fault in options.fault if isinstance(fault, orders.Chance)}
    if options.capture and chances - {"chunks"}:
        made.error("--capture is played as it is: of the faults by chance it takes chunks only")
    return options


def now_of_day_s() -> float:
    """Second of the local day."""
    now = time.localtime()
    return now.tm_hour * 3600.0 + now.tm_min * 60 + now.tm_sec


def _checked(name: str, read: Callable[[str], float], least: float, text: str) -> float:
    try:
        number = read(text)
    except ValueError:
        number = math.nan
    if not least <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not {name}")
    return number


def _positive(text: str) -> float:
    return _checked("a number above 0", float, 1e-9, text)


def _past_h(text: str) -> float:
    if (hours := _positive(text)) > PAST_MOST_H:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {PAST_MOST_H} hours")
    return hours


def _positive_int(text: str) -> int:
    return int(_checked("a whole number above 0", int, 1, text))


def _not_negative_int(text: str) -> int:
    return int(_checked("a whole number, 0 or more", int, 0, text))


def _mac(text: str) -> int:
    if not re.fullmatch(r"(?:0x)?[0-9a-fA-F]{16}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 16 hex digits")
    return int(text, 16)


def _time_of_day(text: str) -> float:
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HH:MM")
    return int(found[1]) * 3600.0 + int(found[2]) * 60


def _fault(text: str) -> orders.Chance | Timed:
    try:
        return orders.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
