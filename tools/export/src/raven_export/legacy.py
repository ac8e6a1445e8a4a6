"""The CSV of python-raven's own table ``instantaneous_demand``: pure.

A line is ``time, demand, multiplier, divisor, run`` and, in some exports, ``hash``.  A reading of it
has an identity that is made for it, and that is the same each time: a run for each name and hash,
told apart by its first time, and numbers in the order of the lines.
"""

from __future__ import annotations

import csv
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec

from ravenbus.errors import ContractError
from ravenbus.messages import Envelope, Reading, Run
from ravenbus.notifications import InstantaneousDemand, scaled

COLUMNS: Final = ("time", "demand", "multiplier", "divisor", "run", "hash")
_NAMESPACE: Final = uuid.UUID("3d3e0f0c-6f4e-5b0a-9d52-7a1c4b0f3c11")
_PLACEHOLDER: Final = ["-1", "-1", "-1"]


class Legacy:
    """Makes readings of one home of the lines; ``placeholders`` counts what scripts made up."""

    def __init__(self, node: str, meter: str | None, zone: tzinfo) -> None:
        self.placeholders = 0
        self._node = node
        self._meter = meter
        self._zone = zone
        self._runs: dict[tuple[str, str], tuple[str, int]] = {}

    def items(self, lines: Iterable[str]) -> Iterator[Reading | Run]:
        """Yield the readings, and each run before its first; raise ContractError with the line."""
        for number, fields in enumerate(csv.reader(lines), 1):
            if len(fields) not in (len(COLUMNS) - 1, len(COLUMNS)):
                said = f"line {number} has {len(fields)} fields: allowed is {', '.join(COLUMNS)}"
                raise ContractError("not-contract", said)
            if fields[1:4] == _PLACEHOLDER:
                self.placeholders += 1
                continue
            try:
                yield from self._of_line(*fields)
            except (ValueError, msgspec.ValidationError) as error:
                raise ContractError("not-contract", f"line {number}: {error}") from error

    def _of_line(
        self, time: str, demand: str, multiplier: str, divisor: str, run: str, hash_: str = ""
    ) -> Iterator[Reading | Run]:
        # The clock of the host that inserted the row.
        received = datetime.fromisoformat(time).replace(tzinfo=self._zone).astimezone(UTC)
        if (run, hash_) not in self._runs:
            identity = f"{self._node}\0{run}\0{hash_}\0{received.isoformat()}"
            made = uuid.uuid5(_NAMESPACE, identity)
            self._runs[run, hash_] = str(made), 0
            announced = {"node": self._node, "run": run, "hash": str(made), "started": received}
            yield msgspec.convert({**announced, "meter": self._meter}, Run)
        made_hash, seq = self._runs[run, hash_]
        self._runs[run, hash_] = made_hash, seq + 1
        envelope = {"node": self._node, "run": run, "hash": made_hash, "seq": seq + 1}
        raw = int(demand), int(multiplier), int(divisor)
        said = dict(zip(("demand", "multiplier", "divisor"), raw, strict=True))
        unsaid = {"device": None, "meter": self._meter, "time": None}
        fields = {**said, **unsaid, "demand_kw": scaled(*raw)}
        notification = msgspec.convert(fields, InstantaneousDemand)
        yield Reading(msgspec.convert({**envelope, "received": received}, Envelope), notification)
