"""A real browser: Debian's Chromium through Playwright."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    chromium = os.environ.get("RRO_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium (apt-get install chromium, or set RRO_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a file or address; at the end nothing must have gone wrong, and nothing may have been
    asked of a network."""
    wrong, contexts = [], []

    # What is drawn last: figures, or the task that is opened.
    def opened(target, ready="main.overview > *, #work > *", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        # `rro view` is asked again after ten times as long as it took to answer
        context.set_default_timeout(200_000)
        page = context.new_page()
        page.on(
            "console",
            lambda message: (
                wrong.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
        address = target if isinstance(target, str) else f"file://{target}"
        home = address.split("#")[0] if address.startswith("file") else address
        page.on(
            "request",
            lambda request: None if _belongs(request.url, home) else wrong.append(request.url),
        )
        page.goto(address)
        page.wait_for_selector(ready)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def _belongs(url, home):
    return url.startswith((home.rpartition("/")[0], "data:,"))
