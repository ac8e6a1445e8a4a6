"""What people see and do in a browser, at the real service with a real store and broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec import structs
from playwright.sync_api import Locator, Page, Route, expect

from raven_harness import stack
from ravenbus.history import Step, edges
from ravenbus.messages import Status

from . import homes
from .conftest import Dashboard, Visit

expect.set_options(timeout=1000 * stack.WAIT_S)
New = Callable[..., Visit]
LONG_DAY = "/history?node=house&from=2026-10-24T22:00:00Z&to=2026-10-25T23:00:00Z"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def drawn(page: Page, chart: str) -> Locator:
    """Return a chart's field once there is something in it."""
    field = page.locator(f"#{chart} .field[data-rows]")
    expect(field).to_be_visible()
    return field


def span(page: Page) -> list[datetime]:
    """Return the span that the address names."""
    asked = parse_qs(urlsplit(page.url).query)
    return [datetime.fromisoformat(asked[name][0]) for name in ("from", "to")]


def drag(page: Page, field: Locator, start: float, end: float) -> None:
    """Draw with the mouse over a part of a chart, from and to in parts of its width."""
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box
    page.mouse.move(box["x"] + start * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + 70, steps=5)
    page.mouse.up()


def test_power_changes_while_it_is_looked_at(dashboard: Dashboard, visit: New):
    """It comes from the bus without a load of the page; direction has words, a symbol and a colour."""
    at = visit(dashboard)
    dashboard.hear(homes.house.demand(datetime.now(UTC), 1490))
    page = at.go("/?node=house")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#kw")).to_have_text("1.490")
    before = page.evaluate("() => (window.here = 1)")
    colours = set()
    for watts, number, words in (
        (2345, "2.345", "▲ Taking from the grid"),
        (-1200, "-1.200", "▼ Giving to the grid"),
        (0, "0.000", "● Nothing flows"),
    ):
        dashboard.hear(homes.house.demand(datetime.now(UTC), watts))
        expect(page.locator("#kw")).to_have_text(number)
        expect(page.locator("#direction")).to_have_text(words)
        colours.add(page.locator("#kw").evaluate("(one) => getComputedStyle(one).color"))
        if watts == 2345:
            at.picture()
    assert len(colours) == 3
    assert page.evaluate("() => window.here") == before
    expect(drawn(page, "curve")).not_to_have_attribute("data-rows", "0")


def test_the_page_says_that_it_is_not_live(dashboard: Dashboard, visit: New):
    """When the service is away and when it is back; then what comes is shown again."""
    dashboard.hear(homes.house.demand(datetime.now(UTC), 1490))
    page = visit(dashboard).go("/?node=house")
    expect(page.locator("#live")).to_have_text("Live")
    dashboard.process.kill()
    expect(page.locator("#live")).to_contain_text("Not live: the connection is lost")
    dashboard.process.start()
    dashboard.hear(homes.house.demand(datetime.now(UTC), 777))
    expect(page.locator("#kw")).to_have_text("0.777")
    expect(page.locator("#live")).to_have_text("Live")


def test_of_two_powers_in_a_second_the_later_stays(dashboard: Dashboard, visit: New):
    """In the curve too, from which the page takes what flows once it is loaded."""
    second = datetime.now(UTC)
    dashboard.hear(homes.house.demand(second, 1490))
    page = visit(dashboard).go("/?node=house")
    expect(page.locator("#live")).to_have_text("Live")
    for watts, number in ((2345, "2.345"), (2346, "2.346")):
        dashboard.hear(homes.house.demand(second, watts))
        expect(page.locator("#kw")).to_have_text(number)
    drawn(page, "curve").press("End")
    expect(page.locator("#curve output")).to_contain_text(": 2.346\u00a0kW")


