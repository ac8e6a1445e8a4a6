"""Which numbers of a run are archived; no database."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from raven_sql_writer.ranges import Range, merged

RANGES = st.lists(
    st.builds(
        lambda hash_, first, more: Range(hash_, first, first + more),
        st.sampled_from(["a", "b"]),
        st.integers(1, 50),
        st.integers(0, 10),
    )
)


def numbers(ranges: list[Range]) -> set[tuple[str, int]]:
    return {(r.hash, seq) for r in ranges for seq in range(r.first, r.last + 1)}


@given(RANGES)
def test_merged_ranges_have_the_same_numbers(ranges: list[Range]):
    """Each number once, and no two ranges that could be one."""
    found = merged(ranges)
    assert numbers(found) == numbers(ranges)
    assert sum(r.last - r.first + 1 for r in found) == len(numbers(found))
    for one, other in pairwise(found):
        assert one.hash != other.hash or one.last + 1 < other.first
