"""Ledger of what was sent: one JSON line for each report and each command."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from raven_simulator.reports import UNSET, fields_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raven_simulator.faults import Sent


@dataclass(slots=True)
class Tally:
    """Counts of what a device sent."""

    kinds: Counter[str] = field(default_factory=Counter)
    heard: int = 0
    whole: int = 0
    cached: int = 0
    commands: int = 0

    @property
    def sent(self) -> int:
        """Reports of all kinds."""
        return self.kinds.total()

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{self.sent} reports ({kinds or 'none'}), {self.heard} heard, "
            f"{self.whole} whole, {self.heard - self.whole} damaged, "
            f"{self.sent - self.heard} unheard, {self.cached} cached, {self.commands} commands"
        )


class Ledger:
    """Records what one device sent; several may share an output."""

    def __init__(self, device: int, output: TextIO | None = None) -> None:
        self.tally = Tally()
        self._device = f"{device:016x}"
        self._output = output
        self._repeats = _Repeats()
        self._n = 0

    def report(self, sent: Sent, *, heard: bool, unix_s: float) -> None:
        """Record a report once its fate is known: heard is whether a reader held the line and took every byte."""
        kind = kind_of(sent.fragment) or "unknown"
        fields = fields_of(sent.fragment)
        whole = heard and sent.whole
        cached = whole and self._repeats.again(kind, fields, sent.fragment)
        self._n += 1
        self.tally.kinds[kind] += 1
        self.tally.heard += heard
        self.tally.whole += whole
        self.tally.cached += cached
        self._write(
            {
                "device": self._device,
                "n": self._n,
                "at": _rfc3339(unix_s),
                "kind": kind,
                "heard": heard,
                "whole": whole,
                "cached": cached,
                "fault": sent.fault,
                "fields": fields,
            }
        )

    def command(self, name: str, unix_s: float) -> None:
        """Record a command from the host."""
        self.tally.commands += 1
        self._write({"command": name, "at": _rfc3339(unix_s), "device": self._device})

    def summary(self) -> str:
        """One line for people: the device and its counts."""
        return f"{self._device}: {self.tally}"

    def _write(self, entry: Mapping[str, object]) -> None:
        if self._output is not None:
            self._output.write(json.dumps(entry) + "\n")
            self._output.flush()


class _Repeats:
    """Knows a report that already reached a reader whole, unchanged and with the same time."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, set[bytes]]] = {}

    def again(self, kind: str, fields: Mapping[str, object], fragment: bytes) -> bool:
        stamp = fields.get("TimeStamp", fields.get("UTCTime"))
        if stamp in (None, "", f"0x{UNSET:08x}"):
            return False
        known, fragments = self._seen.get(kind, (None, set()))
        if known != stamp:
            self._seen[kind] = (stamp, {fragment})
            return False
        if fragment in fragments:
            return True
        fragments.add(fragment)
        return False


def _rfc3339(unix_s: float) -> str:
    return (
        datetime.fromtimestamp(unix_s, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