def test_an_answer_that_was_cut_off_is_asked_for_again(dashboard: Dashboard, visit: New):
    """And until then the page says why it is old."""
    dashboard.hear(homes.house.demand(datetime.now(UTC), 1490))
    at = visit(dashboard)
    at.page.route("**/api/v1/demand?*", lambda route: route.fulfill(status=200, body='{"start": ['))
    page = at.go("/?node=house")
    expect(page.locator("#notice")).to_contain_text("The dashboard's answer was cut off. What you")
    at.page.unroute("**/api/v1/demand?*")
    page.evaluate("() => dispatchEvent(new Event('online'))")
    drawn(page, "curve")
    expect(page.locator("#notice")).to_be_hidden()


def test_ranges_are_buttons_and_the_address_says_what_is_shown(dashboard: Dashboard, visit: New):
    """Whoever is sent the address sees the same."""
    at = visit(dashboard)
    page = at.go("/history?node=house")
    drawn(page, "power")
    for name in ("Yesterday", "Week", "Month", "Year", "All", "Today"):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("[aria-pressed=true]").filter(has_text=name)).to_be_visible()
        expect(page.locator("#charts")).to_have_attribute("aria-busy", "false")
        start, end = (one.astimezone(homes.ZONE) for one in span(page))
        assert (start.hour, start.minute, end.hour, end.minute) == (0, 0, 0, 0)
        assert start < end
    page.get_by_label("Compare with the period before").check()
    expect(page.locator("#legend-before")).to_be_visible()
    sent, title = page.url, page.locator("#shown").inner_text()
    other = visit(dashboard).go(sent)
    expect(other.locator("#shown")).to_have_text(title)
    expect(other.locator("#legend-before")).to_be_visible()
    page.get_by_label("From").fill("2026-10-24")
    page.get_by_label("to", exact=True).fill("2026-10-25")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#shown")).to_have_text("Sat, 24 Oct 2026 \u2013 Sun, 25 Oct 2026")
    assert span(page)[1] - span(page)[0] == timedelta(hours=49)
    at.picture()


def test_what_is_asked_for_last_is_shown(dashboard: Dashboard, visit: New):
    """Also where the answers to what was asked before are still under way."""
    page = visit(dashboard).go(LONG_DAY)
    expect(page.locator("#shown")).to_have_text("Sun, 25 Oct 2026")
    page.evaluate(
        """() => ["week", "year"].forEach(
          (name) => document.querySelector(`[data-range=${name}]`).click())"""
    )
    expect(page.locator("#shown")).to_have_text(str(datetime.now(homes.ZONE).year))


def test_a_run_is_a_span_to_pick(dashboard: Dashboard, visit: New):
    """From its start to that of the next, whatever it is called; any other time is none."""
    page = visit(dashboard).go(LONG_DAY)
    run = page.locator("#run")
    expect(run.locator("option:checked")).to_have_text("any")
    _, newest, first = run.locator("option").all_inner_texts()
    assert homes.ODD[0] in newest
    assert first == "\u2068winter\u2069, Sat, 24 Oct 2026 \u2013 Mon, 26 Oct 2026"
    run.select_option(label=first)
    expect(page.locator("#shown")).to_have_text("Sat, 24 Oct 2026 \u2013 Sun, 25 Oct 2026")
    expect(run.locator("option:checked")).to_have_text(first)
    assert span(page)[1] - span(page)[0] == timedelta(hours=49)
    run.select_option(label=newest)
    expect(run.locator("option:checked")).to_have_text(newest)
    page.get_by_role("button", name="Today", exact=True).click()
    expect(run.locator("option:checked")).to_have_text("any")


