"""What a store says that it has."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from ravenbus.confirming import SAID_BYTES, STORES_MAX, Confirmations, StoreListener
from ravenbus.messages import Confirmation, Envelope, Gone, Reading, dead_letter, decode, encode
from ravenbus.mqtt import DEFAULT_PACKET_MAX, PACKET_MIN, PACKET_RESERVE, Received
from ravenbus.notifications import Warning as Said
from ravenbus.topics import Topics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("most", [PACKET_MIN - PACKET_RESERVE, 5000, DEFAULT_PACKET_MAX])
def test_much_is_said_in_messages_that_the_broker_takes(most):
    """As many runs and letters as there are items, with the largest numbers: all of it is said."""
    said = Confirmations("s" * 64, Topics())
    numbers, letters = set(), set()
    for number in range(1500):
        hash_, seq = str(uuid.UUID(int=number)), 2**63 - 1 - number
        envelope = Envelope(node="n" * 64, run="r", hash=hash_, seq=seq, received=NOW)
        said.note(Reading(envelope, Said(device=None, meter=None, time=None, text="x")))
        letter = dead_letter("reader", "t", b"%d" % number, NOW, ValueError("no"))
        said.note(replace(letter, node="n" * 64))
        numbers.add((hash_, seq))
        letters.add(letter.id)
    payloads = [payload for _, payload in said.take(most)]
    assert max(map(len, payloads)) <= min(most, SAID_BYTES)
    assert len(payloads) < 4 * sum(map(len, payloads)) / min(most, SAID_BYTES), (
        "no more than it takes"
    )
    found = [decode(payload, Confirmation) for payload in payloads]
    assert {(h, first) for one in found for h, got in one.runs.items() for first, _ in got} == (
        numbers
    )
    assert {letter for one in found for letter in one.letters} == letters
    assert not said


def test_a_store_is_gone_until_that_is_taken_back():
    """The topic and the message name the same store; names without end fill no memory."""

    class Waiter:
        stores: frozenset[str] = frozenset()

        def confirmed(self, said):
            assert said.store == "two"

        def gone(self, stores):
            self.stores = stores

    waiter = Waiter()
    listener = StoreListener(Topics(), waiter)

    def hear(store, payload):
        listener.gone(Received(1, f"raven/v1/gone/{store}", payload))

    hear("one", encode(Gone(store="one")))
    hear("two", encode(Gone(store="two")))
    hear("three", encode(Gone(store="two")))
    hear("four", b"gone")
    assert waiter.stores == {"one", "two"}
    hear("one", b"")
    assert waiter.stores == {"two"}
    said = encode(Confirmation(node="home", store="two"))
    listener.confirmed(Received(1, "raven/v1/home/stored/two", said))
    assert waiter.stores == frozenset(), "it speaks, so it is back"
    for number in range(2 * STORES_MAX):
        hear(f"s{number}", encode(Gone(store=f"s{number}")))
    assert len(waiter.stores) == STORES_MAX
