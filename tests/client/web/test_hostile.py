"""Hostile requests on a real socket: each is refused in words, and none of them is a fault of the server."""

from __future__ import annotations

import anyio
import pytest

from tests.client.web.conftest import Web

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
