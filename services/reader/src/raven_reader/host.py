"""The host's own clock: whether anybody has set it."""

from __future__ import annotations

import ctypes
from typing import Final

_TIMEX_BYTES: Final = 512
"""More than struct timex has anywhere."""
_UNSYNCHRONISED: Final = 5
"""TIME_ERROR of adjtimex(2)."""


def is_synchronised() -> bool:
    """Say whether the kernel's clock is kept by a time server, as adjtimex(2) tells.

    Where the kernel does not tell, it is taken to be.
    """
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return True
    # All zero: nothing is set, so nobody needs a right to ask.
    return bool(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) != _UNSYNCHRONISED)
