"""Events that happen to a device at a time ordered beforehand, in wall seconds since its start."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing is sent for for_s seconds after at_s, and again each every_s."""

    at_s: float
    for_s: float
    every_s: float | None = None

    def holds(self, elapsed_s: float) -> bool:
        """Return True if it is silent now."""
        since = elapsed_s - self.at_s
        if since >= 0 and self.every_s is not None:
            since %= self.every_s
        return 0 <= since < self.for_s


@dataclass(frozen=True, slots=True)
class Unplug:
    """The port goes away at at_s and comes back after for_s, under link where one is given."""

    at_s: float
    for_s: float
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The port goes away in the middle of the report after at_s, and comes back at once."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Stall:
    """The USB device refuses its host's transfers from at_s until the driver has cleared that."""

    at_s: float


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The device's clock jumps by by_s seconds at at_s."""

    at_s: float
    by_s: float


@dataclass(frozen=True, slots=True)
class UnsetClock:
    """The device's clock is not set before until_s; None: never."""

    until_s: float | None = None


Timed = Silence | Unplug | Reset | Stall | ClockJump | UnsetClock


class Timeline:
    """Timed faults of the device with a number, to be asked at any time; what befalls the port is handed out once."""

    def __init__(self, faults: tuple[Timed, ...] = (), number: int = 0) -> None:
        self._silences = [fault for fault in faults if isinstance(fault, Silence)]
        self._jumps = [fault for fault in faults if isinstance(fault, ClockJump)]
        self._unset = [fault for fault in faults if isinstance(fault, UnsetClock)]
        self._port = sorted(
            (
                replace(fault, link=fault.link and fault.link.replace("{n}", str(number)))
                if isinstance(fault, Unplug)
                else fault
                for fault in faults
                if isinstance(fault, Unplug | Reset | Stall)
            ),
            key=lambda fault: fault.at_s,
        )

    def silent(self, elapsed_s: float) -> bool:
        """Return True if the device is silent."""
        return any(silence.holds(elapsed_s) for silence in self._silences)

    def clock_offset_s(self, elapsed_s: float) -> float:
        """Return by how many seconds the device's clock is off."""
        return sum(jump.by_s for jump in self._jumps if jump.at_s <= elapsed_s)

    def clock_unset(self, elapsed_s: float) -> bool:
        """Return True if the device's clock is not set yet."""
        return any(unset.until_s is None or elapsed_s < unset.until_s for unset in self._unset)

    def next_of_port(self, elapsed_s: float) -> Unplug | Reset | Stall | None:
        """Return what is due to befall the port, once."""
        if self._port and self._port[0].at_s <= elapsed_s:
            return self._port.pop(0)
        return None
