"""A browser, and a dashboard with a store that real sinks have filled."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from raven_harness import stack
from ravenbus.messages import Item, Reading, Status, encode
from ravenbus.topics import LATEST, STATUS, Topics
from tests.system.sql import Db
from tests.system.system import Client

from . import homes
from .proxy import TRUSTED

SCREENSHOTS = stack.ROOT / ".screenshots"
NODE = homes.NODE


class Dashboard:
    """The service on a store, with a broker of its own."""

    def __init__(self, folder: Path, **store: str) -> None:
        self.password = secrets.token_hex(8)
        self.broker = stack.Broker(folder, [NODE, "dashboard"])
        self.broker.start()
        self.process = stack.dashboard(
            folder,
            self.broker.url("dashboard"),
            RAVEN_TIME_ZONE=homes.ZONE.key,
            RAVEN_DASHBOARD_PASSWORD=self.password,
            RAVEN_DASHBOARD_TRUSTED_PROXY=TRUSTED,
            **store,
        )
        self.address = f"http://127.0.0.1:{self.process.port}"
        self.process.start()
        self._home: Client | None = None

    def hear(self, said: Reading | Status) -> None:
        """Say a reading or a status on the bus, as the home's reader does."""
        if self._home is None:
            self._home = Client(self.broker.url(NODE))
        topics = Topics("raven")
        if isinstance(said, Status):
            topic = topics.of(STATUS, node=said.node)
        else:
            topic = topics.of(LATEST, node=said.node, kind=said.kind)
        self._home.connection.publish(topic, encode(said), retain=True)

    def close(self) -> None:
        if self._home:
            self._home.connection.close()
        for one in (self.process, self.broker):
            if one.running:
                one.kill()


@pytest.fixture(scope="session")
def new_db(mariadb_server: stack.MariaDb | None) -> Iterator[Callable[[Sequence[Item]], str]]:
    """Return what makes a database of these readings and returns its URL."""
    admin_url = mariadb_server.admin_url if mariadb_server else os.environ["MYSQL_ADMIN_URL"]
    made: list[Db] = []

    def new(items: Sequence[Item]) -> str:
        made.append(Db(admin_url))
        with closing(made[-1].sink()) as sink:
            sink.prepare()
            sink.store(items)
        return made[-1].url

    yield new
    for one in made:
        one.drop()


def started(folder: Path, **store: str) -> Iterator[Dashboard]:
    dashboard = Dashboard(folder, **store)
    yield dashboard
    dashboard.close()


@pytest.fixture(scope="session")
def filled(
    tmp_path_factory: pytest.TempPathFactory, new_db: Callable[[Sequence[Item]], str]
) -> Iterator[Dashboard]:
    yield from started(tmp_path_factory.mktemp("dashboard"), MYSQL_URL=new_db(homes.items()))


@pytest.fixture
def dashboard(filled: Dashboard, mariadb: stack.MariaDb | None) -> Dashboard:  # noqa: ARG001 - started again where a test killed it
    """The dashboard of the homes of `homes`, its store running."""
    return filled


@pytest.fixture
def empty_dashboard(tmp_path: Path, new_db: Callable[[Sequence[Item]], str]) -> Iterator[Dashboard]:
    yield from started(tmp_path, MYSQL_URL=new_db([]))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, and without one its processes start cheaper.
        options = ["--no-sandbox", "--no-zygote"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=stack.tool("chromium"), args=options)
        yield browser
        browser.close()


class Visit:
    """A person's browser at a dashboard; whatever a page complains of fails the test."""

    def __init__(self, browser: Browser, dashboard: Dashboard, name: str, **options: Any) -> None:
        usual: dict[str, Any] = {"locale": "en-GB", "timezone_id": "America/New_York"}
        usual |= {"viewport": {"width": 1100, "height": 800}, "base_url": dashboard.address}
        self.dashboard = dashboard
        self.complaints: list[str] = []
        self._name = name
        self._context: BrowserContext = browser.new_context(**{**usual, **options})
        self._context.set_default_timeout(1000 * stack.WAIT_S)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        # A browser says of each answer that is an error that it is one; tests ask for some.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def log_in(self, password: str | None = None) -> None:
        self.page.get_by_label("Password").fill(password or self.dashboard.password)
        self.page.get_by_role("button", name="Log in").click()

    def go(self, path: str) -> Page:
        """Look at a page, logged in."""
        self.page.goto(path)
        if "/login" in self.page.url:
            self.log_in()
        return self.page

    def picture(self, what: str = "", *, whole: bool = True) -> None:
        """Keep what the page looks like, for people."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self._name}{what}.png", full_page=whole)

    def close(self) -> None:
        self._context.close()


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visit]]:
    """Return what opens a browser at a dashboard; its options are those of a context."""
    made: list[Visit] = []

    def new(dashboard: Dashboard, **options: Any) -> Visit:
        made.append(Visit(browser, dashboard, request.node.name.removeprefix("test_"), **options))
        return made[-1]

    yield new
    for one in made:
        one.close()
    assert [complaint for one in made for complaint in one.complaints] == []
