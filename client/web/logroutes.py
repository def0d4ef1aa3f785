"""Routes of a log in a page: its lines, its live stream, its terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from airunner.client.client import Client
from airunner.client.web import lines
from airunner.client.web.live import Live
from airunner.client.web.login import login_of
from airunner.client.web.logstream import LogStream
from airunner.client.web.problems import bad_field
from airunner.client.web.sending import Outlet, Sending
from airunner.client.web.services import services_of
from airunner.client.web.terminalstream import terminal_stream
from airunner.protocol.fields import ProcessType
from airunner.protocol.job import Job
from airunner.protocol.names import JobId

SEQUENCE_MAX: Final = 2**53
FRAMES: Final = "application/octet-stream"


async def log_context(request: Request, client: Client, job: Job) -> dict[str, Any]:
    """Return the context of the template `log.html`: the log as plain lines, from the query's `from` on."""
    given = request.query_params.get("from")
    first = None if given is None else lines.LAST if given == "last" else _number(request, "from", 1, 1)
    return {
        "log": {
            "base": f"/jobs/{job.id}",
            "seen": job.last_sequence,
            "ended": job.state.terminal,
            "state": str(job.state),
            "terminal": job.spec.terminal if job.spec.process_type is ProcessType.PTY else None,
            **await lines.plain_log(client, services_of(request).log_indexes.of(job.id), job, first),
        }
    }


async def read_lines(request: Request) -> Response:
    """Read a window of lines."""
    first, limit = _number(request, "from", 1, 1), _number(request, "limit", 200, 1, lines.LINES_MAX)
    job_id = _job_id(request)
    async with services_of(request).clients.asking(login_of(request).token) as client:
        found = await lines.window(client, services_of(request).log_indexes.of(job_id), job_id, first, limit)
    return _json({"lines": await lines.shown(found)})


async def read_groups(request: Request) -> Response:
    """Find the groups of a log."""
    job_id = _job_id(request)
    async with services_of(request).clients.asking(login_of(request).token) as client:
        found = await lines.groups(client, services_of(request).log_indexes.of(job_id), job_id)
    return _json({"groups": [{"n": number, "g": kind} for number, kind in found]})


async def find_lines(request: Request) -> Response:
    """Search a part of a log."""
    job_id, query = _job_id(request), request.query_params
    async with services_of(request).clients.asking(login_of(request).token) as client:
        found = await lines.find(
            client,
            services_of(request).log_indexes.of(job_id),
            job_id,
            query.get("q", ""),
            _number(request, "from", 1, 1),
            regex=query.get("regex") == "true",
            ignore_case=query.get("ignore_case") == "true",
        )
    return _json(found)


async def stream_lines(request: Request) -> Response:
    """Stream what is new in a log, for a page that shows the job as of its event `seen`."""
    login, services, job_id = login_of(request), services_of(request), _job_id(request)
    known, seen = request.headers.get("last-event-id"), _number(request, "seen", 0, 0)
    total = _number(request, "from", 0, 0) if known is None else _number_in(known, "Last-Event-ID", 0)
    async with services.clients.asking(login.token) as client:
        job = await client.get(job_id)
    index = services_of(request).log_indexes.of(job_id)

    async def run(outlet: Outlet) -> None:
        async with services.clients.of(login.token) as client:
            await LogStream(client, index, job, total, seen).run(outlet)

    return Live(services, login, Sending(run))


async def stream_terminal(request: Request) -> Response:
    """Stream the output of a terminal."""
    login, services, job_id = login_of(request), services_of(request), _job_id(request)
    from_sequence = _number(request, "from_sequence", 1, 1)
    async with services.clients.asking(login.token) as client:
        job = await client.get(job_id)

    async def stream() -> AsyncGenerator[bytes]:
        async with services.clients.of(login.token) as client:
            async for frames in terminal_stream(client, job, from_sequence):
                yield frames

    return Live(services, login, StreamingResponse(stream(), media_type=FRAMES))


def _job_id(request: Request) -> JobId:
    return JobId(request.path_params["job_id"])


def _number(request: Request, name: str, default: int, least: int, most: int = SEQUENCE_MAX) -> int:
    """Return a number of the query. Raises `BadRequest`: it is none, or out of bounds."""
    given = request.query_params.get(name)
    return default if given is None else _number_in(given, name, least, most)


def _number_in(given: str, name: str, least: int, most: int = SEQUENCE_MAX) -> int:
    if not given.isdecimal() or len(given) > len(str(SEQUENCE_MAX)) or not least <= int(given) <= most:
        raise bad_field(name, f"expected a number from {least} to {most}")
    return int(given)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/jobs/{job_id}/lines", read_lines, methods=["GET"]),
    Route("/jobs/{job_id}/groups", read_groups, methods=["GET"]),
    Route("/jobs/{job_id}/find", find_lines, methods=["GET"]),
    Route("/jobs/{job_id}/live", stream_lines, methods=["GET"]),
    Route("/jobs/{job_id}/terminal", stream_terminal, methods=["GET"]),
)
