"""A person's way in and out: a link that is used once, and tabs that stop when their session ends."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.browser.driving import watched
from tests.browser.sites import Site


def test_a_login_link_logs_in_one_browser(chromium: Browser, site: Site) -> None:
    link = site.link().removeprefix(site.url)
    with watched(chromium, site.url) as tab, watched(chromium, site.url) as late:
        page = tab.open(link)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
        assert page.evaluate("document.cookie") == "", "no script can read the cookie"
        late.expected.append("404")
        late.open(link).get_by_role("button", name="Log in").click()
        expect(late.page.get_by_text("used before")).to_be_visible()
        assert late.context.cookies() == []


def test_tabs_stop_when_one_of_them_logs_out(chromium: Browser, site: Site) -> None:
    with site.sdk() as client:
        job = client.submit(command="sh", args=["-c", "echo begun; exec sleep 1000"])
    with watched(chromium, site.url, site.login()) as tab:
        tab.expected.append("401")
        listed, shown = tab.open("/jobs"), tab.context.new_page()
        shown.goto(f"{site.url}/jobs/{job.id}")
        expect(shown.locator("#log")).to_contain_text("begun")
        other = tab.context.new_page()
        other.goto(f"{site.url}/jobs")
        other.get_by_role("button", name="Log out").click()
        expect(other).to_have_url(f"{site.url}/login")
        for page in (listed, shown):
            expect(page.get_by_text("logged out")).to_be_visible()
    with site.sdk() as client:
        client.cancel(job)
