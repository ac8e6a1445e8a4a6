"""Whether a quantity grows, judged by a line through its samples.

The slope is that of Theil and Sen, the median over all pairs of samples, which a step or a few odd
samples do not move; its interval is Sen's, 95 % (P. K. Sen, "Estimates of the regression
coefficient based on Kendall's tau", Journal of the American Statistical Association 63, 1968).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import median
from typing import Final, NamedTuple

SAMPLES_MAX: Final = 400
"""Of more, every so many are taken: all pairs are compared."""
SAMPLES_MIN: Final = 10
_NORMAL_95: Final = 1.96


class Slope(NamedTuple):
    """Growth an hour, and the interval in which it is with 95 % certainty."""

    an_hour: float
    least: float
    most: float


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """Return how a quantity grows; each sample is a time in seconds and a value.

    Raises ValueError for fewer than SAMPLES_MIN.
    """
    if len(samples) < SAMPLES_MIN:
        raise ValueError(f"{len(samples)} samples; {SAMPLES_MIN} are needed")
    some = samples[:: ceil(len(samples) / SAMPLES_MAX)]
    slopes = sorted(
        3600 * (later - value) / (after - at)
        for number, (at, value) in enumerate(some)
        for after, later in some[number + 1 :]
    )
    count = len(some)
    # The variance of Kendall's tau where samples do not depend on each other.
    reach = _NORMAL_95 * sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, round((len(slopes) - reach) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + reach) / 2))
    return Slope(median(slopes), slopes[low], slopes[high])
