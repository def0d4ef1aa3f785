"""Hostile requests on a real socket: each is refused in words, and none of them is a fault of the server."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from airunner.certs.tokenkeys import new_signing_pem, parse_signing_key
from airunner.certs.tokens import TokenSigner
from airunner.client.web import guards
from airunner.client.web.api import newjobs
from airunner.client.web.guards import Guards
from tests.client.web.conftest import Web

pytestmark = pytest.mark.unmeasured

ANSWER_S_MAX = 20


async def answer_of(web: Web, *requests: bytes) -> bytes:
    """All that the server answers to bytes on one connection, until it closes that."""
    host, _, port = web.url.removeprefix("http://").partition(":")
    answer = b""
    with anyio.fail_after(ANSWER_S_MAX):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            for request in requests:
                await stream.send(request)
            try:
                while True:
                    answer += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return answer


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join((line, *headers, "Connection: close", "", "")).encode("latin-1")


@pytest.mark.parametrize(
    "host", ["evil.example", "[::1", "127.0.0.1:x[", "127.0.0.1@evil.example", "127.0.0.1.evil.example", "", "\xff"]
)
async def test_a_server_of_another_name_is_refused_however_it_is_written(web: Web, host: str) -> None:
    answer = await answer_of(web, head("GET /login HTTP/1.1", f"Host: {host}"))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert web.log[-1].startswith("GET - 421 ")


async def test_no_answer_leads_to_another_scheme_or_site(web: Web) -> None:
    for path in ("/login/", "/v1/jobs/", "//evil.example/", "//evil.example/login/", "/login%0d%0aSet-Cookie:a=b/"):
        for method in ("GET", "POST"):
            answer = await answer_of(web, head(f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: text/html"))
            assert b"\r\nlocation: http" not in answer.lower(), path
            assert b"\r\nset-cookie" not in answer.lower(), path


async def test_a_made_up_method_does_not_fill_the_log(web: Web) -> None:
    answer = await answer_of(web, head("A" * 9_999 + " /login HTTP/1.1", "Host: localhost"))
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert web.log[-1].startswith("- /login 405 ")


@pytest.mark.parametrize(
    "request_",
    [
        head("POST /logout HTTP/1.1", "Host: localhost", "Content-Length: 1", "Content-Length: 2") + b"12",
        head("POST /logout HTTP/1.1", "Host: localhost", "Content-Length: -1"),
        head("POST /logout HTTP/1.1", "Host: localhost", "Transfer-Encoding: gzip"),
        head("GET /login HTTP/1.1", "Host : evil.example", "Host: localhost"),
        head("GET /login HTTP/1.1", "Host: localhost", "Host: evil.example"),
        head("GET /login HTTP/1.1"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99) + b"\r\n\r\n",
        head("GET /" + "a" * 99_999 + " HTTP/1.1", "Host: localhost"),
    ],
    ids=[
        "two lengths",
        "negative length",
        "unknown coding",
        "space before colon",
        "two hosts",
        "no host",
        "TLS",
        "long",
    ],
)
async def test_what_is_no_http_is_answered_with_400_and_nothing_is_smuggled(web: Web, request_: bytes) -> None:
    before = len(web.log)
    answer = await answer_of(web, request_, b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert len(web.log) <= before + 1


def made_up(web: Web, number: int) -> str:
    """A token that looks like any other, and is signed by nobody who may."""
    signer = TokenSigner(parse_signing_key(new_signing_pem(), "a stranger's"))
    return signer.mint(subject=f"stranger-{number}", ttl_s=3_600, now_s=web.services.now_s())


async def test_made_up_tokens_take_no_client_from_those_who_are_known(web: Web) -> None:
    known, browser = web.bearing(), web.browser()
    assert (await known.get("/v1/jobs")).status_code == 200
    tokens = [made_up(web, number) for number in range(40)]
    statuses: list[int] = []

    async def come(token: str) -> None:
        answer = await web.anonymous(Authorization=f"Bearer {token}").get("/v1/jobs")
        statuses.append(answer.status_code)

    async with anyio.create_task_group() as group:
        for token in tokens:
            group.start_soon(come, token)
        for client in (known, browser, known, browser):
            assert (await client.get("/v1/jobs")).status_code == 200
    assert set(statuses) == {401, 503}
    assert statuses.count(503) <= 40 - 32  # those beyond the ones that may wait
    assert not set(web.services.clients._open) & set(tokens)


async def test_a_made_up_token_is_refused_before_anything_of_its_request_is_read(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(newjobs, "jobs_in_json", lambda raw: read.append(len(raw)))
    stranger = web.anonymous(Authorization=f"Bearer {made_up(web, 0)}")
    assert (await stranger.post("/v1/jobs", json={"command": "true"})).status_code == 401
    assert read == []


async def test_a_made_up_token_ends_no_session(web: Web) -> None:
    """Only so many ended ones are remembered: a stranger's would have those of others forgotten."""
    for token in (made_up(web, 0), web.token()):
        answer = await web.anonymous(Authorization=f"Bearer {token}").post("/logout")
        assert answer.status_code == 303
    assert not web.services.sessions._ended
    browser = web.browser()
    assert (await browser.post("/logout")).status_code == 303
    assert len(web.services.sessions._ended) == 1


async def test_a_job_file_is_small_and_read_in_a_thread(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    read = newjobs.jobs_in_file

    def noted(raw: bytes, now_ms: int) -> Any:
        threads.append(threading.get_ident())
        return read(raw, now_ms)

    monkeypatch.setattr(newjobs, "jobs_in_file", noted)
    headers = {"Content-Type": "application/yaml"}
    client = web.bearing(tenant="files")
    assert (await client.post("/v1/jobs", content=b"command: 'true'", headers=headers)).status_code == 201
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    large = await client.post("/v1/jobs", content=b"#" * (newjobs.FILE_BYTES_MAX + 1), headers=headers)
    assert (large.status_code, len(threads)) == (413, 1)


async def test_bodies_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BODIES_BYTES_MAX", 150)
    first_is_read, second_is_refused = anyio.Event(), anyio.Event()

    async def app(_: Any, receive: Any, __: Any) -> None:
        await receive()
        first_is_read.set()
        await second_is_refused.wait()

    async def send(_: Any) -> None:
        raise AssertionError("nothing is answered here")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    guarded = Guards(app, (), "http://localhost")
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    async with anyio.create_task_group() as group:
        group.start_soon(guarded, scope, receive, send)
        await first_is_read.wait()
        with pytest.raises(guards.WebError, match="too many large requests"):
            await guarded(scope, receive, send)
        second_is_refused.set()
    await guarded(scope, receive, send)  # there is room again


@pytest.mark.parametrize("last", ["9" * 5_000, "9" * 17, "-1", "1e3", "0x1", "1;2"])
async def test_an_id_to_resume_from_that_is_none_is_refused(web: Web, last: str) -> None:
    client = web.bearing(tenant="resuming")
    job_id = (await client.post("/v1/jobs", json={"command": "true"})).json()["job_id"]
    for path in ("live", "events"):
        prefix = "/v1" if path == "events" else ""
        answer = await client.get(f"{prefix}/jobs/{job_id}/{path}", headers={"Last-Event-ID": last})
        assert answer.status_code == 400, (path, answer.text)
        assert answer.json()["field"] == "Last-Event-ID"
