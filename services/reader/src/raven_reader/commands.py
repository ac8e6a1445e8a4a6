"""Commands that the device may be sent, and their form (RAVEn XML API r127 p.9-29)."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from ravenbus.errors import PoisonError

_METER = ("MeterMacId",)
_REFRESH = ("MeterMacId", "Refresh")

GETTERS: Final[dict[str, tuple[str, ...]]] = {
    "initialize": (),
    "get_connection_status": (),
    "get_device_info": (),
    "get_network_info": (),
    "get_schedule": ("MeterMacId", "Event", "Mode"),
    "get_meter_list": (),
    "get_meter_info": _METER,
    "get_time": _REFRESH,
    "get_message": _REFRESH,
    "get_current_price": _REFRESH,
    "get_instantaneous_demand": _REFRESH,
    "get_current_summation_delivered": _REFRESH,
    "get_current_period_usage": _METER,
    "get_last_period_usage": _METER,
    "get_fast_poll_status": _METER,
    "get_profile_data": ("MeterMacId", "NumberOfPeriods", "EndTime", "IntervalChannel"),
    "get_meter_attributes": _METER,
    "get_local_attributes": _METER,
    "get_billing_periods": _METER,
    "get_price_blocks": _METER,
}
"""Commands that change nothing, and the parameters of each."""

SETTERS: Final[dict[str, tuple[str, ...]]] = {
    "restart": (),
    "set_schedule": ("MeterMacId", "Event", "Frequency", "Enabled", "Mode"),
    "set_schedule_default": ("MeterMacId", "Event"),
    "set_meter_info": ("MeterMacId", "NickName", "Account", "Auth", "Host", "Enabled"),
    "set_current_price": ("MeterMacId", "Price", "TrailingDigits", "Currency"),
    "set_fast_poll": ("MeterMacId", "Frequency", "Duration"),
    "confirm_message": ("MeterMacId", "Id"),
    "close_current_period": _METER,
}
"""Commands that change something, sent only where a setting allows it.

What can decommission or erase the device (factory_reset, erase_halt, set_restart_info, secret,
image_*) is in neither list and is never sent.
"""


def write(name: str, parameters: Mapping[str, str], *, allow_setters: bool) -> bytes:
    """Return the command's bytes; raise PoisonError that says what is allowed."""
    allowed = GETTERS | SETTERS if allow_setters else GETTERS
    if name not in allowed:
        why = "needs RAVEN_ALLOW_SETTERS=true" if name in SETTERS else "is never sent"
        raise PoisonError(
            "command-refused", f"{name} {why}: allowed are {', '.join(sorted(allowed))}"
        )
    for parameter in parameters:
        if parameter not in allowed[name]:
            takes = ", ".join(allowed[name]) or "no parameters"
            raise PoisonError("command-refused", f"{name} has no {parameter}: it takes {takes}")
    # Escaped it would be text; but nobody knows how a stick's own parser takes it.
    if set("<>") & set("".join(parameters.values())):
        raise PoisonError("command-refused", "a parameter cannot hold < or >")
    texts = "".join(
        f"<{key}>{escape(text, quote=False)}</{key}>" for key, text in parameters.items()
    )
    command = f"<Command><Name>{name}</Name>{texts}</Command>\r\n"
    if not command.isascii() or not command[:-2].isprintable():
        raise PoisonError("command-refused", "only printable ASCII can be sent")
    return command.encode("ascii")
