"""Replaying dead letters: what stands in the way; no broker."""

from __future__ import annotations

import pytest

from raven_verify.letters import obstacle
from ravenbus.messages import DeadLetter, now
from ravenbus.topics import Topics


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"service": "reader", "topic": None}, "serial line"),
        ({"service": "sql-relay", "topic": None}, "it is a row"),
        ({"size": 9}, "only 1 of its 9 bytes"),
        ({"topic": "else/where"}, "not-contract"),
        ({}, "not-json"),
    ],
)
def test_what_stands_in_the_way_of_a_replay_is_said(change, why):
    """Nothing is sent that is known to be buried again, or that is not all there."""
    fields = {
        "service": "sql-writer",
        "topic": "raven/v1/home/reading/warning",
        "payload": b"x",
        "size": 1,
    }
    letter = DeadLetter(id="a" * 32, at=now(), reason="r", detail="d", **(fields | change))
    assert why in (obstacle(letter, Topics()) or "")
