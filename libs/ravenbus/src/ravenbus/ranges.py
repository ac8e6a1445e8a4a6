"""Numbers of a run as ranges, ``(first, last)`` with both included: pure.

Lists of ranges are in order, and no two of a list could be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]
"""The first number and the last one."""


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same numbers in the fewest ranges."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def of_numbers(numbers: Iterable[int]) -> Iterator[Range]:
    """Yield the ranges of numbers that come in order; one may come again."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number > last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def numbers(ranges: Iterable[Range]) -> Iterator[int]:
    """Yield each number."""
    return (number for first, last in ranges for number in range(first, last + 1))


def without(ranges: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """Return the numbers of the ranges that are in none of the others."""
    found: list[Range] = []
    rest = iter(others)
    other = next(rest, None)
    for first, last in ranges:
        start = first
        while other and other[0] <= last:
            if start < other[0]:
                found.append((start, other[0] - 1))
            start = max(start, other[1] + 1)
            if other[1] > last:
                break  # it may reach into the next range
            other = next(rest, None)
        if start <= last:
            found.append((start, last))
    return found


def common(ranges: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """Return the numbers that are in both."""
    return without(ranges, without(ranges, others))


def count(ranges: Iterable[Range]) -> int:
    """Return how many numbers there are."""
    return sum(last - first + 1 for first, last in ranges)
