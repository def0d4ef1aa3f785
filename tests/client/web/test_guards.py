"""What no route sees: other sites, other names, large bodies, slow heads; and the headers of every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import anyio
import pytest

from airunner.client.web import connections, guards
from tests.client.web.conftest import Web

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another subdomain is another site
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
async def test_a_post_of_another_site_is_refused(web: Web, headers: dict[str, str]) -> None:
    browser = web.browser()
    del browser.headers["sec-fetch-site"]
    refused = await browser.post("/logout", headers={**FORM, **headers})
    assert refused.status_code == 403
    assert "another site" in refused.text
    assert (await browser.get("/v1/jobs")).status_code == 200, "still logged in"


@pytest.mark.parametrize("own", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "URL"}, {}], ids=str)
async def test_a_post_of_our_own_page_or_of_curl_is_served(web: Web, own: dict[str, str]) -> None:
    browser = web.browser()
    del browser.headers["sec-fetch-site"]
    headers = {name: value.replace("URL", web.url) for name, value in own.items()}
    assert (await browser.post("/logout", headers={**FORM, **headers})).headers["location"] == "/login"


async def test_a_bearer_token_is_for_any_origin_as_no_browser_adds_one_by_itself(web: Web) -> None:
    answer = await web.bearing().post("/logout", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil.example:80"])
async def test_a_name_that_is_not_ours_is_refused(web: Web, host: str) -> None:
    refused = await web.bearing().get("/v1/jobs", headers={"Host": host})
    assert (refused.status_code, refused.json()["title"]) == (421, "Misdirected Request")


@pytest.mark.parametrize("host", ["localhost:8090", "[::1]:8090", "10.1.2.3"])
async def test_an_address_is_nobodys_name(web: Web, host: str) -> None:
    assert (await web.bearing().get("/v1/jobs", headers={"Host": host})).status_code == 200


async def test_a_body_over_2_mib_is_refused_with_a_length_and_without(web: Web) -> None:
    piece = b"x" * 65_536

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(guards.BODY_BYTES_MAX // len(piece) + 1):
            yield piece

    for content in (piece * 33, chunks()):
        refused = await web.bearing().post("/csp-report", content=content)
        assert (refused.status_code, refused.json()["detail"]) == (413, "the body is larger than 2 MiB")
    assert (await web.bearing().post("/csp-report", content=piece * 32)).status_code == 204


async def test_a_body_that_does_not_come_and_a_head_that_comes_slowly_end_their_connections(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "BODY_S", 0.05)
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    at = urlsplit(web.url)
    head = f"POST /csp-report HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: 9\r\n\r\n"
    for sent in (b"", b"GET / HT", head.encode() + b"part"):
        async with await anyio.connect_tcp(str(at.hostname), at.port or 0) as stream:
            await stream.send(sent or b"\r\n")
            received = b"".join([piece async for piece in stream])  # until its end
        assert received.startswith(b"HTTP/1.1 408") == sent.endswith(b"part")


async def test_every_answer_has_a_policy_and_is_kept_nowhere(web: Web) -> None:
    for answer in (
        await web.browser().get("/"),
        await web.anonymous().get("/v1/jobs"),
        await web.anonymous().get("/nothing"),
        await web.anonymous().get("/", headers={"Host": "evil.example"}),
    ):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_the_log_has_nothing_of_a_user(web: Web) -> None:
    secret = web.services.links.make(web.token(), web.services.now_s())
    await web.anonymous().post(f"/login/{secret}")
    await web.bearing().get("/v1/jobs", params={"queue": "my-secret-queue"})
    await web.anonymous().get("/nothing/secret-path")
    await web.bearing().get("/v1/jobs/5e73b7c8-0000-4000-8000-000000000000")
    logged = "\n".join(web.log)
    assert "POST /login/{secret} 303" in logged
    assert "GET /v1/jobs 200" in logged
    assert "GET - 404" in logged
    for private in (secret, "my-secret-queue", "secret-path", "5e73b7c8", "eyJ"):
        assert private not in logged
