"""Logging in and out: by bearer token, by link, by cookie."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.responses import Response

from airunner.certs.secretfile import read_secret
from airunner.client.web import loginlinks
from airunner.client.web.cookies import Cookies
from airunner.client.web.loginlinks import LINK_S, LoginLinks
from airunner.protocol.errors import NotFound, OperatorError
from airunner.testing import Cluster
from tests.client.web.conftest import Web, served


async def test_a_request_without_a_token_is_told_how_to_log_in(web: Web) -> None:
    answer = await web.anonymous().get("/v1/jobs")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "airunner token" in answer.json()["detail"]
    page = await web.anonymous(Accept="text/html").get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/login")


def joined(*parts: dict[str, object] | str) -> str:
    """A token or cookie of these parts, made by nobody."""
    texts = (json.dumps(part) if isinstance(part, dict) else part for part in parts)
    return ".".join(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in texts)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "dir", "enc": ["A256GCM"]},
        {"alg": "dir", "enc": "A256GCM", "crit": 5},
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        "[" * 3_000,
    ],
)
async def test_a_made_up_cookie_is_no_login_and_no_fault(web: Web, header: dict[str, object] | str) -> None:
    cookie = f"{web.services.cookies.name}={joined(header, '', '0' * 12, 'x', '0' * 16)}"
    assert (await web.anonymous(Cookie=cookie).get("/v1/jobs")).status_code == 401
    page = await web.anonymous(Cookie=cookie, Accept="text/html").get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    out = await web.anonymous(Cookie=cookie, Accept="text/html").post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in out.headers["set-cookie"]


async def test_claims_that_are_too_deep_are_none(web: Web) -> None:
    deep = '{"sub":"a","tenant":"b","exp":9e99,"zz":' + "[" * 4_000
    answer = await web.anonymous(Authorization=f"Bearer {joined({}, deep, '')}").get("/v1/jobs")
    assert answer.status_code == 401


async def test_a_link_logs_in_once(web: Web) -> None:
    secret = web.services.links.make(web.token("read"), web.services.now_s())
    browser = web.anonymous(Accept="text/html")
    shown = await browser.get(f"/login/{secret}")  # as often as one likes
    assert f'action="/login/{secret}"' in shown.text
    assert (await browser.post(f"/login/{secret}")).status_code == 303
    assert (await browser.get("/")).status_code == 200
    assert (await web.anonymous().post(f"/login/{secret}")).status_code == 404


async def test_jobs_are_those_of_the_tenant_of_the_token(web: Web) -> None:
    async with web.client(tenant="mine") as client:
        job = await client.submit(command="true", name="core")
    listed = (await web.bearing("read", tenant="mine").get("/v1/jobs")).json()["jobs"]
    assert [found["id"] for found in listed] == [job.id]
    assert (await web.bearing("read", tenant="theirs").get("/v1/jobs")).json()["jobs"] == []


async def test_a_link_ends_after_five_minutes_and_leaves_no_file(web: Web, tmp_path: Path) -> None:
    links = LoginLinks(tmp_path)
    now_s = time.time()
    old = links.make("a.b.c", now_s - LINK_S)
    with pytest.raises(NotFound, match="older than five minutes"):
        links.redeem(old, now_s)
    assert links.redeem(links.make("a.b.c", now_s), now_s + LINK_S - 1) == "a.b.c"
    [left] = [links.make("a.b.c", now_s)]
    [path] = (tmp_path / "links").iterdir()
    assert left not in path.name, "the disk has no secret of a link"
    assert path.stat().st_mode & 0o777 == 0o600
    links.make("a.b.c", now_s + LINK_S + 60)  # removes what is old
    assert not path.exists()
    for guess in ("", "../links", "x" * 10_000, "%2e%2e", "\0"):
        with pytest.raises(NotFound):
            links.redeem(guess, now_s)
    assert (await web.anonymous().post(f"/login/{'x' * 43}")).status_code == 404


def test_of_two_that_have_read_a_link_one_redeems_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, now_s = LoginLinks(tmp_path), time.time()
    secret = links.make("a.b.c", now_s)
    redeemed: list[str] = []

    def read_while_another_redeems(path: Path, what: str) -> bytes:
        content = read_secret(path, what)
        monkeypatch.setattr(loginlinks, "read_secret", read_secret)
        redeemed.append(links.redeem(secret, now_s))
        return content

    monkeypatch.setattr(loginlinks, "read_secret", read_while_another_redeems)
    with pytest.raises(NotFound):
        links.redeem(secret, now_s)
    assert redeemed == ["a.b.c"]


async def test_a_cookie_that_was_changed_or_sealed_elsewhere_logs_nobody_in(web: Web) -> None:
    sealed = web.services.cookies.seal(web.token())
    header, _, rest = sealed.partition(".")
    head, tag = rest.rsplit(".", 1)
    elsewhere = Cookies(bytes([1]) * 32, secure=False).seal(web.token())
    plain = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for forged in (
        elsewhere,
        f"{header}.{head}.{'A' * len(tag)}",
        f"{plain}.{rest}",
        sealed[:-8],
        web.token(),  # a token is no cookie
        "....",
        "x" * 4_000,
    ):
        answer = await web.anonymous(Cookie=f"airunner={forged}").get("/v1/jobs")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), forged
    assert (await web.anonymous(Cookie=f"airunner={sealed}").get("/v1/jobs")).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.b.c.d", "é.é.é", "a." + "e30" + ".c", "x" * 9_000])
async def test_what_is_no_token_is_refused_before_the_broker_sees_it(web: Web, token: str) -> None:
    for scheme in (b"Bearer ", b"bearer ", b"Basic "):
        headers = {"Authorization": (scheme + token.encode("latin-1")).strip()}
        answer = await web.anonymous().get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_session_ends_with_its_token(airunner_session_cluster: Cluster, tmp_path: Path) -> None:
    now = SimpleNamespace(s=time.time())
    async with served(airunner_session_cluster, tmp_path, lambda: now.s) as web:
        browser, curl = web.browser(ttl_s=60), web.bearing(ttl_s=60)
        assert (await browser.get("/")).status_code == 200
        now.s += 61
        assert (await browser.get("/")).headers["location"] == "/login"
        assert "expired" in (await curl.get("/v1/jobs")).json()["detail"]
        secret = web.services.links.make(web.token(ttl_s=1), now.s)
        now.s += 2
        refused = await web.anonymous().post(f"/login/{secret}")
        assert (refused.status_code, refused.cookies) == (401, {})


async def test_logging_out_ends_the_session_in_all_tabs_and_for_a_copy_of_its_cookie(web: Web) -> None:
    tab, other = web.browser(), web.browser()
    copy = web.anonymous()
    copy.cookies = tab.cookies
    assert (await copy.get("/v1/jobs")).status_code == 200
    done = await tab.post("/logout")
    assert (done.status_code, done.headers["location"]) == (303, "/login")
    assert 'airunner=""; ' in done.headers["set-cookie"]
    assert "logged out" in (await copy.get("/v1/jobs")).json()["detail"]
    assert (await other.get("/v1/jobs")).status_code == 200
    assert (await web.anonymous().post("/logout")).status_code == 303  # it is so already


def test_a_cookie_behind_https_is_for_this_host_and_for_https_only() -> None:
    cookies, response = Cookies(bytes(32), secure=True), Response()
    cookies.set(response, "sealed", 60.9)
    assert response.headers["set-cookie"] == (
        "__Host-airunner=sealed; HttpOnly; Max-Age=60; Path=/; SameSite=lax; Secure"
    )
    with pytest.raises(OperatorError, match="too long"):
        cookies.seal("x" * 5_000)


async def test_a_token_may_do_what_the_broker_says_and_no_more(web: Web) -> None:
    async with web.client(tenant="ours") as client:
        job = await client.submit(command="true", queue="unserved")
    assert (await web.bearing("submit", tenant="ours").get("/v1/jobs")).status_code == 403
    assert (await web.bearing("read", tenant="ours").get(f"/v1/jobs/{job.id}")).status_code == 200
    refused = await web.bearing("read", tenant="ours").post(f"/v1/jobs/{job.id}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    for call in (web.bearing(tenant="theirs").get, web.browser(tenant="theirs").get):
        assert (await call(f"/v1/jobs/{job.id}")).status_code == 404
    refused = await web.bearing(tenant="theirs").post(f"/v1/jobs/{job.id}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (404, "not-found")
