"""Operations on jobs and queues, in one process: submitted once for a key, listed in pages, changed, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airunner.client.web.api.jobs import JobsQuery
from airunner.client.web.api.parameters import fields_of
from airunner.protocol.requests import ListJobs
from tests.client.web.api.asgi import Exchange, Served, served
from tests.client.working import Worker

JSON = {"Content-Type": "application/json"}


def read(answer: Exchange) -> Any:
    return json.loads(answer.body)


async def post(web: Served, path: str, body: object = None, **headers: str) -> Exchange:
    raw = b"" if body is None else json.dumps(body).encode()
    return await web.get(
        path, method="POST", headers={**JSON, **{n.replace("_", "-"): v for n, v in headers.items()}}, body=raw
    )


async def test_a_key_submits_once_and_has_one_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = {"command": "make", "args": ["test"], "queue": "ci", "metadata": {"build": "7"}}
        first, again = [await post(web, "/v1/jobs", job, Idempotency_Key="key-1") for _ in range(2)]
        assert (first.status, again.status) == (201, 201)
        assert first.body == again.body
        assert first.headers["location"] == again.headers["location"] == f"/v1/jobs/{read(first)['job_id']}"
        quoted = await post(web, "/v1/jobs", job, Idempotency_Key='"key-1"')
        assert quoted.body == first.body
        other = await post(web, "/v1/jobs", {**job, "queue": "other"}, Idempotency_Key="key-1")
        assert (other.status, read(other)["code"]) == (409, "conflict")
        assert read(other)["detail"].startswith("this Idempotency-Key was used before")
        assert read(other)["detail"].endswith("use another Idempotency-Key")
        assert read(await post(web, "/v1/jobs", job))["job_id"] != read(first)["job_id"]
        assert (await post(web, "/v1/jobs", job, Idempotency_Key="x" * 256)).status == 400
        assert read(await web.get("/v1/jobs?count=true"))["total"] == 2
        shown = read(await web.get(first.headers["location"]))
        assert {**job, **shown["spec"]} == job
        several = {"jobs": [{"command": "true", "name": "a"}, {"command": "true", "name": "b"}]}
        both, repeated = [await post(web, "/v1/jobs", several, Idempotency_Key="key-2") for _ in range(2)]
        assert both.body == repeated.body
        assert [named["name"] for named in read(both)["jobs"]] == ["a", "b"]
        (alone,) = read(await post(web, "/v1/jobs", {"jobs": [shown["spec"]]}))["jobs"]
        assert read(await web.get(f"/v1/jobs/{alone['job_id']}"))["spec"] == shown["spec"]


async def test_a_command_of_several_words_gets_a_hint(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        line, words = {"command": "make test"}, {"command": "make", "args": ["test"]}
        hint = read(await post(web, "/v1/jobs", line))["hint"]
        assert "no shell in between: write each argument as an item of args" in hint
        assert "hint" not in read(await post(web, "/v1/jobs", words))
        both = read(await post(web, "/v1/jobs", {"jobs": [line, words]}))["jobs"]
        assert ["hint" in job for job in both] == [True, False]


async def test_a_job_file_is_submitted_as_the_command_line_reads_it(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        kind = {"Content-Type": "application/yaml; charset=utf-8"}
        one = b"command: make\ntimeout: 1h30m\nretry: {limit: 2, on: [75]}\n"
        submitted = await web.get("/v1/jobs", method="POST", headers=kind, body=one)
        spec = read(await web.get(submitted.headers["location"]))["spec"]
        assert (spec["timeout_seconds"], spec["retry"]["on"]["exit_codes"]) == (5_400, [75])
        matrix = b'command: make\nname: t\nmatrix: {n: ["1", "2"]}\n'
        jobs = read(await web.get("/v1/jobs", method="POST", headers=kind, body=matrix))["jobs"]
        assert [job["name"] for job in jobs] == ["t (1)", "t (2)"]
        wrong = await web.get("/v1/jobs", method="POST", headers=kind, body=b"command: make\ntimeot: 3\n")
        assert wrong.status == 400
        assert "line 2" in read(wrong)["detail"]
        form = await web.get("/v1/jobs", method="POST", headers={"Content-Type": "text/plain"}, body=one)
        assert (form.status, "curl --json" in read(form)["detail"]) == (415, True)


async def test_a_list_is_read_in_pages_by_its_own_links(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        await web.client.submit_many(
            {"command": "true", "name": f"n{n}", "metadata": {"odd": str(n % 2)}} for n in range(9)
        )
        names, url = [], "/v1/jobs?limit=2&label=odd%3D1&state=SCHEDULED&count=true"
        while url:
            page = await web.get(url)
            names += [job["name"] for job in read(page)["jobs"]]
            url = read(page).get("next", "")
            assert page.headers.get("link", "") == (f'<{url}>; rel="next"' if url else "")
        assert names == ["n7", "n5", "n3", "n1"]
        assert [job["why"]["cause"] for job in read(page)["jobs"]] == ["no-agent"] * len(read(page)["jobs"])
        assert read(await web.get("/v1/jobs?limit=9&since=1m"))["jobs"][0]["name"] == "n8"
        assert read(await web.get("/v1/jobs?until=1m")) == {"jobs": []}
        assert read(await web.get("/v1/jobs?since=2099-12-31T23:59:59Z")) == {"jobs": []}
        for wrong in ("since=soon", "until=2027-02-30T00:00:00Z", "nam=x", "limit=0"):
            refused = await web.get(f"/v1/jobs?{wrong}")
            assert (refused.status, read(refused)["field"]) == (400, wrong.partition("=")[0])


async def test_a_job_is_cancelled_and_retried_and_a_queue_changed(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true", queue="a/b")
        path = f"/v1/jobs/{job.id}"
        early = await post(web, f"{path}/retry")
        assert (early.status, read(early)["code"]) == (409, "not-finished")
        assert (await post(web, f"{path}/cancel", {"force": True})).status == 400
        for _ in range(2):
            assert read(await post(web, f"{path}/cancel")) == {"job_id": job.id, "state": "CANCELLED"}
        retried = [await post(web, f"{path}/retry", {}, Idempotency_Key="again") for _ in range(2)]
        assert retried[0].body == retried[1].body
        assert read(retried[0])["origin"] == job.id
        assert read(await web.get(retried[0].headers["location"]))["origin"] == job.id
        for verb, mode in (("pause", "paused"), ("drain", "draining"), ("resume", "open")):
            assert read(await post(web, f"/v1/queues/a/b/{verb}")) == {"queue": "a/b", "mode": mode}
        assert (await post(web, "/v1/queues/none/resume")).status == 404
        for new in ({"new": True}, {}):  # a name that may be mistyped
            assert read(await post(web, "/v1/queues/z/pause")) == {"queue": "z", "mode": "paused", **new}
        admin = await web.get("/v1/queues/y/pause", method="POST", roles=["admin"])
        assert read(admin) == {"queue": "y", "mode": "paused"}
        await post(web, "/v1/queues/y/resume")
        first = read(await web.get("/v1/queues?limit=1"))
        assert [queue["queue"] for queue in first["queues"]] == ["a/b"]
        assert [queue["queue"] for queue in read(await web.get(first["next"]))["queues"]] == ["z"]
        await web.client.submit(command="true")
        await Worker.lease(web.client)
        (agent,) = read(await web.get("/v1/agents"))["agents"]
        assert agent["name"] == "worker"


async def test_no_path_answers_without_a_login_and_no_method_but_its_own(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        document = read(await web.get("/openapi.json", headers={"Authorization": ""}))
        for path, operations in document["paths"].items():
            asked = path.replace("{job_id}", "x").replace("{queue}", "q")
            for method in operations:
                refused = await web.get(asked, method=method.upper(), headers={"Authorization": "Bearer nonsense"})
                assert (refused.status, read(refused)["code"]) == (401, "unauthenticated"), (method, path)
            anonymous = await web.get(asked, method=method.upper(), headers={"Authorization": ""})
            assert "send `Authorization: Bearer TOKEN`: `airunner token" in read(anonymous)["detail"]
            other = await web.get(asked, method="DELETE")
            assert other.status == 405
            allowed = {name.strip().lower() for name in other.headers["allow"].split(",")} - {"head"}
            assert allowed == set(operations)


def test_filters_have_the_types_of_the_request() -> None:
    mine, theirs = fields_of(JobsQuery), fields_of(ListJobs)
    for name in ("prefix", "queue", "name", "owner", "before"):
        ((own, *_), (other, *_)) = (field[name].type.types for field in (mine, theirs))
        assert getattr(own, "type", own) == other, name
