"""What the reader can be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from raven_reader.acceptance import Limits
from raven_reader.serial_port import DeviceLocation
from ravenbus.confirming import Stores
from ravenbus.messages import RunName
from ravenbus.settings import (
    MqttSettings,
    NodeName,
    Settings,
    TopicPrefix,
    Window,
    usable_folder,
)
from ravenbus.topics import Topics

Device = Annotated[
    DeviceLocation,
    Meta(description="the stick: `auto` finds it by USB identity"),
]


class ReaderStores(Stores):
    """The stores that must confirm; ``none`` is for a home without a store."""

    ALLOWED = f"{Stores.ALLOWED}, or none (no reading is kept or sent to be stored)"

    def __init__(self, text: str) -> None:
        """Read a list; raise ValueError if it is none."""
        super().__init__(text)
        self.none: Final = text == "none"


class DeviceSettings(Settings, frozen=True, kw_only=True):
    """What ``raven-reader capture`` needs: the line alone."""

    raven_device: Device = DeviceLocation("auto")


class ReaderSettings(MqttSettings, frozen=True, kw_only=True):
    """The service's environment variables."""

    raven_device: Device = DeviceLocation("auto")
    raven_run: Annotated[
        RunName, Meta(description="name of the run; another name begins another run")
    ] = "default"
    raven_node: Annotated[
        NodeName | None,
        Meta(
            description="name of this reader on the bus; default: made once and kept in the state"
        ),
    ] = None
    raven_state: Annotated[
        Path, Meta(description="folder for what has to survive a restart: the spool")
    ] = Path("/var/lib/raven-reader")
    raven_spool_max_mb: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="largest size of the spool in MiB"),
    ] = 1024
    raven_write_every_s: Annotated[
        float,
        Meta(
            ge=0,
            le=30,
            description="seconds between writes of readings to the disk, to spare it; a kill or a "
            "power cut loses what came since, and all is seen that much later; 0: at once",
        ),
    ] = 0.0
    raven_stores: Annotated[
        ReaderStores,
        Meta(
            description="stores that must confirm a reading before it is forgotten here; it is sent "
            "again until they do"
        ),
    ] = ReaderStores("auto")
    raven_window: Window = 100
    raven_max_demand_kw: Annotated[
        float,
        Meta(ge=0, le=1e6, description="larger demands are rejected, kW; 0 for no limit"),
    ] = 100.0
    raven_max_clock_skew_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1e10,
            description="a device clock further from the host's is not used, seconds; 0 for no limit",
        ),
    ] = 86400.0
    raven_max_price_per_kwh: Annotated[
        float,
        Meta(
            ge=0,
            le=1e9,
            description="larger prices are rejected, in their currency; 0 for no limit",
        ),
    ] = 100.0
    raven_silence_ask_s: Annotated[
        float,
        Meta(gt=0, le=86400, description="seconds of silence after which the device is asked"),
    ] = 120.0
    raven_silence_reopen_s: Annotated[
        float,
        Meta(gt=0, le=86400, description="seconds of silence after which the port is reopened"),
    ] = 300.0
    raven_publish_raw: Annotated[
        bool, Meta(description="publish each whole fragment as it came, secrets masked")
    ] = False
    raven_allow_setters: Annotated[
        bool, Meta(description="accept commands that change the device's or the meter's settings")
    ] = False
    raven_link_ask_s: Annotated[
        float,
        Meta(ge=60, le=86400, description="seconds between questions for the link to the meter"),
    ] = 900.0
    raven_homeassistant: Annotated[
        bool, Meta(description="publish Home Assistant's device discovery")
    ] = True
    raven_homeassistant_prefix: Annotated[
        TopicPrefix,
        Meta(description="first part of the discovery's topics, as set in Home Assistant"),
    ] = "homeassistant"
    raven_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+\Z")] | None,
        Meta(
            description="what Home Assistant calls the meter; default: Smart meter and the node",
            extra={"allowed": "1 to 100 characters, none of them a control character"},
        ),
    ] = None
    raven_dashboard_url: Annotated[
        Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?\Z")] | None,
        Meta(
            description="address of the dashboard's pages, to which Home Assistant leads",
            extra={"allowed": "an address that begins with http:// or https://"},
        ),
    ] = None

    @property
    def topics(self) -> Topics:
        """The topics of this reader."""
        return Topics(self.raven_topic_prefix, self.raven_homeassistant_prefix)

    @property
    def limits(self) -> Limits:
        """What is plausible."""
        return Limits(
            self.raven_max_demand_kw, self.raven_max_clock_skew_s, self.raven_max_price_per_kwh
        )

    @property
    def spool_file(self) -> Path:
        """Where the spool is."""
        return self.raven_state / "spool.sqlite"

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between the settings, and with the folder."""
        yield from super().problems()
        if self.raven_silence_reopen_s <= self.raven_silence_ask_s:
            yield (
                f"RAVEN_SILENCE_REOPEN_S: {self.raven_silence_reopen_s:g} cannot be used: "
                f"allowed is more than RAVEN_SILENCE_ASK_S ({self.raven_silence_ask_s:g})"
            )
        if not usable_folder(self.raven_state):
            path = str(self.raven_state)
            yield f"RAVEN_STATE: {path!r} cannot be used: allowed is a folder that can be written to"
