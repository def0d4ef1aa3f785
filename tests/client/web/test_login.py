"""Logging in and out: by bearer token, by link, by cookie."""

from __future__ import annotations

from tests.client.web.conftest import Web


async def test_a_request_without_a_token_is_told_how_to_log_in(web: Web) -> None:
    answer = await web.anonymous().get("/v1/jobs")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "airunner login-link" in answer.json()["detail"]
    page = await web.anonymous(Accept="text/html").get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/login")


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
