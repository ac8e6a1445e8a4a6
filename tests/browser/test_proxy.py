"""The pages behind a proxy: under its path, and in a frame of one that is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from . import homes
from .conftest import Dashboard, Visit
from .proxy import PATH, TRUSTED, Proxy
from .test_pages import LONG_DAY

New = Callable[..., Visit]


@pytest.fixture
def proxy(dashboard: Dashboard, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A proxy that asks from the address that the test names; all that it is asked is in its path."""
    with closing(Proxy(dashboard.process.port, request.param)) as built:
        yield built
    assert built.strayed == []


def from_address(address: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("proxy", [address], indirect=True)


def drawn(page: Page | FrameLocator, chart: str) -> None:
    expect(page.locator(f"#{chart} .field[data-rows]")).to_be_visible()


@from_address(TRUSTED)
def test_every_page_works_in_the_frame_of_a_trusted_proxy(
    dashboard: Dashboard, visit: New, proxy: Proxy
):
    """Without a password, live, and with each link, button and file; nobody can log out there."""
    dashboard.hear(homes.house.demand(datetime.now(UTC), 1490))
    at = visit(dashboard, base_url=proxy.address)
    asked: set[str] = set()
    at.page.on("request", lambda request: asked.add(request.url))
    at.page.goto("/")
    shown = at.page.frame_locator("iframe")
    frame = at.page.frames[1]
    shown.get_by_label("Home").select_option(label=f"\u2068{homes.NODE}\u2069")
    frame.wait_for_url("**/?node=house*")
    expect(shown.locator("#live")).to_have_text("Live")
    # What is not asked for can come by the live feed alone.
    at.page.route("**/api/v1/now?*", lambda route: route.abort())
    for watts, number in ((2345, "2.345"), (2346, "2.346")):
        dashboard.hear(homes.house.demand(datetime.now(UTC), watts))
        expect(shown.locator("#kw")).to_have_text(number)
    at.page.unroute("**/api/v1/now?*")
    drawn(shown, "curve")
    expect(shown.get_by_role("button", name="Log out")).to_be_hidden()
    at.picture("-now")
    shown.get_by_role("link", name="History of this home").click()
    drawn(shown, "power")
    shown.get_by_role("button", name="Yesterday").click()
    frame.wait_for_url("**/history?*from=*")
    with at.page.expect_download() as download:
        shown.get_by_role("link", name="Energy as CSV").click()
    assert download.value.path().read_text().startswith("start")
    shown.get_by_role("link", name="Homes").click()
    shown.get_by_label("Search").fill("home-0777")
    shown.get_by_role("link", name="home-0777").click()
    expect(shown.locator("#kw")).to_have_text("0.500")
    shown.get_by_role("link", name="Health").click()
    expect(shown.locator("#chain li").first).to_be_visible()
    at.picture("-health")
    frame.goto(f"{PATH}/static/reasons.html")
    shown.get_by_role("link", name="Health").click()
    expect(shown.locator("#chain li").first).to_be_visible()
    paths = {urlsplit(url).path for url in asked} - {"/"}
    assert {f"{PATH}/", f"{PATH}/api/v1/live", f"{PATH}/static/vendor/dygraph-combined.js"} <= paths
    assert all(path.startswith(f"{PATH}/") for path in paths)


@from_address("127.0.0.1")
def test_any_path_of_a_proxy_will_do(dashboard: Dashboard, visit: New, proxy: Proxy):
    """With the password: to the page that was asked for, with a session for that path, and out."""
    at = visit(dashboard, base_url=proxy.address)
    page = at.page
    page.goto(PATH + LONG_DAY)
    at.log_in("not the password")
    expect(page.get_by_role("alert")).to_contain_text("not the right one")
    at.log_in()
    drawn(page, "power")
    assert page.url == proxy.address + PATH + LONG_DAY
    assert [cookie.get("path") for cookie in page.context.cookies()] == [PATH]
    page.goto(f"{PATH}/login?next=/homes")
    expect(page.locator("#homes tr").first).to_be_visible()
    page.get_by_role("link", name="Health").click()
    expect(page.locator("#chain li").first).to_be_visible()
    page.context.clear_cookies()
    page.evaluate("() => dispatchEvent(new Event('online'))")
    at.log_in()
    expect(page.locator("#chain li").first).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.url == f"{proxy.address}{PATH}/login"
    assert page.context.cookies() == []
    page.goto(f"{PATH}/no/such/page")
    expect(page.get_by_label("Password")).to_be_visible()
    assert urlsplit(page.url).path == f"{PATH}/login"
