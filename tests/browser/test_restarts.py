"""What breaks behind pages: they go on by themselves, with nothing missing and nothing twice, and no job notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.driving import Tab, watched
from tests.browser.sites import Fed, Site, running_site

LOST = ("ERR_", "Failed to load resource", "EventSource")  # what Chromium says of a connection that is lost


@pytest.fixture(scope="module")
def breaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that may be broken."""
    with running_site(tmp_path_factory.mktemp("breaking") / "home") as site:
        yield site


def opened(tab: Tab, job_id: str) -> tuple[Page, Page]:
    """The list of jobs and a job's page, as two tabs of one browser."""
    tab.expected.extend(LOST)
    shown = tab.context.new_page()
    shown.goto(f"{tab.origin}/jobs/{job_id}")
    return tab.open("/jobs"), shown


def until(page: Page, last: int) -> None:
    """Wait for a line as the last one, at the number of its line: none is missing and none is there twice."""
    row = page.locator(".log-rows .line").last
    expect(row.locator(".x")).to_have_text(f"line {last}")
    expect(row.locator(".n")).to_have_text(str(last))


def test_pages_go_on_by_themselves_when_the_broker_comes_back(chromium: Browser, breaking: Site, fed: Fed) -> None:
    with breaking.sdk() as client:
        job = client.submit(**fed.job)
    with watched(chromium, breaking.url, breaking.login()) as tab, fed:
        listed, shown = opened(tab, job.id)
        for number in (1, 2, 3):
            fed.lines(number * 500 - 250)
            until(shown, number * 500 - 250)
            breaking.broker.kill()
            fed.lines(number * 500)  # while there is no broker
            breaking.broker.start()
            until(shown, number * 500)
            with breaking.sdk() as client:
                later = client.submit(command="true", name=f"later {number}")
            expect(listed.locator(f"#job-{later.id}")).to_contain_text("COMPLETED")
        fed.__exit__()
        expect(listed.locator(f"#job-{job.id}")).to_contain_text("COMPLETED")


def test_no_job_notices_that_the_web_server_is_killed(chromium: Browser, breaking: Site, fed: Fed) -> None:
    with breaking.sdk() as client:
        job = client.submit(**fed.job)
    with watched(chromium, breaking.url, breaking.login()) as tab, fed:
        listed, shown = opened(tab, job.id)
        fed.lines(250)
        until(shown, 250)
        breaking.kill()
        fed.lines(500)
        with breaking.sdk() as client:
            later = client.submit(command="true")
            client.wait(later, check=True)
        breaking.start()
        until(shown, 500)
        expect(listed.locator(f"#job-{later.id}")).to_contain_text("COMPLETED")
    with breaking.sdk() as client:
        ended = client.wait(job, check=True)
        assert ended.attempt == 1
        assert [line.text for line in client.logs(job)] == [f"line {number}" for number in range(1, 501)]
