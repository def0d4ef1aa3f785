"""The log of a job on its page: any line of any length of log, in a document that does not grow with it."""

from __future__ import annotations

import re
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from airunner.protocol.jobretry import RetryPolicy
from tests.browser.driving import Tab, until, watched
from tests.browser.sites import Fed, Site

LINES: Final = 600_000  # of 20 px each: beyond the highest element that the viewer makes
ROWS_MAX: Final = 2_000
ELEMENTS: Final = "document.querySelectorAll('*').length"
SHOWN: Final = """() => [...document.querySelectorAll(".log-rows .line")]
    .map(row => [Number(row.querySelector(".n").textContent), row.querySelector(".x")?.textContent])"""
COUNTED: Final = "() => document.querySelector('.log-space').offsetHeight === 8e6"  # the scroll bar is of all lines
SCROLLED: Final = "(element, part) => element.scrollTop = part * (element.scrollHeight - element.clientHeight)"
GROUPED: Final = r"""
echo "--- Preparing"; printf '\033[31mred\033[0m and \033[1;38;5;208morange\033[0m\n'
echo "warning: cold cache" >&2
echo "+++ Testing"; printf '10 %%\r100 %%\n'; printf 'unfinished'
"""


@pytest.fixture(scope="module")
def long(site: Site) -> str:
    """The id of a job whose lines are their own numbers."""
    with site.sdk() as client:
        job = client.submit(command="seq", args=[str(LINES)])
        client.wait(job, check=True)
    return job.id


def lines(page: Page) -> list[int]:
    """The numbers of the rows, once all have their text: each is that number, and they follow each other."""
    shown = until(page, f"() => {{ const all = ({SHOWN})(); return all.length && all.every(row => row[1]) && all }}")
    assert [number for number, text in shown if text != str(number)] == []
    numbers = [number for number, _ in shown]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return numbers


def test_the_document_does_not_grow_with_the_log(tab: Tab, long: str) -> None:
    page = tab.open(f"/jobs/{long}")
    first = lines(page)
    assert first[0] == 1
    until(page, COUNTED)
    view, elements = page.locator(".log-view"), page.evaluate(ELEMENTS)
    for part in (0.1, 0.25, 0.5, 0.75, 0.9):
        view.evaluate(SCROLLED, part)
        until(page, f"() => ({SHOWN})()[0][0] > {LINES * part * 0.9}")
        seen = lines(page)
        assert len(seen) <= ROWS_MAX
        assert seen[0] == pytest.approx(LINES * part, rel=0.02)
        assert page.evaluate(ELEMENTS) < elements + 4 * ROWS_MAX
    view.evaluate(SCROLLED, 1)
    until(page, f"() => ({SHOWN})().at(-1)[0] === {LINES}")
    assert lines(page)[-1] == LINES


def test_a_link_opens_its_line(tab: Tab, long: str) -> None:
    page = tab.open(f"/jobs/{long}#L500000")
    expect(page.locator(".log-rows .target .x")).to_have_text("500000")
    expect(page.locator(".log-rows .target")).to_be_in_viewport()
    lines(page)
    page.evaluate("location.hash = 'L123456'")
    expect(page.locator(".log-rows .target .x")).to_have_text("123456")


def test_a_search_goes_from_hit_to_hit(tab: Tab, long: str) -> None:
    page = tab.open(f"/jobs/{long}")
    lines(page)
    page.keyboard.press("/")
    page.keyboard.type("99999")
    page.keyboard.press("Enter")
    hits = page.locator(".log-hits")
    expect(hits).to_have_text("1 of 6")
    for number, line in ((2, 199_999), (3, 299_999)):
        page.get_by_role("button", name="Next").click()
        expect(hits).to_have_text(f"{number} of 6")
        expect(page.locator(".log-rows .target .x")).to_have_text(str(line))
    tab.expected.append("422")
    page.get_by_label("Regex").check()
    page.get_by_label("Search the log").fill("(")
    page.keyboard.press("Enter")
    expect(hits).to_contain_text("missing")


def test_a_search_from_the_end_with_more_hits_than_are_kept_shows_the_last_of_them(tab: Tab, long: str) -> None:
    page = tab.open(f"/jobs/{long}")
    lines(page)
    end = "document.querySelector('[data-act=end]').click()"  # again, as long as lines are counted
    until(page, f"() => {{ {end}; return ({SHOWN})().at(-1)[0] === {LINES} }}")
    page.keyboard.press("/")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.locator(".log-hits")).to_have_text(re.compile(r"^(1\d,\d{3}) of \1 or more$"))
    expect(page.locator(".log-rows .target.hit")).to_be_in_viewport()


