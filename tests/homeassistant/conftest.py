"""One Home Assistant for all tests, with a broker as people have them: accounts, no access list."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from raven_harness import stack
from tests.browser.conftest import browser

from .homeassistant import HomeAssistant

__all__ = ["browser"]

_numbers = itertools.count(1)


class Home:
    """A reader and its stick, at a meter that no other test has."""

    def __init__(self, folder: Path, broker: stack.Broker) -> None:
        number = next(_numbers)
        self.meter = f"00135001{number:08x}"
        self.node = f"house-{number}"
        self.stick = f"d8d5b900{number:08x}"
        self.device = str(folder / "tty")
        self.folder = folder
        self.simulator = stack.simulator(folder)
        self.reader = stack.reader(folder, self.device, broker.url("reader"), self.node)

    @property
    def name(self) -> str:
        """Part of its entities' ids."""
        return f"smart_meter_{self.node.replace('-', '_')}"

    def start(self, *options: str) -> None:
        """Start the stick and the reader."""
        self.plug_in(*options)
        self.reader.start()

    def plug_in(self, *options: str) -> None:
        """Start the stick."""
        ids = ["--device-mac", self.stick, "--meter-mac", self.meter]
        self.simulator.command[1:] = ["--pty", self.device, *ids, *options]
        self.simulator.start()
        stack.wait_until(lambda: "ready" in self.simulator.said(), "the stick is there")

    def close(self) -> None:
        """End both."""
        for process in (self.reader, self.simulator):
            if process.running:
                process.kill()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Broker]:
    broker = stack.Broker(tmp_path_factory.mktemp("broker"), ["reader", "homeassistant", "tester"])
    config = Path(broker.command[-1])
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith("acl_file")) + "\n")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def ha(
    tmp_path_factory: pytest.TempPathFactory, broker: stack.Broker, browser: Browser
) -> Iterator[HomeAssistant]:
    ha = HomeAssistant(tmp_path_factory.mktemp("homeassistant"))
    try:
        ha.start()
        ha.set_up(browser)
        ha.connect(broker.url("homeassistant"))
        yield ha
    finally:
        ha.stop()


@pytest.fixture
def new_home(tmp_path: Path, broker: stack.Broker) -> Iterator[Callable[[], Home]]:
    made: list[Home] = []

    def new() -> Home:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Home(folder, broker))
        return made[-1]

    yield new
    for home in made:
        home.close()


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Home:
    return new_home()
