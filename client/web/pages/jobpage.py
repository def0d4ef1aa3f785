"""Page of one job: its state and why, its phases, attempts and facts, and buttons to cancel and retry it.

The log below the summary is a part of its own (`logroutes`). While the job changes, `live.js`
asks for the summary again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from airunner.client.artifactfiles import ArtifactFile
from airunner.client.cli.apply import returned_text
from airunner.client.cli.artifacts import files_at_end, total_text
from airunner.client.cli.attempts import attempts_of
from airunner.client.cli.causes import Why
from airunner.client.cli.explain import explain
from airunner.client.cli.jobname import NoJob, SeveralJobs, job_id_of
from airunner.client.cli.listing import Left, job_facts
from airunner.client.cli.saves import saved_text
from airunner.client.client import Client
from airunner.client.logreader import last_events
from airunner.client.web.login import Login, login_of
from airunner.client.web.logroutes import log_context
from airunner.client.web.pages.forms import form_of, see, value_of
from airunner.client.web.pages.phases import PHASE_KINDS, WAITING, Phase, phases_of
from airunner.client.web.pages.rendering import fragment, render
from airunner.client.web.pages.showing import artifact_url, job_url
from airunner.client.web.services import services_of
from airunner.protocol.errors import BadRequest, NotFound
from airunner.protocol.events import Event
from airunner.protocol.job import Job, JobState, command_summary
from airunner.protocol.printable import shell_line
from airunner.protocol.sizes import bytes_text
from airunner.transport.ports import SYSTEM

ARTIFACTS_MAX: Final = 100  # files that a page shows
_SHOWN: Final = frozenset(
    ("id", "state", "why", "waiting", "doing", "command", "attempt", "next", "repository", "metadata", "retry of")
)
"""Facts that have a place of their own in the summary."""
_OF_FIRST: Final = ("started", "took", "waited")  # since, or until, attempt 1
_OF_LAST: Final = ("agent", "checkout", "ran", "output", "cpu", "memory", "disk")


class Artifacts(Struct, frozen=True):
    """Files that a job has left, for its template: the first of them, with their addresses, and how many there are."""

    total: str = ""  # empty: none
    files: Sequence[tuple[str, str, str]] = ()  # path, size and address; a link or folder has none
    more: int = 0


class Summary(Struct, frozen=True):
    """Summary of a job, for its template."""

    job: Job
    why: Why | None  # of a running job the phases say all
    attempts: Sequence[str]
    phases: Sequence[Phase]
    attempt: int  # whose phases these are; a wait belongs to the next attempt
    facts: Sequence[tuple[str, str]]
    command: str
    title: str
    now_ms: int
    artifacts: Artifacts
    saved: str
    retry_id: str  # request id of a retry: pressing the button twice makes one job


async def show_job(request: Request) -> Response:
    """Show a job, and the end of its log; lead from the beginning of its id, or its name, to its address."""
    login, given = login_of(request), request.path_params["job_id"]
    async with services_of(request).clients.asking(login.token) as client:
        job_id = await meant(client, given)
        if job_id != given:
            return RedirectResponse(f"{job_url(job_id)}?{request.url.query}".rstrip("?"))
        summary = await summary_of(client, job_id)
        log = await log_context(request, client, summary.job)
    return render(request, "job.html", login, **_context(login, summary), **log)


async def meant(client: Client, given: str) -> str:
    """Find the id of the job that an address means, as the command line does. Raises `NotFound`: none, or several."""
    try:
        return await job_id_of(client, given)
    except (NoJob, SeveralJobs) as error:
        raise NotFound(error.message.removesuffix(".")) from error
    except BadRequest as error:  # no job has such a name
        raise NotFound(NoJob(given).message) from error


async def show_summary(request: Request) -> Response:
    """Show the summary alone, as it is now."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        summary = await summary_of(client, request.path_params["job_id"])
    return HTMLResponse(fragment("summary.html", **_context(login, summary)))


