"""One Chromium and one site for all tests of pages: a broker, an agent and a web server, each a real process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.driving import CHROMIUM, running_chromium

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
