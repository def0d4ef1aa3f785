"""The form of a new job: every field, what is wrong beside it, and the job that comes of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from airunner.client.client import Client
from airunner.client.jobref import SubmittedJob
from airunner.client.web.clients import BrokerAway
from airunner.client.web.pages.formfields import GROUPS, NAMES, controls, draft_of, submit_line
from airunner.protocol.fields import FIELDS
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode
from airunner.transport.ports import SYSTEM
from tests.client.web.conftest import Web
from tests.client.web.pages.reading import Page, text_of

NOW_MS = 1_800_000_000_000
EVERYTHING = {
    "command": "sh",
    "args": "-c\n\necho 'two  words'\n-x",
    "name": "a name",
    "queue": "nowhere",
    "repository": "https://example.org/x.git",
    "branch": "main",
    "depth": "5",
    "submodules": "yes",
    "working_directory": "-sub/folder",
    "environment": "A=1=2\nB=\n",
    "secrets": "A",
    "no_redact": "B_TOKEN",
    "process_type": "pty",
    "terminal": "120x40",
    "timeout_seconds": "1h30m",
    "retry": "3",
    "retry_on": "75, SIGKILL, timeout",
    "retry_backoff": "2",
    "max_attempts": "5",
    "cancel_signal": "INT",
    "expires": "2h",
    "priority": "-7",
    "not_before_ms": "2030-01-31T03:00:00Z",
    "require": "os=linux",
    "owner": "ann",
    "metadata": "build=7",
}


def test_every_field_has_a_control() -> None:
    assert set(FIELDS) <= set(NAMES)
    assert set(NAMES) - set(FIELDS) == {"retry_on", "retry_backoff"}
    assert list(controls()) == list(GROUPS)  # none is left over


@pytest.mark.parametrize(
    ("texts", "control", "problem"),
    [
        ({"command": ""}, "command", "this is missing"),
        ({"command": "make test"}, "command", "'make test' is the name of one program"),
        ({"depth": "many"}, "depth", "expected a whole number from 1 to 1000000"),
        ({"priority": "101"}, "priority", "expected a whole number from -100 to 100"),
        ({"environment": "A=1\nB"}, "environment", "expected NAME=VALUE in each line, not 'B'"),
        ({"timeout_seconds": "soon"}, "timeout_seconds", "expected whole seconds, or a duration"),
        ({"retry": "3", "retry_on": "rain"}, "retry_on", "'rain' is not an exit code"),
        ({"retry_backoff": "2"}, "retry", "limit is missing"),
        ({"queue": "a b"}, "queue", "expected 1 to 128 letters"),
        ({"name": "a\u202eb"}, "name", "a control character or an invisible one"),
        ({"repository": "../x"}, "repository", "expected a URL with its scheme"),
        ({"commit": "main: x", "repository": "https://e.org/x"}, "commit", "a commit is a hash"),
        ({"branch": "main"}, "branch", "this needs a repository"),
        ({"working_directory": "/etc"}, "working_directory", "expected a folder in the checkout"),
        ({"args": "x" * 70_000}, "args", "put what is large into a file"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(texts: dict[str, str], control: str, problem: str) -> None:
    draft = draft_of({"command": "true", **texts}, NOW_MS)
    assert draft.spec is None
    assert list(draft.problems) == [control]
    assert problem in draft.problems[control]
    assert "--" not in draft.problems[control].partition(";")[0]  # no option is meant


def test_all_that_is_wrong_is_said_at_once() -> None:
    texts = {
        "command": "make test",
        "name": "a\u202eb",
        "queue": "a b",
        "repository": "../x",
        "branch": "main",
        "depth": "many",
        "working_directory": "/etc",
        "environment": "A",
    }
    draft = draft_of(texts, NOW_MS)
    assert draft.spec is None
    assert set(draft.problems) == set(texts) - {"branch"}  # which needs a repository, and has one


def test_a_command_with_a_path_may_have_blanks() -> None:
    assert draft_of({"command": "/opt/my tools/run"}, NOW_MS).spec is not None


async def test_the_form_and_its_command_submit_the_same_job(web: Web, tmp_path: Path) -> None:
    browser = web.browser(tenant="same")
    shown = Page(await browser.post("/submit", data={**EVERYTHING, "form_id": "1", "then": "show"}))
    line = text_of(shown.one("ul", class_="commands"))
    assert line == " ".join(submit_line(EVERYTHING).split())
    assert shown.one("textarea", name="args").text == EVERYTHING["args"]
    answer = await browser.post("/submit", data={**EVERYTHING, "form_id": "1", "then": "submit"})
    assert answer.status_code == 303
    environ = {
        **os.environ,
        "AIRUNNER_HOME": str(web.home),
        "AIRUNNER_BROKER": web.broker,
        "AIRUNNER_TOKEN": web.token(tenant="same"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    line = submit_line(EVERYTHING).replace("submit", "submit --detach", 1)
    ran = await anyio.run_process(["bash", "-c", line], env=environ, cwd=tmp_path)
    typed = ran.stdout.decode().strip()
    async with web.client(tenant="same") as client:
        by_form, by_command = (await client.get(answer.headers["location"][len("/jobs/") :])), await client.get(typed)
    assert msgspec.structs.asdict(by_form.spec) == msgspec.structs.asdict(by_command.spec)
    assert by_form.state is JobState.SCHEDULED


async def test_a_form_that_is_sent_twice_is_one_job_and_a_changed_one_another(web: Web) -> None:
    browser = web.browser(tenant="twice")
    form: dict[str, Any] = {"form_id": "7", "then": "submit", "command": "true", "queue": "nowhere"}
    answers = [await browser.post("/submit", data=form) for _ in range(2)]
    answers.append(await browser.post("/submit", data={**form, "args": "again"}))
    first, second, changed = (answer.headers["location"] for answer in answers)
    assert first == second != changed


async def test_a_form_with_a_time_that_counts_from_now_is_one_job_too(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = web.browser("submit", "read")
    form = {"form_id": "8", "then": "submit", "command": "true", "queue": "nowhere", "not_before_ms": "+5m"}
    first = await browser.post("/submit", data=form)
    later_ms = SYSTEM.wall_ms() + 60_000
    monkeypatch.setattr("airunner.client.web.pages.submitpage.SYSTEM", replace(SYSTEM, wall_ms=lambda: later_ms))
    again = await browser.post("/submit", data=form)
    assert (first.status_code, again.status_code) == (303, 303)
    assert first.headers["location"] == again.headers["location"]


async def test_what_a_silent_broker_may_have_got_is_sent_again_as_it_was(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object, **__: object) -> SubmittedJob:
        raise BrokerAway

    browser = web.browser("submit", "read")
    form = {"form_id": "9", "then": "submit", "command": "true", "args": "typed", "queue": "nowhere"}
    with monkeypatch.context() as patched:
        patched.setattr(Client, "submit", silent)
        page = Page(await browser.post("/submit", data=form), 503)
        assert "submit this form again" in text_of(page.one("div", role="alert"))
        assert page.one("input", name="form_id").get("value") == "9"
        assert "typed" in page.text()
        answer = await browser.post("/v1/jobs", json={"command": "true"})
        assert (answer.status_code, "look before you send it again" in answer.json()["detail"]) == (503, True)
        answer = await browser.post("/v1/jobs", json={"command": "true"}, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, "try again" in answer.json()["detail"]) == (503, True)
    assert (await browser.post("/submit", data=form)).status_code == 303


async def test_refusals_are_shown_in_the_form(web: Web) -> None:
    browser = web.browser(tenant="refused")
    form = {"form_id": "7", "then": "submit", "command": "true", "queue": "shut", "depth": "x"}
    page = Page(await browser.post("/submit", data=form), 422)
    assert "1 field below does not fit" in text_of(page.one("div", role="alert"))
    assert page.one("input", name="depth").get("aria-invalid") == "true"
    assert "expected a whole number" in text_of(page.one("p", id="field-depth-help"))
    async with web.client(tenant="refused") as client:
        await client.update_queue("shut", QueueMode.DRAINING)
    page = Page(await browser.post("/submit", data={**form, "depth": ""}), 409)
    assert "queue shut is being drained" in text_of(page.one("div", role="alert"))
    assert page.one("input", name="queue").get("value") == "shut"
    unknown = Page(await browser.post("/submit", data={**form, "colour": "red"}), 400)
    assert "Colour: the form has no such field" in unknown.text()
    raw = await browser.post("/submit", content=b"{}", headers={"content-type": "application/json"})
    assert raw.status_code == 415
