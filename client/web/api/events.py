"""Operation on a job's events: the stored ones, and then live until the job ends, as server-sent events or lines.

An event's `id` is its sequence, so a reader that comes back with `Last-Event-ID` gets the next one: each event once and
in order. After the last event comes `end`, and after an error `problem`; to a reader that has seen the end the answer
is 204, on which a browser stops coming back.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Final

from msgspec import Meta, Struct
from starlette.responses import Response

from airunner.client.cli.printing import event_object
from airunner.client.web.api.forms import EndForm
from airunner.client.web.api.operation import Answer, Call, Operation
from airunner.client.web.api.streams import EVENT_STREAM, streamed
from airunner.client.web.problems import bad_field, problem_of
from airunner.protocol.errors import AirunnerError
from airunner.protocol.events import EVENT_KINDS, Event
from airunner.protocol.job import Job
from airunner.protocol.names import Positive
from airunner.protocol.printable import json_line
from airunner.protocol.requests import KINDS_MAX

LINES: Final = "application/x-ndjson"
LAST_EVENT_ID: Final = "Last-Event-ID"
ID_DIGITS_MAX: Final = 15  # a sequence is below 2**53
EVENT: Final[dict[str, object]] = {"$ref": "#/components/schemas/Event"}
SERVER_SENT: Final[dict[str, object]] = {
    "description": "One server-sent event.",
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"enum": ["message", "end", "problem", "over"]},
        "data": {"type": "string"},
    },
}
RETRY_MS: Final = 1_000  # in which a browser comes back: a broker or this server starts in less
_RETRY: Final = b"retry: %d\n\n" % RETRY_MS
Kind = Annotated[str, Meta(extra_json_schema={"enum": list(EVENT_KINDS)})]


class EventsQuery(Struct, frozen=True, kw_only=True):
    """Query of a job's events."""

    from_sequence: Annotated[Positive, Meta(description="Sequence of the first event; Last-Event-ID overrides it.")] = 1
    kind: Annotated[
        tuple[Kind, ...], Meta(max_length=KINDS_MAX, description="Only events of these kinds, such as OUTPUT.")
    ] = ()
    follow: Annotated[bool, Meta(description="Whether events that come later are sent, until the job ends.")] = True


async def job_events(call: Call[EventsQuery]) -> Response:
    """Stream a job's events."""
    query = call.query
    if wrong := [kind for kind in query.kind if kind not in EVENT_KINDS]:
        raise bad_field("kind", f"{wrong[0]!r} is not a kind of event; the kinds are {', '.join(EVENT_KINDS)}")
    seen = _last_seen(call.request.headers.get(LAST_EVENT_ID, ""))
    async with call.asking() as client:
        job = await client.get(call.job_id)
    if seen is not None and job.state.terminal and seen >= job.last_sequence:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    start = query.from_sequence if seen is None else seen + 1
    stored = None if query.follow else job
    if wants_lines(call.request.headers.get("accept", "")):
        return streamed(call, _lines(call, start, stored), LINES)
    return streamed(call, _server_sent(call, start, stored), EVENT_STREAM)


def wants_lines(accept: str) -> bool:
    """Return whether lines of JSON are wanted, and no server-sent events."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return LINES in kinds and EVENT_STREAM not in kinds


def _last_seen(given: str) -> int | None:
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= ID_DIGITS_MAX):
        raise bad_field(LAST_EVENT_ID, "expected the id of an event, which is its sequence")
    return int(given)


async def _batches(call: Call[EventsQuery], start: int, stored: Job | None) -> AsyncGenerator[Sequence[Event]]:
    """Read the events that are wanted, up to the last one of the `stored` job; None: until the job ends."""
    query, last = call.query, math.inf if stored is None else stored.last_sequence
    async with call.services.clients.of(call.login.token) as client:
        read = client.follow if stored is None else client.replay
        async with read(call.job_id, start, kinds=query.kind) as events:
            while batch := await events.next_batch():
                wanted = [event for event in batch if not query.kind or event.kind in query.kind]
                yield [event for event in wanted if event.sequence <= last]


async def _lines(call: Call[EventsQuery], start: int, stored: Job | None) -> AsyncGenerator[bytes]:
    async with aclosing(_batches(call, start, stored)) as batches:
        async for batch in batches:
            yield "".join(f"{json_line(event_object(event))}\n" for event in batch).encode()


async def _server_sent(call: Call[EventsQuery], start: int, stored: Job | None) -> AsyncGenerator[bytes]:
    yield _RETRY
    try:
        async with aclosing(_batches(call, start, stored)) as batches:
            async for batch in batches:
                yield b"".join(map(server_sent, batch))
        if stored is not None:
            yield end_event(stored)  # events that came meanwhile were not sent
            return
        async with call.asking() as client:
            job = await client.get(call.job_id)
        if job.state.terminal:
            yield end_event(job)
    except AirunnerError as error:
        yield f"event: problem\ndata: {json_line(problem_of(error))}\n\n".encode()


def server_sent(event: Event) -> bytes:
    """Format a server-sent event; JSON has no line ends."""
    return f"id: {event.sequence}\ndata: {json_line(event_object(event))}\n\n".encode()


def end_event(job: Job) -> bytes:
    """Format the event that follows the last one."""
    end = EndForm(job_id=job.id, state=job.state, exit_code=job.exit_status)
    return f"id: {job.last_sequence}\nevent: end\ndata: {json_line(end)}\n\n".encode()


OPERATIONS: Final = (
    Operation(
        name="jobEvents",
        method="GET",
        path="/v1/jobs/{job_id}/events",
        summary="Stream a job's events: the stored ones, then live until the job ends",
        role="read",
        query=EventsQuery,
        headers={
            LAST_EVENT_ID: {
                "type": "string",
                "pattern": f"^[0-9]{{0,{ID_DIGITS_MAX}}}$",
                "description": "Sequence of the last event received: the stream goes on after it. Empty: none.",
            }
        },
        run=job_events,
        answers=(
            Answer(
                "Server-sent events, whose `id` is the sequence and whose data is an event; `end` follows the last, "
                "`problem` an error, `over` the end of the session. With Accept: application/x-ndjson an event a line.",
                {EVENT_STREAM: SERVER_SENT, LINES: EVENT},
            ),
            Answer("The job has ended, and Last-Event-ID is its last event.", {}, HTTPStatus.NO_CONTENT),
        ),
        problems=(HTTPStatus.NOT_FOUND,),
    ),
)
