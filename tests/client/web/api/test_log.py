"""The output of a job and the search in it: the lines of `airunner logs`, whichever of them are asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trio.testing import wait_all_tasks_blocked

from airunner.client.loglines import Line, LineSplitter
from airunner.protocol.events import STREAMS, Output, Stream
from tests.client.web.api.asgi import Served, served
from tests.client.working import Worker

OUT, ERR = Stream.STDOUT, Stream.STDERR
WRITTEN = (
    (OUT, b"one\ntw"),
    (ERR, b"red \xff"),
    (OUT, b"o\nthree\n"),
    (ERR, b" error\nfour"),
    (OUT, b"five\nsix \x1b[31mERROR\x1b[0m\nseven"),
    (ERR, b"\n"),
)


@asynccontextmanager
async def logged(folder: Path) -> AsyncIterator[tuple[Served, str, Worker, list[Line]]]:
    """A running job with some output, and its lines."""
    async with served(folder) as web:
        job = await web.client.submit(command="true")
        worker = await Worker.lease(web.client)
        for stream, data in WRITTEN:
            await worker.publish(Output(timestamp_ms=0, stream=stream, data=data))
        splitter = LineSplitter()
        lines = [line async for event in web.client.replay(job) for line in splitter.feed(event)]
        yield web, f"/v1/jobs/{job.id}", worker, [*lines, *splitter.finish()]


async def test_any_lines_of_the_log_are_its_bytes(tmp_path: Path) -> None:
    async with logged(tmp_path) as (web, path, _, lines):
        whole = b"".join(line.data for line in lines)
        assert (await web.get(f"{path}/log")).body == whole
        for first in range(1, len(lines) + 2):
            for count in range(1, 4):
                part = await web.get(f"{path}/log?from_line={first}&lines={count}")
                assert part.body == b"".join(line.data for line in lines[first - 1 :][:count]), (first, count)
            for stream in STREAMS:
                part = await web.get(f"{path}/log?from_line={first}&stream={stream}")
                assert part.body == b"".join(line.data for line in lines[first - 1 :] if line.stream is stream)
        assert (await web.get(f"{path}/log?from_line=99")).body == b""


async def test_lines_that_end_with_the_job_are_lines_too(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        job = await web.client.submit(command="true")
        worker = await Worker.lease(web.client)
        await worker.publish(
            Output(timestamp_ms=0, stream=OUT, data=b"out"), Output(timestamp_ms=0, stream=Stream.STDERR, data=b"err")
        )
        await worker.complete()
        parts = [(await web.get(f"/v1/jobs/{job.id}/log?from_line={first}")).body for first in (1, 2, 3)]
        assert parts == [b"outerr", b"err", b""]


async def test_output_is_followed_until_the_job_ends(tmp_path: Path) -> None:
    async with logged(tmp_path) as (web, path, worker, lines):
        followed = web.open(f"{path}/log?follow=true&from_line=3")
        two = web.open(f"{path}/log?follow=true&lines=2")
        await worker.publish(Output(timestamp_ms=0, stream=OUT, data=b" and\nthe last"))
        await worker.complete()
        assert await two.read() == b"one\ntwo\n"
        whole = b"".join(line.data for line in lines[2:])
        assert await followed.read() == whole.replace(b"seven", b"") + b"seven and\nthe last"
        assert followed.over


async def test_a_line_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async with logged(tmp_path) as (web, path, worker, lines):
        later = web.open(f"{path}/log?follow=true&from_line={len(lines) + 2}")
        await wait_all_tasks_blocked()
        await worker.publish(Output(timestamp_ms=0, stream=OUT, data=b"\nnext\nlast\n"))
        await worker.complete()
        assert (await later.read()).splitlines()[-1] == b"last"
        assert later.over
        assert (await web.open(f"{path}/log?follow=true&from_line=99").read()) == b""


async def test_a_range_is_of_the_bytes_that_would_be_sent_without_it(tmp_path: Path) -> None:
    async with logged(tmp_path) as (web, path, worker, lines):
        await worker.complete()
        whole = b"".join(line.data for line in lines if line.stream is OUT)
        size = len(whole)
        url = f"{path}/log?stream=stdout"
        full = await web.get(url)
        assert (full.status, full.body, full.headers["accept-ranges"]) == (200, whole, "bytes")
        for wanted, first, last in (
            ("0-0", 0, 0),
            ("3-9", 3, 9),
            (f"{size - 1}-", size - 1, size - 1),
            ("-5", size - 5, size - 1),
        ):
            part = await web.get(url, headers={"Range": f"bytes={wanted}"})
            assert (part.status, part.body) == (206, whole[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
            assert part.headers["content-length"] == str(last - first + 1)
        none = await web.get(url, headers={"Range": f"bytes={size}-"})
        assert (none.status, none.headers["content-range"]) == (416, f"bytes */{size}")
        tag = full.headers["etag"]
        assert (await web.get(url, headers={"If-None-Match": tag})).status == 304
        assert (await web.get(url, headers={"Range": "bytes=0-0", "If-Range": tag})).status == 206
        assert (await web.get(url, headers={"Range": "bytes=0-0", "If-Range": '"other"'})).body == whole
        assert (await web.get(f"{path}/log", headers={"If-None-Match": tag})).status == 200
        lines_of = await web.get(f"{path}/log?from_line=2&lines=1", headers={"Range": "bytes=1-1"})
        assert lines_of.body == lines[1].data[1:2]


async def test_a_search_goes_on_at_its_cursor_until_the_end(tmp_path: Path) -> None:
    async with logged(tmp_path) as (web, path, _, lines):
        for query, wanted in (
            ("pattern=error&ignore_case=true", [n for n, line in enumerate(lines, 1) if b"rror" in line.data.lower()]),
            ("pattern=error", [n for n, line in enumerate(lines, 1) if b"error" in line.data]),
            (
                "pattern=%5E(one|six)&regex=true",
                [n for n, line in enumerate(lines, 1) if line.data[:3] in (b"one", b"six")],
            ),
            ("from_line=3", [*range(3, len(lines) + 1)]),
        ):
            hits, cursor = [], ""
            while True:
                page = json.loads((await web.get(f"{path}/search?{query}&limit=1{cursor}")).body)
                hits += page["hits"]
                if "cursor" not in page:
                    break
                cursor = f"&cursor={page['cursor']}"
            assert [hit["number"] for hit in hits] == wanted, query
            assert [hit["sequence"] for hit in hits] == [lines[number - 1].sequence for number in wanted]
        assert page["lines"] == len(lines)
        whole = json.loads((await web.get(f"{path}/search?pattern=error&context=1")).body)
        assert sorted(hit["match"] for hit in whole["hits"]) == [False, False, True]
        assert [hit["encoding"] for hit in whole["hits"] if hit["match"]] == ["base64"]
        bad = await web.get(f"{path}/search?pattern=(&regex=true")
        assert (bad.status, json.loads(bad.body)["code"]) == (422, "bad-pattern")
        assert (await web.get(f"{path}/search?cursor=AAAA")).status == 400
