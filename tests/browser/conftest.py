"""One Chromium and one site for all tests of pages: a broker, an agent and a web server, each a real process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.acceptance.running import warm
from tests.browser.driving import CHROMIUM, Tab, running_chromium, watched
from tests.browser.sites import Fed, Site, running_site

TIMEOUT_S = 180  # some pages, one after the other, on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="Chromium, which shows the pages, is not installed")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))
            if CHROMIUM is None and "CI" not in os.environ:
                item.add_marker(skip)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for each module: while Playwright drives one, no other event loop can run in this thread."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site of all tests that end nothing of it."""
    with warm(), running_site(tmp_path_factory.mktemp("site") / "home") as running:
        yield running


@pytest.fixture(scope="session")
def cookies(site: Site) -> list[dict[str, str]]:
    """The login of somebody who may do everything."""
    return site.login()


@pytest.fixture
def tab(chromium: Browser, site: Site, cookies: list[dict[str, str]]) -> Iterator[Tab]:
    """A tab that is logged in, and has to be quiet."""
    with watched(chromium, site.url, cookies) as tab:
        yield tab


@pytest.fixture
def fed(tmp_path: Path) -> Fed:
    return Fed(tmp_path)
