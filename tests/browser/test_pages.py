"""Every page at the widths of a desk, a tablet and a phone, dark and light: accessible, and not wider than that.

`make web-screens` runs this module with AIRUNNER_WRITE_SCREENS set: then what is seen is written to docs/screens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.driving import watched
from tests.browser.prepared import Prepared
from tests.browser.sites import Site, running_site

SCREENS: Final = Path(__file__).resolve().parents[2] / "docs" / "screens"
WRITE: Final = "AIRUNNER_WRITE_SCREENS"
HEIGHTS: Final = {1_280: 800, 768: 1_024, 360: 740}  # by width
SCHEMES: Final = ("light", "dark")
CHECKED: Final = {(1_280, "light"), (360, "dark")}
"""Where axe-core looks each time: each scheme, and the widest and the narrowest page. With AIRUNNER_WRITE_SCREENS it
looks everywhere, which takes three times as long."""
BEYOND: Final = """() => [...document.querySelectorAll("body *")].filter(element =>
    element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        && !element.closest("[data-scrolls]")).map(element => element.outerHTML.slice(0, 200))"""
WIDER: Final = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Prepared]]:
    """A site of its own, whose lists have the prepared jobs alone."""
    home = tmp_path_factory.mktemp("busy") / "home"
    with TemporaryDirectory(prefix="git") as folder, running_site(home) as site:  # its path is seen in the pictures
        yield site, Prepared(site, Path(folder))


def paths(prepared: Prepared) -> dict[str, str]:
    """The six pages that are kept as pictures, and others."""
    return {
        "jobs": "/jobs",
        "job": f"/jobs/{prepared.failed}",
        "terminal": f"/jobs/{prepared.terminal}",
        "queues": "/queues",
        "agents": "/agents",
        "submit": "/submit",
    }


def others(prepared: Prepared) -> tuple[str, ...]:
    return (
        "/secrets",
        f"/jobs/{prepared.running}",
        f"/jobs/{prepared.waiting}",
        f"/jobs/{prepared.paused}",
        "/jobs?name=nothing",
        "/jobs?label=nothing&state=none&queue=%2F",  # filters that do not fit
        "/login",
    )


def settle(page: Page, name: str) -> None:
    """Wait until the page has what comes after it has loaded."""
    if name == "jobs":
        expect(page.locator("#live")).to_have_text("Live")
    if name == "job":
        page.locator("#log").get_by_text("FAILED tests/broker").first.wait_for()
    if name == "terminal":
        page.get_by_label("Terminal of the job").scroll_into_view_if_needed()  # out of view it draws nothing
        page.locator(".xterm-rows").get_by_text("no downtime").wait_for()


@pytest.mark.parametrize(("width", "scheme"), list(product(HEIGHTS, SCHEMES)))
def test_pages_are_accessible_and_fit_every_width(
    chromium: Browser, busy: tuple[Site, Prepared], width: int, scheme: str
) -> None:
    site, prepared = busy
    viewport = {"width": width, "height": HEIGHTS[width]}
    with watched(chromium, site.url, site.login(), viewport=viewport, color_scheme=scheme) as tab:
        tab.expected.append("status of 400")
        for name, path in [*paths(prepared).items(), *(("", path) for path in others(prepared))]:
            page = tab.open(path)
            settle(page, name)
            if name and os.environ.get(WRITE):
                SCREENS.mkdir(exist_ok=True)
                page.screenshot(path=SCREENS / f"{name}-{width}-{scheme}.png")
            assert not page.evaluate(WIDER), f"{path} is wider than {width} px: {page.evaluate(BEYOND)}"
            if os.environ.get(WRITE) or (width, scheme) in CHECKED:
                assert tab.accessibility() == [], path


def test_the_pictures_of_the_documentation_are_those_of_the_pages() -> None:
    names = ("jobs", "job", "terminal", "queues", "agents", "submit")
    expected = {f"{name}-{width}-{scheme}.png" for name, width, scheme in product(names, HEIGHTS, SCHEMES)}
    assert {path.name for path in SCREENS.iterdir()} == expected
