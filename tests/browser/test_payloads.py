"""Hostile texts in all that a job writes, is named or is labelled: on every page they are text and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from airunner.protocol.fields import JobSpec
from tests.browser.driving import Tab, until, watched
from tests.browser.payloads import FORMS, branch, payloads, visible
from tests.browser.sites import Site

LABELS: Final = 40  # of a job: half of them names, half of them values
ARGUMENTS: Final = 10
A_JOB: Final = LABELS + ARGUMENTS + 3  # texts of a job, with its name, its owner and its branch
REPOSITORY: Final = "https://example.invalid/product"  # which a job's page links to
QUEUE: Final = "payloads"  # no agent works on it
CENSUS: Final = """() => {
    const elements = [...document.querySelectorAll("*")]
    const targets = element => [element.href, element.src, element.action, element.formAction]
    return {
        elements: elements.map(element => [element.localName, ...element.getAttributeNames().sort()].join(" ")),
        pwned: elements.filter(element => element.hasAttribute("pwned")).length + (window.pwned ? 1 : 0),
        links: elements.flatMap(targets).filter(link => typeof link === "string" && link),
        text: document.documentElement.textContent,
    }
}"""

SHOWN: Final = """[...document.querySelectorAll(".log-rows .line .x")].map(element => element.textContent)"""
ROWS: Final = """[...document.querySelectorAll(".log-rows .line")]"""
LOADED: Final = f"""() => {ROWS}.length > 0 && {ROWS}.every(row => row.querySelector(".x"))"""
FIRST: Final = """document.querySelector(".log-rows .line .n")?.textContent"""
INSIDE: Final = """[...document.querySelectorAll(".terminal *")].map(element => element.localName)"""


def census(tab: Tab) -> tuple[Counter[str], str]:
    """Number of elements of the page by name and attributes, and its text; none is what a payload makes."""
    seen = tab.page.evaluate(CENSUS)
    assert seen["pwned"] == 0, tab.page.url
    assert [link for link in seen["links"] if not link.startswith((f"{tab.origin}/", REPOSITORY))] == []
    return Counter(seen["elements"]), seen["text"]


def job_of(texts: list[str]) -> JobSpec:
    """A job that has these texts wherever one may be."""
    name, owner, *labels = map(visible, texts[: LABELS + 2])
    branched, *arguments = texts[LABELS + 2 :]
    return JobSpec(
        command="true",
        args=tuple(arguments),
        queue=QUEUE,
        name=name,
        owner=owner,
        repository=f"{REPOSITORY}.git",
        branch=branch(visible(branched)),
        metadata={text.replace("=", " "): value for text, value in zip(labels[::2], labels[1::2], strict=True)},
    )


def harmless(number: int) -> str:
    """A text without markup, of a payload's length."""
    return f"harmless text {number:06}"


@pytest.fixture(scope="module")
def hostile(site: Site) -> list[str]:
    """Ids of jobs with all payloads between them; the last one is harmless, and has the shape of the others."""
    texts = payloads()
    made = [job_of(texts[at : at + A_JOB]) for at in range(0, len(texts) - A_JOB + 1, A_JOB)]
    made += [job_of(texts[-A_JOB:]), job_of([harmless(number) for number in range(A_JOB)])]
    with site.sdk() as client:
        return [job.id for job in client.submit_many(made)]


def test_payloads_of_a_jobs_fields_are_text_on_its_page(tab: Tab, hostile: list[str]) -> None:
    pages = []
    for job_id in hostile:
        tab.open(f"/jobs/{job_id}")
        pages.append(census(tab))
    plain, _ = pages.pop()
    for elements, text in pages:
        assert elements == plain
        assert "pwned" in text


@pytest.mark.usefixtures("hostile")
def test_payloads_are_text_in_lists_that_move(tab: Tab, site: Site) -> None:
    tab.open(f"/jobs?queue={QUEUE}").locator("#jobs .job").first.wait_for()
    tab.page.locator("#live[data-on=yes]").wait_for()
    before, _ = census(tab)
    texts = payloads()
    with site.sdk() as client:
        job = client.submit(job_of(texts[:A_JOB]))
        tab.page.locator(f"#job-{job.id}").wait_for()
        client.cancel(job)
    tab.page.locator(f"#job-{job.id}").get_by_text("CANCELLED").wait_for()
    moved, text = census(tab)
    assert set(moved) - set(before) == set()
    assert texts[0] in text


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that writes all payloads, as output, as errors and as names of groups."""
    texts = payloads()
    lines = [("", "--- ", "::group::")[number % 3] + text for number, text in enumerate(texts)]
    path = tmp_path_factory.mktemp("payloads") / "written"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["-c", f"cat {path}; cat {path} >&2; echo the end"]


def test_payloads_of_output_are_text_in_a_log(
    chromium: Browser, site: Site, cookies: list[dict[str, str]], written: list[str]
) -> None:
    with site.sdk() as client:
        job = client.submit(command="sh", args=written)
        client.wait(job, check=True)
    tall = {"width": 1_280, "height": 6_000}
    seen = set[str]()
    with watched(chromium, site.url, cookies, viewport=tall) as tab:
        page = tab.open(f"/jobs/{job.id}?from=1#L1")
        while True:
            until(page, LOADED)
            census(tab)
            seen |= set(page.evaluate(SHOWN))
            if "the end" in seen:
                break
            first = page.evaluate(FIRST)
            page.locator(".log-view").evaluate("view => view.scrollBy(0, view.clientHeight - 40)")
            until(page, f"first => {FIRST} && {FIRST} !== first", first)
    expected = {text for text in payloads() if text.isprintable()}
    assert len(expected) > 1_500
    assert [text for text in expected if not any(text in line for line in seen)] == []


def test_payloads_of_output_are_text_in_a_terminal(tab: Tab, site: Site, written: list[str]) -> None:
    with site.sdk() as client:
        job = client.submit(command="sh", args=written, process_type="pty")
        page = tab.open(f"/jobs/{job.id}")
        page.locator(".xterm-rows").get_by_text("the end").wait_for()
        client.cancel(job)
    census(tab)
    assert set(page.evaluate(INSIDE)) <= {"div", "span", "textarea", "canvas", "template"}


@pytest.mark.parametrize("path", ["/jobs?name={}&label={}", "/jobs/{}", "/login/{}", "/{}"])
def test_payloads_of_an_address_are_text(tab: Tab, path: str) -> None:
    tab.expected.append("404")
    for form in FORMS[::6]:
        text = quote(form.format(n=1), safe="")
        tab.open(path.replace("{}", text))
        census(tab)
