"""Operation on a job's output: its bytes, in the order in which `airunner logs` prints its lines, all or some of them.

Lines are numbered as in the page and in `/search`: those of both streams together. A `Range` is over the bytes of the
answer that would be sent without it. To know them, the output is read once more, in the same request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from hashlib import blake2b
from http import HTTPStatus
from typing import Annotated, Any, Final

from msgspec import Meta, Struct
from starlette.responses import Response

from airunner.client.client import Client
from airunner.client.loglines import OUTPUT_KINDS
from airunner.client.web.api.byteranges import RANGE, TAG_BYTES, wanted_bytes
from airunner.client.web.api.operation import Answer, Call, Operation
from airunner.client.web.api.outputorder import LineWindow, OutputOrder
from airunner.client.web.api.streams import streamed
from airunner.client.web.problems import WebError, answer, problem_of
from airunner.protocol.events import STREAMS, Stream
from airunner.protocol.job import Job
from airunner.protocol.logsearch import START, SearchPlace
from airunner.protocol.names import Positive

TEXT: Final = "text/plain; charset=utf-8"


class LogQuery(Struct, frozen=True, kw_only=True):
    """Query of a job's output."""

    stream: Annotated[
        tuple[Stream, ...], Meta(max_length=len(STREAMS), description="Only output of these streams.")
    ] = ()
    from_line: Annotated[Positive, Meta(description="Number of the first line; lines of both streams are counted.")] = 1
    lines: Annotated[Positive, Meta(description="Number of lines, also counted in both streams.")] | None = None
    follow: Annotated[bool, Meta(description="Whether output that comes later is sent, until the job ends.")] = False


async def job_log(call: Call[LogQuery]) -> Response:
    """Send a job's output."""
    async with call.asking() as client:
        job = await client.get(call.job_id)
    if call.query.follow:
        return streamed(call, _output(call, None), TEXT)
    headers = {"Accept-Ranges": "bytes"}
    if job.state.terminal:
        headers["ETag"] = tag = _tag(call)
        if call.request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    wanted = wanted_bytes(call.request.headers.get("range", ""))
    if wanted is None or call.request.headers.get("if-range", headers.get("ETag")) != headers.get("ETag"):
        return streamed(call, _output(call, job), TEXT, headers=headers)
    length = 0
    async for piece in _output(call, job):
        length += len(piece)
    found = wanted.of(length)
    if found is None:
        headers["Content-Range"] = f"bytes */{length}"
        none = WebError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"Range: the answer has {length:,} bytes")
        return answer(call.request, problem_of(none), headers)
    headers["Content-Range"] = f"bytes {found[0]}-{found[-1]}/{length}"
    headers["Content-Length"] = str(len(found))
    return streamed(call, _between(_output(call, job), found), TEXT, HTTPStatus.PARTIAL_CONTENT, headers)


def _tag(call: Call[Any]) -> str:
    """Make the tag of output that does not change any more: the job has ended."""
    name = f"{call.job_id}?{call.request.url.query}"
    return f'"{blake2b(name.encode(), digest_size=TAG_BYTES).hexdigest()}"'


async def _output(call: Call[LogQuery], stored: Job | None) -> AsyncGenerator[bytes]:
    """Read the output that is wanted, up to the last event of the `stored` job; None: until the job ends."""
    query = call.query
    async with call.services.clients.of(call.login.token) as client:
        place = await place_before(client, call.job_id, query.from_line)
        window = LineWindow(query.stream or STREAMS, query.from_line - 1 - place.lines, query.lines)
        order = OutputOrder(place)
        read = client.follow if stored is None else client.replay
        async with read(call.job_id, place.sequence, kinds=OUTPUT_KINDS) as events:
            while (batch := await events.next_batch()) and not window.done:
                if stored is not None:
                    batch = [event for event in batch if event.sequence <= stored.last_sequence]
                yield b"".join(window.part(block) for event in batch for block in order.feed(event))
        yield b"".join(window.part(block) for block in order.finish())


async def place_before(client: Client, job_id: str, line: int) -> SearchPlace:
    """Find a place in the log before a line, as near as the broker knows; of a line that is not there: near the end."""
    place = START
    while line > 1:
        page = await client.search_page(job_id, from_line=line - 1, limit=1, place=place)
        if page.place is None:
            break
        place = page.place
        if page.hits:
            break
    return place


async def _between(pieces: AsyncGenerator[bytes], wanted: range) -> AsyncGenerator[bytes]:
    """Cut the wanted bytes out of pieces."""
    at = 0
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece[max(0, wanted.start - at) : max(0, wanted.stop - at)]
            at += len(piece)
            if at >= wanted.stop:
                return


OPERATIONS: Final = (
    Operation(
        name="jobLog",
        method="GET",
        path="/v1/jobs/{job_id}/log",
        summary="Get a job's output: its bytes, as `airunner logs` prints them",
        role="read",
        query=LogQuery,
        headers={"Range": RANGE},
        run=job_log,
        answers=(
            Answer("The output so far; with `follow`, until the job ends.", {TEXT: bytes}),
            Answer("The bytes of the range.", {TEXT: bytes}, HTTPStatus.PARTIAL_CONTENT),
            Answer("The output is as it was: see If-None-Match.", {}, HTTPStatus.NOT_MODIFIED),
        ),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    ),
)