def test_the_day_on_which_clocks_go_back_has_25_hours(dashboard: Dashboard, visit: New):
    """In bars, in the table beside them, in the sum and in the file; a gap is a gap."""
    at = visit(dashboard)
    page = at.go(LONG_DAY)
    expect(page.locator("#shown")).to_have_text("Sun, 25 Oct 2026")
    assert drawn(page, "energy").get_attribute("data-rows") == "25"
    expect(page.locator("#delivered")).to_have_text("25.00\u00a0kWh")
    expect(page.locator("#received")).to_have_text("3.00\u00a0kWh")
    expect(page.locator("#cost")).to_have_text("\u20ac6.25")
    at.picture()
    page.get_by_text("The same as a table").click()
    hours = page.locator("#rows th").all_inner_texts()
    assert len(hours) == 25
    assert [one for one in hours if "02:00 \u2013" in one] == [
        "25 Oct 2026, 02:00 \u2013 02:00",
        "25 Oct 2026, 02:00 \u2013 03:00",
    ]
    field = drawn(page, "power")
    field.focus()
    page.keyboard.press("Home")
    expect(page.locator("#power output")).to_contain_text("25 Oct 2026, 00:00: 1.000\u00a0kW")
    box = field.bounding_box()
    assert box
    page.mouse.move(box["x"] + 55 + (box["width"] - 67) * 14 / 25, box["y"] + 60)
    expect(page.locator("#power output")).to_contain_text("no reading")
    with page.expect_download() as download:
        page.get_by_role("link", name="Energy as CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 26


def test_days_begin_in_the_page_as_in_the_service(dashboard: Dashboard, visit: New):
    """In each zone, also where clocks change at midnight or by half an hour."""
    page = visit(dashboard).page
    page.goto("/login")
    start, end = (datetime(year, 1, 1, 12, tzinfo=UTC) for year in (2026, 2027))
    for name in (
        "Europe/Berlin",
        "Africa/Cairo",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "Asia/Beirut",
    ):
        found = page.evaluate(
            """async ([zone, start, end]) => {
              const { unitOf } = await import("/static/times.js");
              const found = [];
              for (let at = start; at < end;) {
                const [from, to] = unitOf("day", at, zone);
                found.push(from / 1000);
                at = to;
              }
              return found;
            }""",
            [name, *(1000 * one.timestamp() for one in (start, end))],
        )
        wanted = edges(start, end, Step.DAY, ZoneInfo(name))[:-1]
        assert found == [one.replace(tzinfo=UTC).timestamp() for one in wanted]


def test_a_part_that_is_drawn_over_is_seen_closer(dashboard: Dashboard, visit: New):
    """With the mouse; a click goes back, and so does the browser."""
    at = visit(dashboard)
    page = at.go(LONG_DAY)
    drag(page, drawn(page, "power"), 0.3, 0.6)
    expect(page.locator("#shown")).to_contain_text("25 Oct 2026, 0")
    start, end = span(page)
    assert timedelta(hours=6) < end - start < timedelta(hours=9)
    at.picture()
    page.get_by_role("button", name="Zoom out").click()
    expect(page.locator("#shown")).to_have_text("Sun, 25 Oct 2026")
    drag(page, drawn(page, "energy"), 0.8, 0.5)
    expect(page.locator("#shown")).to_contain_text("25 Oct 2026, 1")
    page.go_back()
    expect(page.locator("#shown")).to_have_text("Sun, 25 Oct 2026")


def test_the_cursor_reads_what_is_under_it(dashboard: Dashboard, visit: New):
    """By mouse and by keys, of which only the keys are spoken."""
    at = visit(dashboard)
    page = at.go(LONG_DAY + "&compare=1")
    field, words = drawn(page, "energy"), page.locator("#energy output")
    field.hover()
    expect(words).to_contain_text("taken 1.00\u00a0kWh, given 0.")
    expect(words).to_contain_text("the period before: taken 1.00\u00a0kWh")
    expect(words).to_have_attribute("aria-live", "off")
    at.picture()
    page.mouse.move(0, 0)
    expect(words).to_be_empty()
    field.focus()
    page.keyboard.press("End")
    expect(words).to_contain_text("25 Oct 2026, 23:00 \u2013 00:00: taken 1.00\u00a0kWh")
    expect(words).to_have_attribute("aria-live", "polite")
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).not_to_have_text("Sun, 25 Oct 2026")


