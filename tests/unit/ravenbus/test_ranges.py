"""Numbers as ranges, against the same numbers as sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ravenbus.ranges import Range, common, count, merged, without

RANGES = st.lists(
    st.builds(lambda first, more: (first, first + more), st.integers(1, 50), st.integers(0, 10))
)


def numbers(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def assert_fewest(ranges: list[Range]) -> None:
    assert count(ranges) == len(numbers(ranges))
    for one, other in pairwise(ranges):
        assert one[1] + 1 < other[0]


@given(RANGES)
def test_merged_ranges_have_the_same_numbers(ranges):
    """Each number once, and no two ranges that could be one."""
    assert numbers(merged(ranges)) == numbers(ranges)
    assert_fewest(merged(ranges))


@given(RANGES.map(merged), RANGES.map(merged))
def test_ranges_are_taken_from_ranges_as_sets_from_sets(ranges, others):
    """What is left, and what both have, is exact and in the fewest ranges."""
    assert numbers(without(ranges, others)) == numbers(ranges) - numbers(others)
    assert numbers(common(ranges, others)) == numbers(ranges) & numbers(others)
    assert_fewest(without(ranges, others))
    assert_fewest(common(ranges, others))
