"""The digests of archived readings; no database."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ravenbus.digests import digest_of, pack

NOON = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)


@given(st.sets(st.integers(1, 2**63 - 1), max_size=50))
def test_each_number_has_its_digest(numbers):
    """However far apart they are, each is found once, in few bytes."""
    readings = {seq: NOON + timedelta(milliseconds=seq % 10**9) for seq in numbers}
    packed = list(pack(readings))
    found = {
        first + offset: digest
        for first, _, digests in packed
        for offset, digest in struct.iter_unpack(">II", digests)
    }
    assert found == {seq: digest_of(received) for seq, received in readings.items()}
    assert sum(len(digests) for *_, digests in packed) == 8 * len(numbers)
    assert all(first <= last for first, last, _ in packed)


def test_a_digest_goes_by_the_millisecond():
    """What a database does not keep of a time makes no other reading."""
    assert digest_of(NOON) == digest_of(NOON.replace(microsecond=123999, tzinfo=None))
    assert digest_of(NOON) != digest_of(NOON + timedelta(milliseconds=1))
