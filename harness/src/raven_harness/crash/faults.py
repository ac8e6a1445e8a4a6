"""Faults that can be done to the system: each kind a function that does and undoes it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from shutil import rmtree
from typing import Any, Final

import pymysql  # type: ignore[import-untyped]

from raven_harness.crash import hostile
from raven_harness.crash.links import CUT, STALL_BACK, STALL_OUT
from raven_harness.crash.script import RECORDERS, Fault
from raven_harness.crash.system import NODE, Breakable, Clock, Part, System
from ravensql.settings import MysqlUrl

CUT_EVERY_S: Final = 2.0
COMMIT_LIMIT_S: Final = 5.0
SILENT_S: Final = 1.5
"""Longer than a recorder waits for a batch: one is under way then."""

STICK_EPOCH: Final = 946_684_800
"""Zero of the stick's clock, 2000-01-01 UTC."""
POISON: Final = (
    "<InstantaneousDemand>\\r\\n<DeviceMacId>0xd8d5b90000001234</DeviceMacId>\\r\\n"
    "<MeterMacId>0x0013500100abcdef</MeterMacId>\\r\\n<TimeStamp>0x{stamp:08x}</TimeStamp>\\r\\n"
    "<Demand>0x70000000</Demand>\\r\\n<Multiplier>0x00000001</Multiplier>\\r\\n"
    "<Divisor>0x000003e8</Divisor>\\r\\n<DigitsRight>0x03</DigitsRight>\\r\\n"
    "<DigitsLeft>0x06</DigitsLeft>\\r\\n<SuppressLeadingZero>Y</SuppressLeadingZero>\\r\\n"
    "</InstantaneousDemand>\\r\\n"
)
"""A demand that no house draws, as an order to the stick to say it."""

Wait = Callable[[float], object]
"""Waits so many seconds, less when the run is ended."""


class SkippedError(Exception):
    """A fault cannot be done here."""


def do(system: Breakable, fault: Fault, wait: Wait) -> None:
    """Do a fault and make it good again; raise SkippedError if it cannot be done here."""
    if state := _STATES.get(fault.kind):
        with state(system, fault):
            wait(fault.for_s)
    else:
        _KINDS[fault.kind](system, fault, wait)


@contextmanager
def _down(parts: list[Part], number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    """Have parts end, all at once, and let them come back after the block, when they ended."""
    for part in parts:
        part.hold(number)
    try:
        yield
    finally:
        for part in parts:
            part.ended()
        for part in parts:
            part.release()


def _targets(system: Breakable, fault: Fault) -> list[Part]:
    return [system.parts[name] for name in fault.target.split("+")]


def _kill(system: Breakable, fault: Fault) -> AbstractContextManager[None]:
    return _down(_targets(system, fault))


def _stop(system: Breakable, fault: Fault) -> AbstractContextManager[None]:
    return _down(_targets(system, fault), signal.SIGTERM)


def _kill_backlog(system: System, fault: Fault, wait: Wait) -> None:
    """Kill a broker that holds what its stores, killed before, did not get."""
    stores = [*RECORDERS, "sql-writer"] if fault.target == "broker" else ["upstream-recorder"]
    with _down([system.parts[name] for name in stores]):
        wait(fault.for_s)
        with _down(_targets(system, fault)):
            wait(1.0)


def _kill_mid_commit(system: System, fault: Fault, wait: Wait) -> None:
    """Kill a database while a client waits for its answer to a commit."""
    (part,) = _targets(system, fault)
    with ExitStack() as ending:
        if part.name == "mariadb":
            _wait_for_transaction(system)
        else:
            ending.enter_context(part.paused())
            wait(SILENT_S)
        with _down([part]):
            wait(fault.for_s)


def _wait_for_transaction(system: System) -> None:
    """Return while a transaction has rows that are not committed, or after a while."""
    url = MysqlUrl(system.mariadb.admin_url)
    end = time.monotonic() + COMMIT_LIMIT_S
    try:
        with pymysql.connect(
            **url.addresses[0]._asdict(), user=url.user, password=url.password, connect_timeout=1
        ) as connection:
            cursor = connection.cursor()
            while time.monotonic() < end:
                cursor.execute(
                    "SELECT 1 FROM information_schema.innodb_trx WHERE trx_rows_modified"
                )
                if cursor.fetchone():
                    return
    except (pymysql.err.Error, OSError):
        pass  # it is down for another fault


def _partition(system: Breakable, fault: Fault, wait: Wait) -> None:
    link = system.links[fault.target]
    link.hold(fault.detail)
    if fault.detail == CUT:
        for _ in range(int(fault.for_s / CUT_EVERY_S)):
            wait(CUT_EVERY_S)
            link.hold(CUT)
            link.release(CUT)
    else:
        wait(fault.for_s)
    if fault.detail in (STALL_OUT, STALL_BACK):
        # What went one way alone is lost the other way: acknowledgements, for one.
        link.hold(CUT)
        link.release(CUT)
    link.release(fault.detail)


def _disk_full(system: System, _: Fault) -> AbstractContextManager[None]:
    if not system.disk.mounted:
        raise SkippedError("a small disk can be mounted by root alone")
    return system.disk.full()


def _clock(system: System, fault: Fault) -> AbstractContextManager[None]:
    if not Clock.LIBRARY.exists():
        raise SkippedError("what moves a clock needs a C compiler")
    return system.clocks[fault.target].off_by(int(fault.detail))


def _poison(system: Breakable, fault: Fault, wait: Wait) -> None:
    system.stick.tell(f"send {POISON.format(stamp=int(time.time()) - STICK_EPOCH)}")
    wait(fault.for_s)


def _wipe(system: System, fault: Fault, wait: Wait) -> None:
    """Delete all that a broker has, while it is down."""
    (part,) = _targets(system, fault)
    with _down([part]):
        part.ended()
        data = {"broker": system.broker, "upstream": system.upstream}[fault.target].data
        rmtree(data)
        data.mkdir()
        wait(fault.for_s)


def _hostile_home(system: System, fault: Fault, wait: Wait) -> None:
    run, _ = system.accepted()
    hostile.attack(system.broker.url(hostile.ACCOUNT), NODE, run, fault.for_s, wait)


_STATES: Final[Mapping[str, Callable[[Any, Fault], AbstractContextManager[None]]]] = {
    "kill": _kill,
    "kill-pair": _kill,
    "kill-everything": lambda system, _: _down(list(system.parts.values())),
    "stop": _stop,
    "scale": _stop,
    "upstream-away": _stop,
    "pause": lambda system, fault: system.parts[fault.target].paused(),
    "unplug": lambda system, _: system.stick.unplugged(),
    "disk-full": _disk_full,
    "clock": _clock,
}
"""Faults that are a state of the system for as long as they last."""
_KINDS: Final[Mapping[str, Callable[[Any, Fault, Wait], None]]] = {
    "kill-backlog": _kill_backlog,
    "kill-mid-commit": _kill_mid_commit,
    "partition": _partition,
    "poison": _poison,
    "wipe": _wipe,
    "hostile-home": _hostile_home,
}
