"""Lists of queues and agents: they move by themselves, and no page is loaded again."""

from __future__ import annotations

from typing import Final

from playwright.sync_api import Page, expect

from tests.browser.driving import Tab
from tests.browser.sites import Site

QUEUE: Final = "moving/queue.1"  # in a selector this would be another element
AGENT: Final = "mover.1"  # and the queue from which it takes jobs


def opened(tab: Tab, path: str) -> Page:
    """A live page that notes whether it is loaded again."""
    page = tab.open(path)
    expect(page.locator("#live")).to_have_text("Live")
    page.evaluate("window.kept = true")
    return page


def test_a_queue_moves_on_the_page_of_queues(tab: Tab, site: Site) -> None:
    page = opened(tab, "/queues")
    row = page.locator(f'[id="queue-{QUEUE}"]')
    with site.sdk() as client:
        job = client.submit(command="true", queue=QUEUE)
        expect(row.locator("[data-label=Waiting]")).to_have_text("1")
        row.get_by_role("button", name="Drain").focus()
        assert site.cluster.airunner("pause", QUEUE).returncode == 0
        expect(row.locator(".badge")).to_have_text("paused")
        expect(row.get_by_role("button", name="Resume")).to_be_focused()  # the first of those that are there now
        client.cancel(job)
        expect(row.locator("[data-label=Waiting]")).to_have_text("0")
    assert page.evaluate("window.kept")


def test_what_has_not_changed_of_a_row_stays_the_same_element(tab: Tab, site: Site) -> None:
    page = opened(tab, "/queues")
    row = page.locator('[id="queue-staying"]')
    with site.sdk() as client:
        client.submit(command="true", queue="staying")
        button = row.get_by_role("button", name="Pause").element_handle()
        client.submit(command="true", queue="staying")
        expect(row.locator("[data-label=Waiting]")).to_have_text("2")
        assert button.evaluate("button => button.isConnected")  # it can be pressed while counts change


def test_an_agent_comes_and_works_on_the_page_of_agents(tab: Tab, site: Site) -> None:
    page = opened(tab, "/agents")
    row = page.locator(f'[id="agent-{AGENT}"]')
    expect(row).to_have_count(0)
    agent = site.cluster.agent("--name", AGENT, "--queue", AGENT)
    try:
        with site.sdk() as client:
            job = client.submit(command="sleep", args=["1000"], queue=AGENT)
            expect(row).to_contain_text("1 of 1")
            client.cancel(job)
            expect(row).to_contain_text("0 of 1")
    finally:
        agent.stop()
    assert page.evaluate("window.kept")
