"""Streams of a job, in one process and on virtual time: resumed, slow, silent, and over with their session."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.client.web.api.streams import PING_S, SEND_S
from airunner.client.web.login import By, login_with
from airunner.protocol.events import Output, Stream
from tests.client.web.api.asgi import WALL_S, Served, served, token
from tests.client.working import Worker


def events_in(body: bytes) -> list[tuple[str, str, dict[str, object]]]:
    """The id, name and data of each event of a stream; comments are left out."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
        if fields:
            found.append((fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])))
    return found


async def test_a_stream_is_live_until_the_job_ends_and_is_resumed_after_any_event(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        path = f"/v1/jobs/{job.id}/events"
        live = web.open(path)
        await live.until(b"\n\n")
        worker = await Worker.lease(web.client)
        await worker.print(b"one\n")
        while b"one" not in live.body:
            await live.read(1)
        assert not live.over
        await worker.print(b"\xff\xe2\x80\xa8")
        await worker.complete(3)
        await live.read()
        events = events_in(live.body)
        assert [name for _, name, _ in events] == ["message"] * 5 + ["end"]
        assert [id_ for id_, _, _ in events] == ["1", "2", "3", "4", "5", "5"]
        assert [data["kind"] for _, _, data in events[:-1]][-1] == "JOB_FINISHED"
        assert events[3][2]["encoding"] == "base64"
        assert events[-1][2] == {"job_id": job.id, "state": "FAILED", "exit_code": 3}
        for seen in range(5):
            resumed = await web.get(path, headers={"Last-Event-ID": str(seen)})
            assert events_in(resumed.body) == events[seen:]
            assert events_in((await web.get(f"{path}?from_sequence={seen + 1}")).body) == events[seen:]
        ended = await web.get(path, headers={"Last-Event-ID": "5"})
        assert (ended.status, ended.body) == (204, b"")
        lines = await web.get(f"{path}?kind=OUTPUT", headers={"Accept": "application/x-ndjson"})
        assert [json.loads(line) for line in lines.body.splitlines()] == [data for _, _, data in events[2:4]]
        assert lines.headers["content-type"].startswith("application/x-ndjson")


async def test_a_stream_without_follow_ends_at_what_is_stored(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        stored = await web.get(f"/v1/jobs/{job.id}/events?follow=false")
        assert [(name, data.get("state")) for _, name, data in events_in(stored.body)] == [
            ("message", None),
            ("end", "SCHEDULED"),
        ]
        wrong = await web.get(f"/v1/jobs/{job.id}/events?kind=NOISE")
        assert (wrong.status, json.loads(wrong.body)["field"]) == (400, "kind")
        assert (await web.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "x"})).status == 400
        assert (await web.get("/v1/jobs/none/events")).status == 404


async def test_the_end_of_a_stream_without_follow_is_where_the_next_one_begins(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        worker = await Worker.lease(web.client)
        await worker.print(b"before\n")
        first = web.open(f"/v1/jobs/{job.id}/events?follow=false")
        await first.read(1)
        await wait_all_tasks_blocked()  # what is stored is read, and waits for this reader
        await worker.print(b"meanwhile\n")
        *_, (last, name, _) = events_in(await first.read())
        assert name == "end"
        second = await web.get(f"/v1/jobs/{job.id}/events?follow=false", headers={"Last-Event-ID": last})
        sent = [id_ for id_, name, _ in events_in(first.body + second.body) if name == "message"]
        assert sent == ["1", "2", "3", "4"]


async def test_a_silent_stream_has_comments_and_no_end(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        silent = web.open(f"/v1/jobs/{job.id}/events")
        with anyio.move_on_after(3.5 * PING_S):
            await silent.read()
        assert silent.body.endswith(b": \n\n" * 3)
        assert not silent.over
        silent.leave()
        await silent.ended.wait()


async def test_a_reader_that_takes_nothing_loses_its_stream_and_resumes_it(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        worker = await Worker.lease(web.client)
        slow = web.open(f"/v1/jobs/{job.id}/events")
        while b"JOB_LEASED" not in slow.body:
            await slow.read(1)
        for number in range(120):  # 8 MB, of which the stream may keep some
            await worker.publish(Output(timestamp_ms=0, stream=Stream.STDOUT, data=b"%d\n" % number + b"x" * 65_000))
        before_s = anyio.current_time()
        await slow.ended.wait()
        assert anyio.current_time() - before_s <= SEND_S + 1
        assert not slow.over, "what was cut off looks whole"
        assert web.services.sessions._streams == {}, "the stream is still counted"
        await worker.complete()
        last = max(int(id_) for id_, _, _ in events_in(slow.body.rpartition(b"\n\n")[0]))
        rest = await web.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": str(last)})
        numbers = [id_ for id_, name, _ in events_in(rest.body) if name == "message"]
        assert numbers == [str(number) for number in range(last + 1, 124)]


@pytest.mark.parametrize("why", ["expired", "logged-out", "stopping"])
async def test_a_stream_is_over_with_its_session(tmp_path: Path, why: str) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        stream = web.open(f"/v1/jobs/{job.id}/events", expires_s=WALL_S + 3_600)
        lines = web.open(f"/v1/jobs/{job.id}/log?follow=true", expires_s=WALL_S + 3_600)
        await stream.until(b"\n\n")
        _end(web, why)
        await stream.read()
        await lines.read()
        await lines.ended.wait()
        assert stream.over
        assert not lines.over, "what was cut off looks whole"
        assert stream.body.endswith(f"event: over\ndata: {why}\n\n".encode())
        assert anyio.current_time() >= (3_600 if why == "expired" else 0)
        if why != "stopping":
            assert (await web.get(f"/v1/jobs/{job.id}", expires_s=WALL_S + 3_600)).status == 401


def _end(web: Served, why: str) -> None:
    if why == "stopping":
        web.services.sessions.stop()
    elif why == "logged-out":
        web.services.sessions.end(login_with(token(expires_s=WALL_S + 3_600), By.BEARER).session)
