"""The topics that messages go to: all those of the bus, under one prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOMEASSISTANT_STATUS: Final = "homeassistant/status"


@dataclass(frozen=True)
class Topics:
    """The topics under ``prefix``, as in ``raven/v1/<node>/reading/<kind>``."""

    prefix: str = "raven"

    def reading(self, node: str, kind: str) -> str:
        """Return where readings of a kind go: the event stream that stores consume."""
        return f"{self.prefix}/v1/{node}/reading/{kind}"

    def latest(self, node: str, kind: str) -> str:
        """Return where the last reading of a kind is retained."""
        return f"{self.prefix}/v1/{node}/latest/{kind}"

    def of_node(self, node: str, leaf: str) -> str:
        """Return a node's ``status``, ``run``, ``command``, ``reply``, ``raw`` or ``dead`` topic."""
        return f"{self.prefix}/v1/{node}/{leaf}"

    def dead(self, service: str) -> str:
        """Return where a store's dead letters go, and those of every reader before version 1.1."""
        return f"{self.prefix}/v1/dead/{service}"

    def confirmation(self, node: str, store: str) -> str:
        """Return where a store says what it has of a node; ``+`` for either is every one."""
        return f"{self.prefix}/v1/{node}/stored/{store}"

    def gone(self, store: str) -> str:
        """Return where it is retained that a store is gone for good; ``+`` is every one."""
        return f"{self.prefix}/v1/gone/{store}"

    def discovery(self, node: str) -> str:
        """Return the topic of Home Assistant's device discovery."""
        return f"homeassistant/device/{node}/config"

    def stored(self) -> list[str]:
        """Return the subscriptions of a store: readings, runs, and the readers' dead letters."""
        return [*self._shareable(), self.of_node("+", "run")]

    def shared(self, group: str) -> list[str]:
        """Return the subscriptions of a store whose group shares the readings and dead letters.

        Runs are retained, which a shared subscription does not bring: every member gets them all.
        """
        shared = [f"$share/{group}/{topic}" for topic in self._shareable()]
        return [*shared, self.of_node("+", "run")]

    def _shareable(self) -> list[str]:
        return [self.reading("+", "+"), self.of_node("+", "dead"), self.dead("reader")]

    def parse(self, topic: str) -> tuple[str, str, str]:
        """Split a topic into node, leaf and kind ("" where it has none).

        Raise ValueError if it is not one of ours.
        """
        head = f"{self.prefix}/v1/"
        parts = topic.removeprefix(head).split("/")
        if not topic.startswith(head) or len(parts) not in (2, 3):
            raise ValueError(f"{topic!r} is not {head}<node>/<what>[/<kind>]")
        return parts[0], parts[1], parts[2] if len(parts) > 2 else ""  # noqa: PLR2004
