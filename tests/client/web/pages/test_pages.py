"""Pages over a real broker: what they show, that their HTML is sound, and that buttons do what they say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from airunner.client.client import Client
from airunner.client.web.pages import livetable
from airunner.client.web.pages.jobpage import summary_of
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode
from tests.client.web.conftest import Web
from tests.client.web.pages.reading import Page, events_of, text_of

PAGES = ("/jobs", "/queues", "/agents", "/secrets", "/submit", "/login")


async def waiting(client: Client, **fields: Any) -> str:
    """Submit a job that waits: no agent serves its queue."""
    return (await client.submit(**{"command": "true", "queue": "nowhere", **fields})).id


async def test_every_page_is_sound_html_without_script_or_style_of_its_own(web: Web) -> None:
    browser = web.browser(tenant="sound")
    async with web.client(tenant="sound") as client:
        job_id = await waiting(client)
    linked: set[str] = set()
    for path in (*PAGES, f"/jobs/{job_id}", "/login/abc"):
        page = Page(await browser.get(path))
        assert len(page.all("h1")) == 1, path
        assert text_of(page.one("title")).endswith(" · airunner")
        assert page.all("style") == []
        assert all(text_of(script) == "" for script in page.all("script"))
        for element in page.root.iter():
            assert not [name for name in element.attrib if name == "style" or name.startswith("on")]
        linked |= {link.get("href", "") for link in page.all("link")}
        linked |= {script.get("src", "") for script in page.all("script")}
    for path in linked:
        answer = await web.anonymous().get(path)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True), path


async def test_pages_need_a_login_and_errors_are_pages_too(web: Web) -> None:
    for path in ("/jobs", "/jobs/x", "/queues", "/agents", "/secrets", "/submit"):
        answer = await web.anonymous(Accept="text/html").get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login"), path
    browser = web.browser("read", tenant="errors")
    for path, status, words in (
        ("/nothing", 404, "There is no such page."),
        ("/jobs/00000000-0000-4000-8000-000000000000", 404, "There is no job 00000000-"),
        ("/jobs?colour=red", 400, "Colour: a list of jobs has no such filter"),
        ("/jobs?queue=%2F%2F", 400, "expected 1 to 128 letters"),
        ("/jobs/no-such-job", 404, "There is no job no-such-job; `airunner list` lists the jobs."),
        ("/jobs/abc", 404, "the beginning of an id has at least 4 characters"),
        (f"/jobs/{'long' * 100}", 404, "There is no job long"),
        ("/submit", 403, "its token lacks the role `submit`"),
        ("/static/../app.py", 404, ""),
        ("/static/%2e%2e/app.py", 404, ""),
    ):
        assert words in Page(await browser.get(path), status).text(), path


async def test_a_failed_job_has_its_reason_where_its_state_does_not_say_it(web: Web) -> None:
    async with web.client() as client:
        for command, why in (("airunner-is-not-this", "command-not-found"), ("false", "")):
            job = await client.submit(command=command)
            await client.wait(job, timeout_s=60)
            page = Page(await web.browser("read").get("/jobs?state=FAILED"))
            (row,) = [row for row in page.all("tr") if row.get("id") == f"job-{job.id}"]
            (cell,) = [text_of(cell) for cell in row.iter() if cell.get("class") == "reason"]
            assert cell == why


async def test_filters_of_the_address_choose_the_jobs(web: Web) -> None:
    async with web.client(tenant="filters") as client:
        await waiting(client, name="one", owner="ann", metadata={"build": "1=2"})
        cancelled = await waiting(client, name="two", queue="other")
        await client.cancel(cancelled)
    browser = web.browser("read", tenant="filters")
    for query, names in (
        ("", ["two true", "one true"]),
        ("?queue=nowhere", ["one true"]),
        ("?name=two", ["two true"]),
        ("?owner=ann&queue=", ["one true"]),
        ("?label=build%3D1%3D2", ["one true"]),
        ("?state=cancelled&state=FAILED", ["two true"]),
        ("?state=FAILED", []),
        (f"?before={cancelled}", ["one true"]),
    ):
        page = Page(await browser.get(f"/jobs{query}"))
        assert page.rows() == names, query
        assert (page.one("p", class_="empty").get("hidden") is None) is (not names)
        assert bool(page.all("table", id="jobs")[0].get("data-live")) is ("before" not in query)


@pytest.mark.parametrize(
    ("query", "name", "typed"),
    [
        ("label=x", "label", "x"),
        ("queue=%2F%2F", "queue", "//"),
        ("name=a&name=b", "name", "a"),
        ("state=done", "", ""),
    ],
)
async def test_a_filter_that_does_not_fit_is_explained_beside_its_control(
    web: Web, query: str, name: str, typed: str
) -> None:
    page = Page(await web.browser("read", tenant="unfit").get(f"/jobs?{query}&owner=ann"), 400)
    [problem] = page.all("strong", class_="problem")
    assert problem.get("id") == f"wrong-{name or 'state'}"
    assert page.one("input", name="owner").get("value") == "ann"
    if name:
        control = page.one("input", name=name)
        assert (control.get("value"), control.get("aria-describedby")) == (typed, problem.get("id"))
    assert page.one("table", id="jobs").get("data-live") is None
    assert "a filter above does not fit" in text_of(page.one("p", class_="empty"))


async def test_the_beginning_of_an_id_and_a_name_lead_to_the_job(web: Web) -> None:
    browser = web.browser("read", tenant="short")
    async with web.client(tenant="short") as client:
        job_id = await waiting(client, name="nightly build")
        for given in (job_id[:8], job_id.upper(), "nightly build"):
            answer = await browser.get(f"/jobs/{given}", params={"from": "1"})
            assert (answer.status_code, answer.headers["location"]) == (307, f"/jobs/{job_id}?from=1"), given
        many = await client.submit_many({"command": "true", "queue": "nowhere"} for _ in range(300))
    beginnings = [job.id[:4] for job in many]  # they have two characters in common, so some have four
    several = next(beginning for beginning in beginnings if beginnings.count(beginning) > 1)
    refused = Page(await browser.get(f"/jobs/{several}"), 404).text()
    assert "is the beginning of several ids" in refused
    assert "Give more characters of the id. " in refused


async def test_older_jobs_are_on_the_next_page(web: Web) -> None:
    async with web.client(tenant="older") as client:
        await client.submit_many({"command": "true", "queue": "q", "name": f"job {n}"} for n in range(52))
    browser = web.browser("read", tenant="older")
    first = Page(await browser.get("/jobs?queue=q"))
    assert len(first.rows()) == 50
    [older] = [link for link in first.all("a") if link.get("rel") == "next"]
    second = Page(await browser.get(older.get("href", "")))
    assert second.rows() == ["job 1 true", "job 0 true"]
    assert [link for link in second.all("a") if link.get("rel") == "next"] == []


@asynccontextmanager
async def live(browser: httpx.AsyncClient, path: str) -> AsyncIterator[AsyncIterator[Any]]:
    async with browser.stream("GET", path) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield events_of(answer)


async def test_rows_move_without_being_asked_for(web: Web) -> None:
    browser = web.browser("read", tenant="live")
    async with web.client(tenant="live") as client:
        first = await waiting(client, name="first")
        path = Page(await browser.get("/jobs?state=SCHEDULED")).one("table", id="jobs").get("data-live", "")
        async with live(browser, path) as events:
            kind, began = await anext(events)
            assert (kind, json.loads(began)["order"]) == ("rows", [f"job-{first}"])
            second = await waiting(client, name="second")
            came = json.loads((await anext(events))[1])
            assert came["order"] == [f"job-{second}", f"job-{first}"]
            assert list(came["rows"]) == [f"job-{second}"]  # only what is new
            assert f'id="job-{second}"' in came["rows"][f"job-{second}"]
            await client.cancel(first)
            assert json.loads((await anext(events))[1])["order"] == [f"job-{second}"]


async def test_a_live_row_is_that_of_the_page(web: Web) -> None:
    browser = web.browser("read", tenant="rows")
    async with web.client(tenant="rows") as client:
        job_id = await waiting(client, name="<i>", owner="me", metadata={"a": "b"})
    async with live(browser, "/jobs/live") as events:
        row = json.loads((await anext(events))[1])["rows"][f"job-{job_id}"]
    assert without_times(row) in without_times((await browser.get("/jobs")).text)
    assert "no agent serves the queue" in row


async def test_queues_move_without_being_asked_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livetable, "IDLE_S", math.inf)
    browser, reader = web.browser(tenant="moving"), web.browser("read", tenant="moving")
    path = Page(await browser.get("/queues")).one("table", id="queues").get("data-live", "")
    async with live(browser, path) as events, live(reader, path) as read, web.client(tenant="moving") as client:
        assert json.loads((await anext(events))[1]) == {"order": [], "rows": {}}
        await waiting(client)
        came = json.loads((await anext(events))[1])
        assert came["order"] == ["queue-nowhere"]
        assert without_times(came["rows"]["queue-nowhere"]) in without_times((await browser.get("/queues")).text)
        while not (rows := json.loads((await anext(read))[1])["rows"]):
            pass
        assert ("<button" in came["rows"]["queue-nowhere"], "<button" in rows["queue-nowhere"]) == (True, False)
        await client.update_queue("nowhere", QueueMode.PAUSED)
        assert "paused" in json.loads((await anext(events))[1])["rows"]["queue-nowhere"]


async def test_a_live_row_of_an_agent_is_that_of_the_page(web: Web) -> None:
    browser = web.browser("read")
    async with live(browser, "/agents/live") as events:
        rows = json.loads((await anext(events))[1])["rows"]
    page = without_times((await browser.get("/agents")).text)
    assert rows
    assert [row for row in rows.values() if without_times(row) not in page] == []


def without_times(html: str) -> str:
    return "".join(part.partition("</time>")[2] or part for part in html.split("<time"))


async def test_a_job_shows_how_it_ended_and_is_retried_once(web: Web) -> None:
    async with web.client() as client:
        job = await client.submit(
            command="sh", args=["-c", "exit 3"], name="unit tests", owner="ann", metadata={"build": "7"}
        )
        await client.wait(job, timeout_s=60)
    page = Page(await web.browser("read", "submit").get(f"/jobs/{job.id}"))
    summary = page.text("section", id="summary")
    assert "FAILED 3" in summary
    assert "its command ended with exit code 3" in summary
    assert "sh -c 'exit 3'" in summary
    assert "build 7" in summary
    assert text_of(page.one("ol", class_="attempts")).startswith("Attempt 1 on ")
    assert phases_in(page).startswith("Phases: waiting ")
    assert {rect.get("class") for rect in page.root.iter() if rect.tag.endswith("}rect")} >= {"starting", "command"}
    assert page.all("button", id="cancel") == []
    form = {"request_id": page.one("input", name="request_id").get("value", "")}
    browser = web.browser("read", "submit")
    retried = [await browser.post(f"/jobs/{job.id}/retry", data=form) for _ in range(2)]
    assert {answer.status_code for answer in retried} == {303}
    [to] = {answer.headers["location"] for answer in retried}  # pressing the button twice makes one job
    assert f'href="/jobs/{job.id}"' in (await browser.get(to)).text


def phases_in(page: Page) -> str:
    [bar] = [element for element in page.root.iter() if element.tag.endswith("}svg")]
    return bar.get("aria-label", "")


async def test_phases_and_times_of_a_job_that_was_tried_again_say_whose_they_are(web: Web) -> None:
    browser = web.browser("read")
    again: dict[str, Any] = {"limit": 1, "backoff_ms": 1}
    async with web.client() as client:
        ended = await client.wait(await client.submit(command="false", retry=again), timeout_s=60)
        page = Page(await browser.get(f"/jobs/{ended.id}"))
        assert phases_in(page).startswith("Phases of attempt 2: waiting ")
        names = {text_of(name) for name in page.all("dt")}
        assert {"Took, since attempt 1", "Started, attempt 1", "Waited, attempt 1", "Ran, attempt 2"} <= names
        assert [text_of(item)[:13] for item in page.one("ol", class_="attempts")] == ["Attempt 1 on ", "Attempt 2 on "]
        job = await client.submit(
            command="false", retry={**again, "backoff_ms": 3_600_000, "backoff_max_ms": 3_600_000}
        )
        async with client.follow(job) as events:
            async for event in events:
                if event.kind == "JOB_SCHEDULED" and event.sequence > 1:
                    break
        page = Page(await browser.get(f"/jobs/{job.id}"))
        await client.cancel(job)
    assert phases_in(page).startswith("Phases of attempt 2: waiting ")
    assert [text_of(item)[:13] for item in page.one("ol", class_="attempts")] == ["Attempt 1 on "]


async def test_a_waiting_job_says_why_and_is_cancelled(web: Web) -> None:
    async with web.client(tenant="waits") as client:
        job_id = await waiting(client, repository="https://example.org/shop.git", branch="main")
        browser = web.browser("read", "submit", tenant="waits")
        page = Page(await browser.get(f"/jobs/{job_id}"))
        assert "no agent serves queue nowhere" in page.text("section", id="summary")
        assert page.all("a", href="https://example.org/shop")
        cancel = await browser.post(f"/jobs/{job_id}/cancel", data={})
        assert (cancel.status_code, cancel.headers["location"]) == (303, f"/jobs/{job_id}")
        assert (await client.get(job_id)).state is JobState.CANCELLED
    assert Page(await browser.get(f"/jobs/{job_id}/summary")).text("section", id="summary").startswith("true CANCELLED")


async def test_buttons_are_for_roles_and_for_this_site(web: Web) -> None:
    async with web.client(tenant="roles") as client:
        job_id = await waiting(client)
        await client.update_queue("nowhere", QueueMode.OPEN)
    reader = web.browser("read", tenant="roles")
    other = web.browser(tenant="elsewhere")
    foreign = web.browser(tenant="roles")
    foreign.headers["Sec-Fetch-Site"] = "cross-site"
    for path, part in ((f"/jobs/{job_id}/summary", "section"), ("/queues", "main")):
        assert Page(await reader.get(path)).one(part).findall(".//{*}button") == []
    for path, form in (
        (f"/jobs/{job_id}/cancel", {}),
        ("/queues", {"queue": "nowhere", "mode": "paused"}),
        ("/submit", {"form_id": "x", "command": "true", "then": "submit"}),
    ):
        for browser in (reader, foreign):
            answer = await browser.post(path, data=form)
            assert answer.status_code == 403, path
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/summary"):
        assert (await other.get(path)).status_code == 404
    cancel = await other.post(f"/jobs/{job_id}/cancel")
    assert cancel.status_code == 404
    async with web.client(tenant="roles") as client:
        assert (await client.get(job_id)).state is JobState.SCHEDULED


async def test_a_queue_is_paused_drained_and_resumed(web: Web) -> None:
    browser = web.browser(tenant="queues")
    async with web.client(tenant="queues") as client:
        await waiting(client)
        for label, mode in (("Pause", "paused"), ("Drain", "draining"), ("Resume", "open")):
            page = Page(await browser.get("/queues"))
            assert [text_of(head) for head in page.all("th", scope="col")][2:4] == ["Waiting", "Of these delayed"]
            button = page.one("button", **{"aria-label": f"{label} queue nowhere"})
            answer = await browser.post("/queues", data={"queue": "nowhere", "mode": button.get("value", "")})
            assert (answer.status_code, answer.headers["location"]) == (303, "/queues")
            queue = await client.queue("nowhere")
            assert queue is not None
            assert queue.mode == mode
    refused = await browser.post("/queues", data={"queue": "nowhere", "mode": "shut"})
    assert "mode: expected open or paused" in Page(refused, 400).text().lower()


async def test_the_page_makes_no_queue_of_a_mistyped_name(web: Web) -> None:
    browser = web.browser(tenant="mistyped")
    refused = await browser.post("/queues", data={"queue": "defualt", "mode": "paused"})
    assert "There is no queue defualt" in Page(refused, 404).text()
    async with web.client(tenant="mistyped") as client:
        assert await client.queue("defualt") is None


async def test_agents_and_secrets_are_listed(web: Web) -> None:
    browser = web.browser(tenant="listed")
    async with web.client(tenant="listed") as client:
        await client.set_secret("ci", "DEPLOY_KEY", b"x" * 64)
    [row] = Page(await browser.get("/secrets")).all("tr")[1:]
    assert "DEPLOY_KEY" in text_of(row)
    assert "ci" in text_of(row)
    assert "of 4" in text_of(Page(await web.browser("read").get("/agents")).all("tr")[1])


@pytest.mark.parametrize(
    ("form", "status", "to"),
    [
        ({"theme": "dark", "next": "/queues"}, 303, "/queues"),
        ({"theme": "dark", "next": "//evil.example"}, 303, "/"),
        ({"theme": "pink", "next": "/"}, 400, None),
        ({"theme": "dark"}, 400, None),
        ({"theme": "dark", "next": "/", "more": "x"}, 400, None),
    ],
)
async def test_the_theme_is_kept_by_the_browser(web: Web, form: dict[str, str], status: int, to: str | None) -> None:
    browser = web.browser("read")
    answer = await browser.post("/theme", data=form)
    assert (answer.status_code, answer.headers.get("location")) == (status, to)
    page = Page(await browser.get("/queues"))
    assert page.one("html").get("data-theme") == ("dark" if status == 303 else "auto")
    assert page.one("button", **{"aria-pressed": "true"}).get("value") == page.one("html").get("data-theme")


async def test_the_page_names_the_last_save_and_the_command_that_continues_there(web: Web) -> None:
    async with web.client() as client:
        job = await client.submit(command="sh", args=["-c", "echo kept > file"], keep=["file"])
        await client.wait(job, timeout_s=60)
    text = Page(await web.browser("read").get(f"/jobs/{job.id}")).text()
    assert re.search(rf"Saved workspace ?1 file, 5 bytes, at 20\S+Z airunner continue {job.id} -- COMMAND", text), text


async def test_the_summary_of_a_long_log_reads_its_ends_only(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is between may be much, and grow: reading it would never end."""
    async with web.client() as client:
        job = await client.submit(command="sh", args=["-c", "for i in 1 2 3 4 5; do head -c 700000 /dev/zero; done"])
        ended = await client.wait(job, timeout_s=60)
        read: list[int] = []
        replay = Client.replay

        def noted(self: Client, *args: Any, **named: Any) -> Any:
            pages = replay(self, *args, **named)
            receive = pages._receive

            async def receive_noted() -> list[Any]:
                batch = await receive()
                read.extend(event.sequence for event in batch)
                return batch

            monkeypatch.setattr(pages, "_receive", receive_noted)
            return pages

        monkeypatch.setattr(Client, "replay", noted)
        summary = await summary_of(client, ended.id)
    assert [phase.name for phase in summary.phases] == ["waiting", "starting", "command", "ending"]
    assert len(summary.attempts) == 1
    assert len(set(read)) < ended.last_sequence
