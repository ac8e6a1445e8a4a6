"""The line as the service lives with it, against ports and a clock of the test's own."""

from __future__ import annotations

import re
import threading
from itertools import pairwise
from queue import Queue

import pytest
from tenacity import wait_none

from raven_reader import line as module
from raven_reader.line import COMMAND_PAUSE_S, OPENING_COMMANDS, Line
from raven_reader.serial_port import PortError

REPORT = b"whole"


class Gone(Exception):  # noqa: N818 - what happens to a port
    """In a script: the stick is pulled out now."""


class World:
    """Ports that say what a script holds, one entry a read, half a second each.

    A script's entry is bytes, or Gone; after its end the line is silent.
    """

    def __init__(self, *scripts, until_s=3600.0):
        self.now = 100.0
        self.stop = threading.Event()
        self.told = []
        self.written = []
        self.closed = []
        self.commands = Queue()
        self._scripts = list(scripts)
        self._until = self.now + until_s
        self.opens = 0
        self.pauses = []
        self.question = None
        self.noted = []

    def open(self):
        self.opens += 1
        script = self._scripts.pop(0) if self._scripts else None
        if script is None:
            self.stop.set()
            raise PortError("no more ports")
        if isinstance(script, str):
            raise PortError(script)
        return FakePort(self, f"/dev/ttyACM{self.opens}", list(script))

    def pause(self, lived_s):
        self.pauses.append(lived_s)
        return 0.0

    # The listener.

    def opened(self, port):
        self.told.append(("opened", port))

    def bytes_came(self, data):
        if data:
            self.told.append(("came", data))
        return data == REPORT

    def silent(self, for_s):
        self.told.append(("silent", for_s))

    def lost(self, reason):
        self.told.append(("lost", reason))

    def next_command(self):
        return self.question

    def command_sent(self, command):
        self.noted.append(command)

    def run(self, *, ask_after_s=120.0, reopen_after_s=300.0, link_ask_s=3600.0):
        line = Line(
            self.open,
            self,
            self.commands,
            ask_after_s=ask_after_s,
            reopen_after_s=reopen_after_s,
            link_ask_s=link_ask_s,
            clock=lambda: self.now,
            pause_s=self.pause,
        )
        line.run(self.stop)
        return self

    @property
    def sent(self):
        """Times and names of the commands that were written."""
        names = ((at, re.search(rb"<Name>(\w+)</Name>", data)) for at, data in self.written)
        return [(at, name[1].decode()) for at, name in names if name]


class FakePort:
    def __init__(self, world, name, script):
        self.name = name
        self._world = world
        self._script = script

    def read(self):
        self._world.now += 0.5
        if self._world.now >= self._world._until:
            self._world.stop.set()
        said = self._script.pop(0) if self._script else b""
        if said is Gone:
            raise PortError(f"{self.name} is gone")
        return said

    def write(self, data):
        self._world.written.append((self._world.now, data))

    def close(self):
        self._world.closed.append(self.name)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(module, "PORT_WAIT", wait_none())


def test_the_opening_commands_are_paced():
    """After a line end, what the device may never say by itself is asked, one command a second."""
    world = World([REPORT] * 60, until_s=25).run()
    assert world.written[0] == (100.0, b"\r\n")
    assert [name for _, name in world.sent] == list(OPENING_COMMANDS)
    times = [at for at, _ in world.sent]
    assert all(b - a >= COMMAND_PAUSE_S for a, b in pairwise(times))
    assert times[-1] - times[0] < 2 * COMMAND_PAUSE_S * len(times)


def test_commands_from_the_bus_are_paced_too():
    """Commands that come all at once are sent in order, each with its pause, none lost."""
    world = World([REPORT] * 60, until_s=25)
    for number in range(5):
        world.commands.put(f"<Command><Name>get_{number}</Name></Command>\r\n".encode())
    world.run()
    assert [name for _, name in world.sent if name[4:].isdigit()] == [f"get_{n}" for n in range(5)]
    times = [at for at, _ in world.sent]
    assert all(b - a >= COMMAND_PAUSE_S for a, b in pairwise(times))