async def cancel_job(request: Request) -> Response:
    """Cancel a job."""
    login, job_id = login_of(request), request.path_params["job_id"]
    await form_of(request, ())
    async with services_of(request).clients.asking(login.token) as client:
        await client.cancel(job_id)
    return see(job_url(job_id))


async def retry_job(request: Request) -> Response:
    """Retry a job, and show the new one."""
    login = login_of(request)
    request_id = value_of(await form_of(request, ("request_id",)), "request_id")
    async with services_of(request).clients.asking(login.token) as client:
        submitted = await client.retry(request.path_params["job_id"], request_id=request_id)
    return see(job_url(submitted.id))


async def summary_of(client: Client, job_id: str) -> Summary:
    """Ask for what the summary of a job shows. Raises the errors of `Client`."""
    job = await client.get(job_id)
    log = await milestones(client, job)
    why = None if job.state is JobState.RUNNING else await explain(client, job)
    now_ms, attempts = SYSTEM.wall_ms(), attempts_of(log)
    phases = phases_of((event for event in log if event.attempt >= job.attempt - 1), now_ms)
    waits = bool(phases) and phases[-1].name == WAITING
    facts = job_facts(job, why, attempts, Left(returned=await returned_text(client, job)))
    return Summary(
        job=job,
        why=why,
        attempts=attempts,
        phases=phases,
        attempt=job.attempt + waits,
        facts=[(_fact_name(job, name), fact) for name, fact in facts if name not in _SHOWN],
        command=shell_line(job.spec.argv),
        title=job.spec.name or command_summary(job.spec),
        now_ms=now_ms,
        artifacts=artifacts_shown(job.id, await files_at_end(client, job)),
        saved=await saved_text(client, job),
        retry_id=str(uuid4()),
    )


def artifacts_shown(job_id: str, files: Sequence[ArtifactFile]) -> Artifacts:
    """Make what a page shows of a job's files."""
    shown = files[:ARTIFACTS_MAX]
    return Artifacts(
        total=total_text(files) if files else "",
        files=[
            (file.path, bytes_text(file.size_bytes), artifact_url(job_id, file.path))
            if file.kind == "file"
            else (f"{file.path} → {file.target}" if file.target else file.path, "", "")
            for file in shown
        ],
        more=len(files) - len(shown),
    )


def _fact_name(job: Job, name: str) -> str:
    """Name a fact, with the attempt that it is about where there are several."""
    if job.attempt <= 1 or name not in (*_OF_FIRST, *_OF_LAST):
        return name
    return f"{name}, since attempt 1" if name == "took" else f"{name}, attempt {job.attempt if name in _OF_LAST else 1}"


async def milestones(client: Client, job: Job) -> list[Event]:
    """Read the events of which phases and attempts are made, at the beginning and at the end of the log.

    A log may be long and grow fast, so what is between is not looked at: at worst an attempt is missing.
    """
    async with client.replay(job.id) as events:
        head = await events.next_batch()  # a page, which is all of most logs
    found = {event.sequence: event for event in head if event.kind in PHASE_KINDS}
    first_runs = job.state is JobState.RUNNING and job.attempt == 1
    if head and head[-1].sequence < job.last_sequence and not first_runs:
        found |= {event.sequence: event for event in await last_events(client, job, PHASE_KINDS)}
    return [found[sequence] for sequence in sorted(found)]


def _context(login: Login, summary: Summary) -> dict[str, Any]:
    return {"summary": summary, "job": summary.job, "may_change": login.may("submit")}


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/jobs/{job_id}", show_job, methods=["GET"]),
    Route("/jobs/{job_id}/summary", show_summary, methods=["GET"]),
    Route("/jobs/{job_id}/cancel", cancel_job, methods=["POST"]),
    Route("/jobs/{job_id}/retry", retry_job, methods=["POST"]),
)
