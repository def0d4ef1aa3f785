"""Every route, with 2,000 hostile texts in all that a job writes, is named or is labelled: no page has an element more.

What is no page of ours is of a type that no browser takes for one. (Chromium is asked in tests/browser.)
"""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus

import anyio
import html5lib
import httpx
import pytest
from starlette.routing import Route

from airunner.client.client import Client
from airunner.client.web.app import ROUTES
from airunner.client.web.sessions import STREAMS_MAX
from airunner.protocol.fields import JobSpec
from airunner.protocol.gitaddress import is_ref_name
from airunner.protocol.printable import is_plain
from tests.browser.payloads import payloads
from tests.client.web.conftest import NO_TLS, Web
from tests.client.web.test_hostile import answer_of, head

pytestmark = pytest.mark.unmeasured

LABELS = 40
ARGUMENTS = 500
TEXTS_OF_A_JOB = LABELS + 3
STREAMS = ("text/event-stream", "application/octet-stream")
SOUND = (*STREAMS, "text/plain", "application/json", "application/problem+json")


def waiting_job(texts: list[str]) -> JobSpec:
    """A job that is named and labelled by these texts, and for which there is no agent."""
    name, owner, branch, *labels = texts
    names = (text.replace("=", " ") for text in labels[::2])
    return JobSpec(
        command="true",
        queue="nobody",
        name=name[:60],
        owner=owner,
        repository="https://example.invalid/x.git",
        branch=branch if is_ref_name(branch) else "main",
        metadata=dict(zip(names, labels[1::2], strict=True)),
    )


async def printed_by_a_job(client: Client, texts: list[str]) -> str:
    """The id of a job that is called with some of these texts, and has printed all of them."""
    job = await client.submit(
        command="sh",
        args=("-c", "cat", *texts[:ARGUMENTS]),
        name=texts[0][:60],
        owner=texts[1],
        stdin="\n".join(texts).encode(),
    )
    return (await client.wait(job, check=True)).id


def elements(html: str) -> Counter[str]:
    """Elements of a page by name and attributes, as a browser finds them; none of them is made by a payload."""
    found: Counter[str] = Counter()
    for element in html5lib.parse(html, treebuilder="etree", namespaceHTMLElements=False).iter():
        if isinstance(element.tag, str):
            assert "pwned" not in element.attrib
            assert not (element.tag == "script" and not element.get("src"))
            found[" ".join((element.tag, *sorted(element.attrib)))] += 1
    return found


def paths(job_id: str) -> list[str]:
    """An address of every route that is read."""
    given = {"{job_id}": job_id, "{secret}": '"><b pwned=1>', "{queue}": "default", "{name}": "default"}
    given |= {"{path:path}": "dist/none"}
    found = [route.path for route in ROUTES if isinstance(route, Route) and "GET" in (route.methods or ())]
    for name, value in given.items():
        found = [path.replace(name, value) for path in found]
    assert not [path for path in found if "{" in path], "a parameter has no value here"
    return found


async def test_hostile_texts_add_no_element_to_any_page_and_nothing_else_is_a_page(web: Web) -> None:
    texts = payloads()
    harmless = [f"harmless text {number:06}" for number in range(len(texts))]
    plain_texts = list(filter(is_plain, texts))  # others are refused as names
    batches = [plain_texts[at : at + TEXTS_OF_A_JOB] for at in range(0, len(plain_texts), TEXTS_OF_A_JOB)][:-1]
    async with web.client() as client:
        waiting = await client.submit_many(map(waiting_job, batches))
        hostile, plain = [await printed_by_a_job(client, each) for each in (texts, harmless)]
    pages, expected = await read_all(web, hostile), await read_all(web, plain)
    assert pages.keys() == expected.keys() >= {"/jobs/ID", "/queues", "/agents", "/secrets", "/submit", "/login"}
    assert {
        path: set(page) - set(expected[path]) for path, page in pages.items() if set(page) - set(expected[path])
    } == {}
    browser = web.browser()
    shown = [elements((await browser.get(f"/jobs/{job.id}")).text) for job in waiting]
    assert len({frozenset(each.items()) for each in shown}) == 1


async def read_all(web: Web, job_id: str) -> dict[str, Counter[str]]:
    """Read every route as a browser; the elements of those that are pages, by path."""
    browser, found = web.browser(), {}
    for path in paths(job_id):
        async with browser.stream("GET", path) as answer:
            kind = answer.headers.get("content-type", "").partition(";")[0]
            body = "" if kind in STREAMS else (await answer.aread()).decode()  # some of those have no end
        assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["cache-control"].startswith(("no-store", "no-cache")), path
        if kind == "text/html":
            found[path.replace(job_id, "ID")] = elements(body)
        else:
            assert kind in SOUND or not body, path
    return found


STATIC = """
    ../pages/routes.py ..%2fpages%2froutes.py %2e%2e/%2e%2e/login.py ..%5c..%5clogin.py //etc/passwd %2fetc%2fpasswd
    ..;/login.py ....//login.py airunner.css%00.py . .. %2e /. %ff ~root
"""


@pytest.mark.parametrize("path", STATIC.split())
async def test_static_files_are_those_of_their_folder(web: Web, path: str) -> None:
    answer = await answer_of(web, head(f"GET /static/{path} HTTP/1.1", "Host: localhost"))  # no client makes it plain
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:99]
    assert b"import " not in answer
    assert b"root:" not in answer


async def test_a_link_that_many_redeem_at_once_logs_in_one_of_them(web: Web) -> None:
    secret = web.services.links.make(web.token(), web.services.now_s())
    statuses: list[int] = []

    async def redeem() -> None:
        statuses.append((await web.anonymous().post(f"/login/{secret}")).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(redeem)
    assert sorted(statuses) == [303, *[404] * 19]


async def test_a_session_has_so_many_streams_and_others_have_their_own(web: Web) -> None:
    login, other = web.bearing(), web.bearing()
    job = (await login.post("/v1/jobs", json={"command": "true", "queue": "nobody"})).json()["job_id"]
    limits = httpx.Limits(max_connections=STREAMS_MAX + 1)
    headers = dict(login.headers)
    async with httpx.AsyncClient(base_url=web.url, headers=headers, limits=limits, timeout=30, verify=NO_TLS) as client:
        answers = []
        for _ in range(STREAMS_MAX):
            answer = await client.send(client.build_request("GET", f"/v1/jobs/{job}/events"), stream=True)
            assert answer.status_code == 200
            answers.append(answer)
        refused = await login.get(f"/v1/jobs/{job}/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        async with other.stream("GET", f"/v1/jobs/{job}/events") as answer:
            assert answer.status_code == 200
        for answer in answers:
            await answer.aclose()
    await login.post(f"/v1/jobs/{job}/cancel")
