"""What the dashboard's pages weigh, and how soon a browser that has nothing of them draws a curve."""

from __future__ import annotations

import os
from statistics import median
from typing import Final

from playwright.sync_api import Browser, StorageState, sync_playwright

from raven_harness import stack
from results import Row

REPEATS: Final = 5
KB_AIM: Final = 300.0
SETTLE_MS: Final = 1000
"""What a page loads after its curve is counted too."""
CURVES: Final = {"/": "curve", "/history": "power"}
DRAWN: Final = """(id) => {
  const drawn = document.querySelector(`#${id} .field[data-rows]`);
  return Number(drawn?.dataset.rows) > 0 && performance.now();
}"""

TEXT: Final = f"""\
The pages are opened in headless Chromium, logged in and with an empty cache, {REPEATS} times each:

- *weight*: all that comes over the wire for a page, compressed as it is sent and with its headers,
  in kB of a thousand bytes, until a second after its curve is drawn;
- *first curve*: from the start of the navigation until the curve is drawn, its rows counted.
"""


def measured(address: str, password: str, node: str, of: str) -> list[Row]:
    """Return the rows of a home's pages at an address."""
    found = []
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=stack.tool("chromium"), args=options)
        session = _logged_in(browser, address, password)
        for path, curve in CURVES.items():
            looks = [
                _look(browser, session, f"{address}{path}?node={node}", curve)
                for _ in range(REPEATS)
            ]
            weight, drawn_ms = (median(column) for column in zip(*looks, strict=True))
            name = "History" if path == "/history" else "Now"
            what = f"page {name}, weight, {of}"
            ratio = weight / KB_AIM
            row = Row(what, f"{weight:.0f} kB", f"aim {KB_AIM:.0f} kB", ratio, 1.0, at_most=True)
            found += [row, Row(f"page {name}, first curve, {of}", f"{drawn_ms:.0f} ms", "")]
        browser.close()
    return found


def _logged_in(browser: Browser, address: str, password: str) -> StorageState:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}/login")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(lambda url: "/login" not in url)
        return context.storage_state()


def _look(browser: Browser, session: StorageState, url: str, curve: str) -> tuple[float, float]:
    """Return what a page weighs in kB, and after how many ms its curve is drawn."""
    sizes: list[float] = []
    with browser.new_context(storage_state=session) as context:
        page = context.new_page()
        wire = context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.on("Network.loadingFinished", lambda done: sizes.append(done["encodedDataLength"]))
        page.goto(url, wait_until="commit")
        drawn_ms = page.wait_for_function(DRAWN, arg=curve).json_value()
        page.wait_for_timeout(SETTLE_MS)
    if not sizes:
        raise RuntimeError(f"{url}: nothing was loaded")
    return sum(sizes) / 1000, float(drawn_ms)
