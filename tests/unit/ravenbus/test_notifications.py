"""Values that follow from what the device says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ravenbus.notifications import derived


@pytest.mark.parametrize(
    ("raw", "multiplier", "divisor", "exact"),
    [
        (-5, 1, 1000, Decimal("-0.005")),
        (7, 0, 0, Decimal(7)),
        (2**48 - 1, 2**32 - 1, 10**9, Decimal((2**48 - 1) * (2**32 - 1)).scaleb(-9)),
        (2, 1, 3, Decimal("0.666666667")),
        (-2, 1, 3, Decimal("-0.666666667")),
        (-1, -1, -1, None),
        (None, 1, 1, None),
        (1, None, 1, None),
    ],
)
def test_a_value_is_scaled_as_a_store_keeps_it(raw, multiplier, divisor, exact):
    """All 80 bits, zero as one, nine digits rounded as the server rounds."""
    assert derived(raw, multiplier, divisor) == exact