def test_a_log_is_shown_as_a_terminal_shows_it(tab: Tab, site: Site) -> None:
    with site.sdk() as client:
        job = client.submit(command="bash", args=["-c", GROUPED])
        client.wait(job, check=True)
    page = tab.open(f"/jobs/{job.id}")
    rows = page.locator(".log-rows .line")
    group = page.get_by_role("button", name="Group at line 1")
    expect(group).to_have_attribute("aria-expanded", "false")
    expect(rows.filter(has_text="red and orange")).to_be_hidden()
    group.click()
    expect(rows.filter(has_text="red and orange")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.log-rows .x span')).color") != page.evaluate(
        "getComputedStyle(document.querySelector('.log-rows .x')).color"
    )
    expect(rows.filter(has_text="cold cache")).to_have_class("line err")
    expect(rows.filter(has_text="100 %")).to_be_visible()
    expect(rows.filter(has_text="unfinished")).to_be_visible()
    expect(page.get_by_text("10 %\r", exact=True)).to_have_count(0)


def test_a_running_jobs_log_is_followed_until_somebody_scrolls_up(tab: Tab, site: Site, fed: Fed) -> None:
    with site.sdk() as client:
        job = client.submit(**fed.job)
    with fed:
        page = tab.open(f"/jobs/{job.id}")
        follow = page.get_by_role("button", name="Follow")
        for last in (500, 1_000):
            fed.lines(last)
            expect(page.locator(".log-rows .line").last).to_contain_text(f"line {last}")
        expect(follow).to_have_attribute("aria-pressed", "true")
        page.locator(".log-view").hover()
        page.mouse.wheel(0, -2_000)
        expect(follow).to_have_attribute("aria-pressed", "false")
        expect(page.get_by_text("line 890", exact=True)).to_be_visible()
        fed.lines(1_500)
        page.keyboard.press("f")
        expect(page.locator(".log-rows .line").last).to_contain_text("line 1500")


def test_a_job_that_ends_before_its_stream_begins_is_shown_as_ended(tab: Tab, site: Site) -> None:
    with site.sdk() as client:
        job = client.submit(command="sh", args=["-c", "printf x; exec sleep 1000"])

        def end_first(route: Route) -> None:
            client.cancel(job.id)
            client.wait(job)
            route.continue_()

        tab.page.route("**/live?*", end_first, times=1)
        page = tab.open(f"/jobs/{job.id}")
        expect(page.locator("#summary")).to_have_attribute("data-state", "CANCELLED")
        expect(page.locator(".log-state")).to_have_text("")


def test_the_newest_line_is_in_the_window(tab: Tab, site: Site, fed: Fed) -> None:
    # but for parts of a pixel
    with site.sdk() as client:
        job = client.submit(**fed.job)
    page = tab.open(f"/jobs/{job.id}")
    assert page.evaluate("getComputedStyle(document.querySelector('.log-rows'), '::before').content") == (
        '"No output yet."'
    )
    newest = page.locator(".log-rows .line").last
    with fed:
        fed.lines(200)
        expect(newest).to_contain_text("line 200")
        expect(newest).to_be_in_viewport(ratio=0.9)
    expect(page.locator("#summary")).to_have_attribute("data-state", "COMPLETED")
    expect(newest).to_be_in_viewport(ratio=0.9)


def test_the_first_line_of_another_attempt_is_marked(tab: Tab, site: Site) -> None:
    with site.sdk() as client:
        job = client.submit(command="sh", args=["-c", "echo a; echo b; exit 1"], retry=RetryPolicy(limit=1))
        client.wait(job)
    page = tab.open(f"/jobs/{job.id}")
    expect(page.locator(".log-rows .line")).to_have_count(4)
    expect(page.locator(".log-rows .line.again .n")).to_have_text("3")


def test_lists_and_plain_logs_need_no_script(
    chromium: Browser, site: Site, cookies: list[dict[str, str]], long: str
) -> None:
    with watched(chromium, site.url, cookies, java_script_enabled=False) as tab:
        page = tab.open("/jobs?state=COMPLETED")
        page.locator(f"#job-{long} a").first.click()
        plain = page.locator(".log-plain .line")
        expect(plain.first.locator(".x")).to_have_text("1")
        later = int(plain.last.locator(".x").inner_text()) + 1
        page.get_by_role("link", name="Later lines").click()
        expect(plain.first.locator(".x")).to_have_text(str(later))
        tab.open(f"/jobs/{long}?from={LINES}")
        expect(plain.last.locator(".x")).to_have_text(str(LINES))
