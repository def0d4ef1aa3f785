"""Text of a job that would be HTML, script or an address: in pages it is visible text, and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.client.web.conftest import Web
from tests.client.web.pages.reading import Page, differences, events_of, text_of

pytestmark = pytest.mark.unmeasured

PAYLOADS = (
    "<script>alert(1)</script>",
    "</title></textarea></script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt; &#60;i&#62;",
    "--><!--",
    "]]><x/>",
    "<a href=//evil.example>",
)
HIDDEN = "\u202etxt.exe\x1b]0;x\x07\u200b"  # turns the direction, sets a title, hides


async def test_text_of_a_job_changes_no_element_of_any_page(web: Web) -> None:
    """A page with a payload everywhere has the elements of the page with a harmless word."""
    harmless: list[Page] = []
    for tenant, words in (("harmless", ["word"] * len(PAYLOADS)), ("harmful", PAYLOADS)):
        browser = web.browser(tenant=tenant)
        async with web.client(tenant=tenant) as client:
            ids = [
                (
                    await client.submit(
                        command=word,
                        args=[word],
                        name=word,
                        owner=word,
                        metadata={word.replace("=", ""): word + (HIDDEN if tenant == "harmful" else "")},
                        queue="nowhere",
                        repository="https://example.org/x",
                        branch="main",
                        environment={"A": word},
                    )
                ).id
                for word in words
            ]
        pages = [Page(await browser.get(path)) for path in ("/jobs", *(f"/jobs/{job_id}" for job_id in ids))]
        shown = [text_of(cell) for cell in reversed(pages[0].all("td", class_="owner"))]
        assert shown == [" ".join(word.split()) for word in words]
        assert [text_of(page.one("h1")) for page in pages[1:]] == shown
        harmless = harmless or pages
        assert [differences(*pair) for pair in zip(harmless, pages, strict=True)] == [{}] * len(pages)
        async with browser.stream("GET", "/jobs/live") as answer:
            rows = json.loads((await anext(events_of(answer)))[1])["rows"]
        for job_id, word in zip(ids, words, strict=True):
            assert ("<" in word) is ("&lt;" in rows[f"job-{job_id}"])
        if tenant == "harmful":
            assert "\\u202etxt.exe" in pages[1].source
            assert not {"\u202e", "\u200b", "\x1b", "\x07"} & set(pages[1].source)


async def test_what_a_user_typed_is_given_back_as_text(web: Web) -> None:
    browser = web.browser(tenant="typed")
    plain = Page(await browser.get("/jobs?name=word&owner=word&label=a%3Dword&queue=word"))
    wrong = {"form_id": "word", "command": "word", "args": "word", "environment": "word", "queue": "a b"}
    plain_form = Page(await browser.post("/submit", data=wrong), 422)
    for word in PAYLOADS:
        shown = Page(
            await browser.get("/jobs", params={"name": word, "owner": word, "label": f"a={word}", "queue": "q"})
        )
        assert differences(shown, plain) == {}
        assert shown.one("input", name="name").get("value") == word
        typed = {**wrong, "form_id": word, "command": f"/{word}", "args": word, "environment": word.replace("=", "")}
        form = Page(await browser.post("/submit", data=typed), 422)
        assert differences(form, plain_form) == {}
        assert form.one("textarea", name="args").text == word
        error = Page(await browser.get("/jobs", params={word: "x"}), 400)
        assert word[:1].upper() + word[1:] in error.text()
