"""The models RAVEn and EMU-2, their differences, and the setup of one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict

from raven_simulator.reports import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping


INTERVALS: Final = ("kept", "short", "invalid", "refused")
"""What a meter makes of its intervals: all, three an answer at most, every third invalid, none."""


class Ids(TypedDict):
    """EUI-64 of a device and of its meter."""

    device: int
    meter: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Setup of a device.

    device and meter: EUI-64. speed: schedule seconds per wall second. day_s: second of the day at the start.
    utc_offset_s: LocalTime minus UTCTime. negative_width: hex digits of a negative demand, 6 or 8.
    delivered_wh and received_wh: the meter's registers at the start.
    past_s: for how long before the start the meter has intervals. intervals: one of INTERVALS.
    """

    device: int
    meter: int
    speed: float = 1.0
    day_s: float = 0.0
    utc_offset_s: int = 0
    negative_width: int = 8
    message: str | None = None
    delivered_wh: float = 0.0
    received_wh: float = 0.0
    past_s: float = 0.0
    intervals: str = "kept"

    @property
    def ids(self) -> Ids:
        """Ids that nearly every notification begins with."""
        return {"device": self.device, "meter": self.meter}


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of stick.

    periods_s is the schedule by event in seconds, None: disabled.
    price_refresh_s: a price is re-sent unchanged, TimeStamp too, until this old; None: each is new.
    extended: fields and commands of the EMU-2 (Mode, StartTime, Duration, RateLabel, blocks, fast poll status).
    warns: an unknown command is answered with a Warning, else with silence.
    """

    name: str
    periods_s: Mapping[str, int | None]
    summation_width: int
    price_refresh_s: int | None
    extended: bool
    warns: bool
    fast_poll_unit_s: int
    identity: Identity


RAVEN: Final = Model(
    name="raven",
    periods_s={"demand": 8, "summation": 240, "price": 90, "message": 120, "time": 900},
    summation_width=8,
    price_refresh_s=None,
    extended=False,
    warns=True,
    fast_poll_unit_s=1,
    identity=Identity(
        install_code=0xFEDCBA9876543210,
        link_key=0xFFEEDDCCBBAA99887766554433221100,
        firmware="1.4.13 (4718)",
        hardware="3.1.1",
        manufacturer="Rainforest Automation, Inc.",
        model_id="RFA-Z106",
        date_code="20120601ZBLOT042",
    ),
)

EMU2: Final = Model(
    name="emu2",
    periods_s={
        "demand": 15,
        "summation": 240,
        "price": 90,
        "message": None,
        "time": 900,
        "scheduled_prices": None,
        "profile_data": None,
        "billing_period": None,
        "block_period": None,
    },
    summation_width=16,
    price_refresh_s=1800,
    extended=True,
    warns=False,
    fast_poll_unit_s=60,
    identity=Identity(
        install_code=0x0123456789ABCDEF,
        link_key=0x00112233445566778899AABBCCDDEEFF,
        firmware="2.0.0 (7400)",
        hardware="2.7.3",
        image_type=0x2201,
        manufacturer="Rainforest Automation, Inc.",
        model_id="Z105-2-EMU2-LEDD_JM",
        date_code="2020051100000042",
    ),
)

MODELS: Final[Mapping[str, Model]] = {model.name: model for model in (RAVEN, EMU2)}
