"""Ports of a simulated stick, on real pseudo-terminals."""

from __future__ import annotations

from pathlib import Path

import pytest

from raven_simulator.ports import PortError, PtyPort


def test_a_link_belongs_to_one_simulator(tmp_path: Path):
    """A second one would take the first one's reader away without a word."""
    first, second, other = (PtyPort(tmp_path / name) for name in ("stick", "stick", "other"))
    first.plug()
    with pytest.raises(PortError, match="another simulator's"):
        second.plug()
    other.plug()
    first.unplug()
    first.plug(str(tmp_path / "elsewhere"))
    second.plug()
    for port in (first, second, other):
        port.unplug()
