"""Page of the newest jobs: filters in its address, and rows that move while jobs change.

```
 GET /jobs?… ─► list_page ─► rows ─► HTML
 GET /jobs/live?… ─► TenantChanges ─► JobBoard ─► RowDiff ─► one event `rows`: their order, and rows that changed
```

The stream begins with all rows, so a page that was hidden, or cut off, has missed nothing. A reader that is slow gets
the last state, not every state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final, Self

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.changes import TenantChanges
from airunner.client.cli.causes import short_text
from airunner.client.cli.columns import state_text
from airunner.client.cli.waiting import ListedJob, Reasons
from airunner.client.cli.watchlist import watch_list
from airunner.client.client import Client
from airunner.client.jobboard import JobBoard
from airunner.client.web.live import Live
from airunner.client.web.login import Login, login_of
from airunner.client.web.pages.jobquery import FILTERS, JobQuery, Problems, query_of, read_query
from airunner.client.web.pages.livetable import RowDiff
from airunner.client.web.pages.rendering import render, row
from airunner.client.web.problems import bad_field
from airunner.client.web.services import Services, services_of
from airunner.protocol.errors import AirunnerError, BadRequest
from airunner.protocol.job import JobState, JobSummary, Reason
from airunner.transport.bell import Bell
from airunner.transport.ports import SYSTEM

JOBS: Final = 50  # on a page: two screens
REASON_S: Final = 10.0  # between two questions to the broker why the jobs of a page wait
PACE_S: Final = 0.1  # between two events: nobody reads faster, and a busy tenant changes many jobs

_SAID: Final = (Reason.EXIT_CODE, Reason.SIGNAL, Reason.TIMEOUT, Reason.AGENT_LOST, Reason.EXPIRED)  # by the state

_Mark = tuple[object, ...]


async def show_jobs(request: Request) -> Response:
    """Show a page of jobs; or none, and what is wrong beside each filter that does not fit."""
    login = login_of(request)
    query, problems = read_query(request.query_params.multi_items())
    jobs: Sequence[JobSummary] = ()
    older = ""
    if not problems:
        async with services_of(request).clients.asking(login.token) as client:
            try:
                page = await client.list_page(**query.filters, before=query.before or None, page_size=JOBS)
            except BadRequest as error:
                problems = _problems_in(error)
            else:
                jobs = await Reasons(client).add(page.jobs)
                older = query.path(before=jobs[-1].id) if page.more and jobs else ""
    return render(
        request,
        "jobs.html",
        login,
        HTTPStatus.BAD_REQUEST if problems else HTTPStatus.OK,
        query=query,
        problems=problems,
        states=tuple(JobState),
        jobs=jobs,
        older=older,
        live=not (query.before or problems),
        now_ms=SYSTEM.wall_ms(),
        reason=reason,
    )


def _problems_in(error: BadRequest) -> Problems:
    """Return the filter that the broker has refused. Raises the error: it is about no filter."""
    filters = {"metadata": "label"}
    field = "" if error.misfit is None else filters.get(error.misfit.field, error.misfit.field)
    if error.misfit is None or field not in FILTERS:
        raise error
    return {field: error.misfit.problem}


async def stream_jobs(request: Request) -> Response:
    """Stream the newest jobs as they change."""
    login, query = login_of(request), query_of(request.query_params.multi_items())
    if query.before:
        raise bad_field("before", "only the newest jobs are live")
    services = services_of(request)
    async with services.clients.asking(login.token) as client:  # refusals are answered as such, with their status
        await client.list_page(**query.filters, page_size=1)
    rows = LiveRows()
    events = EventSourceResponse(rows, data_sender_callable=partial(_watch, services, login, query, rows))
    return Live(services, login, events)


async def _watch(services: Services, login: Login, query: JobQuery, rows: LiveRows) -> None:
    """Watch a list until the reader leaves; an error of the broker ends the stream, and the browser comes again."""
    try:
        with suppress(AirunnerError):
            async with (
                services.clients.of(login.token) as client,
                TenantChanges(client, query.queue or None) as changes,
            ):
                rows.begin(client)
                ask = partial(client.list_page, **query.filters, page_size=JOBS)
                await watch_list(changes.next, ask, JobBoard(JOBS, **query.filters), rows, SYSTEM.wall_ms)
    finally:
        rows.end()


class LiveRows:
    """Live rows of one reader: an iterator of events, each with what differs from what the reader has."""

    redraw_s: float = REASON_S

    def __init__(self) -> None:
        self._jobs: Sequence[JobSummary] | None = None  # not sent yet
        self._came = Bell()
        self._diff = RowDiff()
        self._client: Client | None = None
        self._reasons: Reasons | None = None
        self._ask_s = -math.inf  # when to ask for reasons again
        self._pace_s = -math.inf  # when the next event may be sent

    def begin(self, client: Client) -> None:
        """Begin with an open client."""
        self._client = client

    def end(self) -> None:
        """End the iteration: the client is closed."""
        self._client = None
        self._came.ring()

    def show(self, jobs: Sequence[JobSummary], _changed: Sequence[JobSummary], _now_ms: int) -> None:
        """Note the list as it is now."""
        self._jobs = tuple(jobs)
        self._came.ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        await anyio.sleep_until(self._pace_s)
        while True:
            while self._jobs is None:
                await self._came.wait()
                if self._client is None:
                    raise StopAsyncIteration
            jobs, self._jobs = self._jobs, None
            try:
                event = await self._event(jobs)
            except AirunnerError:
                raise StopAsyncIteration from None
            if event is not None:
                self._pace_s = anyio.current_time() + PACE_S
                return event

    async def _event(self, listed: Sequence[JobSummary]) -> ServerSentEvent | None:
        """Make the event of what differs; None: nothing does."""
        now_s, now_ms = anyio.current_time(), SYSTEM.wall_ms()
        if self._client is not None and (self._reasons is None or now_s >= self._ask_s):
            self._ask_s, self._reasons = now_s + REASON_S, Reasons(self._client)
        jobs = listed if self._reasons is None else await self._reasons.add(listed)
        by_row = {f"job-{job.id}": job for job in jobs}
        marks = {row: _mark(job, now_ms) for row, job in by_row.items()}
        return self._diff.event(marks, lambda row: job_row(by_row[row], now_ms))


def job_row(job: JobSummary, now_ms: int) -> str:
    """Render the row of a job, as the page does."""
    return row("rows.html", job, reason(job, now_ms), now_ms)


def reason(job: JobSummary, now_ms: int) -> str:
    """Say shortly why a job waits, or failed; nothing if its state says all, or if that is not known."""
    why = job.why if isinstance(job, ListedJob) else None
    if why is not None:
        return short_text(why, now_ms)
    failed = job.result.reason if job.state is JobState.FAILED and job.result is not None else None
    return "" if failed is None or failed in _SAID or state_text(job).endswith(failed) else str(failed)


def _mark(job: JobSummary, now_ms: int) -> _Mark:
    """Collect what a row shows, but for the time that passes."""
    return *(getattr(job, name) for name in JobSummary.__struct_fields__), reason(job, now_ms)


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/jobs", show_jobs, methods=["GET"]),
    Route("/jobs/live", stream_jobs, methods=["GET"]),
)