def sums(page: Page) -> list[list[str]]:
    """Return the table of sums once it is there."""
    expect(page.locator("#charts")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#sums")).to_be_visible()
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#sums tr").all()]


def test_a_time_is_summed_up_by_hour_weekday_month_and_price(dashboard: Dashboard, visit: New):
    """By buttons that keys can press; the address says which, and the same button ends it."""
    at = visit(dashboard)
    page = at.go(LONG_DAY)
    drawn(page, "energy")
    expect(page.locator("#sums")).to_be_hidden()
    page.get_by_role("button", name="By hour").press("Enter")
    head, *hours = sums(page)
    assert head == ["Hour of the day", "Taken", "Given", "Mean power"]
    assert [hour[0] for hour in hours[:3]] == [f"0{n}:00 \u2013 0{n + 1}:00" for n in range(3)]
    assert [hour[1] for hour in hours[:4]] == [f"{n}.00\u00a0kWh" for n in (1, 1, 2, 1)]
    assert hours[10][1:] == ["1.00\u00a0kWh", "0.50\u00a0kWh", "1.100\u00a0kW"]
    widths = page.locator("#sum-rows .taken").evaluate_all(
        "(all) => all.map((one) => one.style.width)"
    )
    assert widths[1:4] == ["50%", "100%", "50%"]
    at.picture()
    with page.expect_download() as download:
        page.get_by_role("link", name="Sums as CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 1 + len(hours)
    page.get_by_role("button", name="By weekday").click()
    expect(page.locator("#sums-by")).to_have_text("Weekday")
    assert sums(page)[1][:3] == ["Sunday", "25.00\u00a0kWh", "3.00\u00a0kWh"]
    page.get_by_role("button", name="By month").click()
    expect(page.locator("#sums-by")).to_have_text("Month")
    assert parse_qs(urlsplit(page.url).query)["by"] == ["month"]
    assert sums(visit(dashboard).go(page.url)) == sums(page)
    page.go_back()
    expect(page.locator("#sums-by")).to_have_text("Weekday")
    page.get_by_role("button", name="By weekday").click()
    expect(page.locator("#sums")).to_be_hidden()
    expect(page.get_by_role("link", name="Sums as CSV")).to_be_hidden()
    assert "by" not in parse_qs(urlsplit(page.url).query)


def test_a_price_has_the_name_that_the_meter_says(dashboard: Dashboard, visit: New):
    """As text, whatever it holds; its cost is beside it, and where there is none that is said."""
    at = visit(dashboard)
    page = at.go(LONG_DAY + "&by=price")
    assert sums(page) == [
        ["Price", "Taken", "Given", "Cost"],
        [homes.ODD[0], "9.00\u00a0kWh", "0.00\u00a0kWh", "\u20ac2.25"],
        ["day", "16.00\u00a0kWh", "3.00\u00a0kWh", "\u20ac4.00"],
    ]
    assert page.locator("main img").count() == 0
    at.picture()
    page = at.go("/history?node=home-0001&by=price")
    expect(page.locator("#no-sums")).to_have_text("There is no price known in this time.")


def test_a_long_time_is_not_summed_up_by_hours(dashboard: Dashboard, visit: New):
    """The service would not: weekdays are shown, and the button cannot be pressed."""
    page = visit(dashboard).go(LONG_DAY.replace("from=2026", "from=2020") + "&by=hour")
    assert sums(page)[0][0] == "Weekday"
    expect(page.get_by_role("button", name="By hour")).to_be_disabled()


def test_an_empty_store_says_what_to_do(empty_dashboard: Dashboard, visit: New):
    """On each page that would show readings."""
    at = visit(empty_dashboard)
    for path in ("/", "/history", "/homes"):
        page = at.go(path)
        expect(page.get_by_role("heading", name="There are no readings yet")).to_be_visible()
        expect(page.locator("#view")).to_be_hidden()
    at.picture()


def test_a_store_that_is_away_is_named_and_waited_for(
    dashboard: Dashboard, mariadb: stack.MariaDb | None, visit: New
):
    """What was there stays; once the store is back the page goes on by itself."""
    if mariadb is None:
        pytest.skip("a server of yours is not killed")
    at = visit(dashboard)
    page = at.go(LONG_DAY)
    drawn(page, "power")
    mariadb.kill()
    page.get_by_role("button", name="Yesterday").click()
    expect(page.locator("#notice")).to_contain_text("trying again")
    expect(page.locator("#power canvas").first).to_be_visible()
    at.picture()
    mariadb.start()
    # The page would look again by itself; to be looked at again is the sooner.
    page.evaluate("() => dispatchEvent(new Event('online'))")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_thousand_homes_are_a_list_that_is_searched(dashboard: Dashboard, visit: New):
    """Each has a line and a page; a search leaves those that it names."""
    at = visit(dashboard)
    page = at.go("/homes")
    lines = page.locator("#homes tr")
    expect(lines).to_have_count(homes.MANY + len(homes.ODD) + 1)
    at.picture(whole=False)
    page.get_by_label("Search").fill("HOME-077")
    expect(lines.filter(visible=True)).to_have_count(10)
    expect(page.locator("#count")).to_have_text("10 of 1,003 homes")
    page.get_by_role("link", name="home-0777").click()
    expect(page.locator("#kw")).to_have_text("0.500")
    expect(page.get_by_label("Home")).to_contain_text("home-0777")


def test_the_release_of_a_reader_is_beside_its_home(dashboard: Dashboard, visit: New):
    """As text; of a reader that does not say it there is none."""
    at = visit(dashboard)
    page = at.go("/homes")
    page.get_by_label("Search").fill(homes.NODE)
    version = page.locator("#homes tr", has_text=homes.NODE).locator("[data-title=Version]")
    expect(version).to_have_text("\u2013")
    now = datetime.now(UTC)
    for said in (homes.ODD[0], "1.1.0"):
        usual = Status(node=homes.NODE, service="online", device="connected", since=now)
        dashboard.hear(structs.replace(usual, version=said))
        expect(version).to_have_text(said)
        at.picture(whole=False)


def test_names_are_text_whatever_they_hold(dashboard: Dashboard, visit: New):
    """Markup and quotes, wherever a name is shown."""
    at = visit(dashboard)
    for name in homes.ODD:
        page = at.go("/homes")
        page.get_by_role("link", name=name, exact=True).click()
        drawn(page, "curve")
        chosen = page.get_by_label("Home").evaluate("(one) => one.selectedOptions[0].textContent")
        assert chosen == f"\u2068{name}\u2069"
        page.get_by_role("link", name="History of this home").click()
        drawn(page, "power")
    at.picture()
    assert page.locator("main :is(img, script)").count() == 0


def test_letters_from_right_to_left_turn_nothing_beside_them(dashboard: Dashboard, visit: New):
    """No store of ours takes such a name for a home: the service's answer is changed."""
    at = visit(dashboard)
    name = "left \u202ethgir \u05d0\u05d1"

    def renamed(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("home-0001", name))

    page = at.go("/health")
    for what in ("homes", "meters"):
        page.route(f"**/api/v1/{what}*", renamed)
    at.go("/homes")
    page.get_by_label("Search").fill("thgir")
    link = page.get_by_role("link", name=name, exact=True)
    assert link.locator("bdi").inner_text() == name
    at.picture(whole=False)
    at.go("/")
    found = page.locator("option", has_text="thgir").evaluate("(one) => one.textContent")
    assert found == f"\u2068{name}\u2069"


def test_a_wrong_password_is_told_and_a_right_one_goes_on(dashboard: Dashboard, visit: New):
    """To the page that was asked for; after logging out there is nothing to see."""
    at = visit(dashboard)
    page = at.page
    page.goto("/health")
    at.log_in("not the password")
    expect(page.get_by_role("alert")).to_contain_text("not the right one")
    at.picture()
    at.log_in()
    expect(page.get_by_role("heading", name="Health", exact=True)).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto("/health")
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_link_from_elsewhere_asks_nothing_of_who_is_logged_in(dashboard: Dashboard, visit: New):
    """A view that comes by mail opens; a link through the login leads to no other address."""
    at = visit(dashboard)
    page = at.go("/health")
    expect(page.get_by_role("heading", name="Health", exact=True)).to_be_visible()
    page.goto(f"data:text/html,<a href='{dashboard.address}/history?node=house'>see</a>")
    page.get_by_role("link", name="see").click()
    drawn(page, "power")
    for elsewhere in ("https://example.org/", "//example.org/", "/\\example.org/"):
        page.goto(f"/login?{urlencode({'next': elsewhere})}")
        page.wait_for_url("**/")
        assert urlsplit(page.url).netloc == urlsplit(dashboard.address).netloc


@pytest.mark.parametrize(("scheme", "size"), [("light", "desk"), ("dark", "phone")])
def test_every_page_can_be_used_by_everybody(
    dashboard: Dashboard, visit: New, scheme: str, size: str
):
    """At a telephone's width nothing is cut off; contrast, names and order satisfy axe."""
    at = visit(dashboard, color_scheme=scheme, **(PHONE if size == "phone" else {}))
    for name, path, ready in (
        ("now", "/?node=house", "#curve .field[data-rows]"),
        ("history", LONG_DAY + "&compare=1&by=hour", "#sums"),
        ("prices", LONG_DAY + "&by=price", "#sums"),
        ("homes", "/homes", "#homes tr"),
        ("health", "/health", "#chain li"),
    ):
        page = at.go(path)
        expect(page.locator(ready).first).to_be_visible()
        at.picture(f"-{name}", whole=name != "homes")
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert page.viewport_size
        assert width <= page.viewport_size["width"]
        # A thousand lines are alike.
        page.locator("#homes tr").evaluate_all(
            "(all) => all.slice(9).forEach((one) => one.remove())"
        )
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_a_finger_zooms_sideways_and_scrolls_up_and_down(dashboard: Dashboard, visit: New):
    """Drawn sideways over a chart it sees closer; otherwise the page moves as everywhere."""
    at = visit(dashboard, **PHONE)
    page = at.go(LONG_DAY)
    field = drawn(page, "power")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box
    finger = page.context.new_cdp_session(page)

    def touch(what: str, *where: tuple[float, float]) -> None:
        points = [{"x": box["x"] + x, "y": box["y"] + y} for x, y in where]
        finger.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": points})

    touch("touchStart", (80, 60))
    for x in range(90, 200, 10):
        touch("touchMove", (x, 62))
    touch("touchEnd")
    expect(page.locator("#shown")).not_to_have_text("Sun, 25 Oct 2026")
    page.get_by_role("button", name="Zoom out").click()
    expect(page.locator("#shown")).to_have_text("Sun, 25 Oct 2026")


def test_pages_are_light(dashboard: Dashboard, visit: New):
    """All that all pages load, as it travels, is below 300 kB, and from this address alone."""
    at = visit(dashboard)
    sizes: dict[str, int] = {}

    def weigh() -> None:
        loaded = at.page.evaluate(
            """() => ["navigation", "resource"]
              .flatMap((type) => performance.getEntriesByType(type))
              .map((one) => [one.name, one.encodedBodySize])"""
        )
        for url, size in loaded:
            # What is there already weighs nothing when it is loaded again.
            if "/api/" not in url:
                sizes[url] = max(size, sizes.get(url, 0))

    at.page.goto("/login")
    weigh()
    at.log_in()
    drawn(at.page, "curve")
    weigh()
    for path in ("/history", "/homes", "/health"):
        at.page.goto(path)
        weigh()
    assert {urlsplit(url).netloc for url in sizes} == {urlsplit(dashboard.address).netloc}
    assert any("dygraph" in url for url in sizes)
    assert 50_000 < sum(sizes.values()) < 300_000


def test_each_reason_of_a_dead_letter_is_explained(dashboard: Dashboard, visit: New):
    """The page says what the documentation does, under the name of each reason."""
    page = visit(dashboard).go("/static/reasons.html")
    table = (
        (stack.ROOT / "docs" / "dead-letters.md")
        .read_text()
        .partition("| reason | what happened | what to do |\n")[2]
    )
    told = [line.replace("`", "") for line in table.partition("\n\n")[0].splitlines()[1:]]
    rows = page.locator("tbody tr").all()
    shown = [row.locator("th, td").all_inner_texts() for row in rows]
    assert ["| " + " | ".join(cells) + " |" for cells in shown] == told
    assert page.locator("#duplicate-key").count() == 1