def test_the_link_is_asked_for_now_and_then():
    """What a stick says of its link only when asked is asked at each interval, while it is idle."""
    world = World([REPORT, b"", b"", b""] * 500, until_s=1000).run(link_ask_s=300.0)
    at = [at - 100 for at, name in world.sent if name == "get_connection_status"]
    assert [round(each, -2) for each in at] == [0, 300, 600, 900]


def test_a_question_waits_until_the_device_is_idle_and_nothing_else_is_to_be_sent():
    """One that speaks all the time is never asked; what was sent is noted, whoever sent it."""
    question = b"<Command><Name>get_profile_data</Name></Command>\r\n"
    person = b"<Command><Name>get_time</Name></Command>\r\n"
    busy, idle = (World(script * 60, until_s=25) for script in ([REPORT], [REPORT, b"", b"", b""]))
    for world in (busy, idle):
        world.question = question
        world.commands.put(person)
        world.run()
        names = [name for _, name in world.sent]
        assert names[: len(OPENING_COMMANDS) + 1] == [*OPENING_COMMANDS, "get_time"]
        assert world.noted == [data for _, data in world.written[1:]]
    assert question not in busy.noted
    assert question in idle.noted


def test_a_silent_device_is_asked_once_then_reopened():
    """After ask_after_s one question, after reopen_after_s the port is opened again."""
    world = World([REPORT], [REPORT]).run()
    silent = [event for event in world.told if event[0] == "silent"]
    assert silent == [("silent", 120.0), ("silent", 120.0)]
    asked = [at for at, name in world.sent if name == "get_instantaneous_demand"]
    assert asked == [220.5, 521.0]
    assert world.closed == ["/dev/ttyACM1", "/dev/ttyACM2"]
    lost = [event for event in world.told if event[0] == "lost"]
    assert lost[0] == ("lost", "/dev/ttyACM1: silent for 300 s, reopening")


def test_noise_is_silence():
    """Bytes of which no fragment is whole do not keep a line open for ever."""
    world = World([b"noise"] * 700).run()
    assert world.closed == ["/dev/ttyACM1"]
    assert ("silent", 120.0) in world.told


def test_a_device_that_answers_is_not_reopened():
    """An answer to the question begins a new silence."""
    world = World(([REPORT] + [b""] * 399) * 5, until_s=1000).run()
    assert world.opens == 1
    assert len([event for event in world.told if event[0] == "silent"]) == 5


def test_an_unplugged_stick_returns_under_another_name():
    """A port that is gone is closed, tried until one opens, and then listened to."""
    world = World([REPORT, Gone], "nothing there", "nothing there", [REPORT, Gone]).run()
    assert world.told == [
        ("opened", "/dev/ttyACM1"),
        ("came", REPORT),
        ("lost", "/dev/ttyACM1 is gone"),
        ("lost", "nothing there"),
        ("lost", "nothing there"),
        ("opened", "/dev/ttyACM4"),
        ("came", REPORT),
        ("lost", "/dev/ttyACM4 is gone"),
        ("lost", "no more ports"),
    ]
    assert world.closed == ["/dev/ttyACM1", "/dev/ttyACM4"]


def test_a_port_that_cannot_be_closed_is_left():
    """An error in closing a port that is gone does not end the listening."""
    world = World([REPORT, Gone], [REPORT, Gone])
    real = FakePort.close

    def close(port):
        real(port)
        raise PortError("closed already")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakePort, "close", close)
        world.run()
    assert world.opens == 3


def test_a_stop_closes_the_port():
    """A stop ends the listening within one read, and gives the port back."""
    world = World([REPORT] * 1000, until_s=3).run()
    assert world.closed == ["/dev/ttyACM1"]
    assert len(world.told) <= 1 + 6


def test_a_port_that_opens_and_fails_does_not_pile_up_commands():
    """However often a port opens and fails at once, the commands that wait stay few."""
    world = World(*[[Gone]] * 50).run()
    assert world.commands.qsize() <= len(OPENING_COMMANDS)


def test_a_port_that_opens_and_fails_is_not_tried_without_a_pause():
    """A port that fails before anything was heard counts as short-lived, one that spoke does not."""
    world = World([Gone], [REPORT, Gone], [Gone]).run()
    assert world.pauses[:3] == [0.0, float("inf"), 0.0]
