"""Operations on all jobs: listing and submitting them."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any, Final, cast

from msgspec import Meta, Struct
from starlette.responses import Response

from airunner.client.cli.instants import Side, instant_ms
from airunner.client.cli.waiting import ListedJob, Reasons
from airunner.client.web.api.forms import JobsPage, NamedForm, SubmittedForm, SubmittedPage
from airunner.client.web.api.newjobs import FILE, KEY_CHARS_MAX, idempotency_key, naming_the_key, new_jobs
from airunner.client.web.api.operation import IDEMPOTENCY_KEY, JSON, YAML, Answer, Call, Operation, json_answer
from airunner.client.web.problems import bad_field
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.listhint import command_hint
from airunner.protocol.misfits import shown
from airunner.protocol.names import NAME_CHARS_MAX, Argument, JobName, Label, Name
from airunner.protocol.requests import FILTERS_MAX, PAGE_SIZE_MAX, PREFIX_CHARS_MIN

JOBS_SHOWN: Final = 20  # of a list without `limit`, as of `airunner list`
PAGES_MAX: Final = 20  # of the broker, that one page of a list in a time may need
Title = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
_DAYS: Final = (
    "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])",
    "(0[469]|11)-(0[1-9]|[12][0-9]|30)",
    "02-(0[1-9]|1[0-9]|2[0-8])",
)
_DATE: Final = f"20([0-9][0-9]-({'|'.join(_DAYS)})|([02468][048]|[13579][26])-02-29)"
_TIME: Final = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
INSTANT: Final = f"([1-9][0-9]{{0,3}}[smhd]|{_DATE}T{_TIME})"  # exact, so that a schema can state it
Instant = Annotated[str, Meta(extra_json_schema={"pattern": f"^{INSTANT}$"})]


class JobsQuery(Struct, frozen=True, kw_only=True):
    """Query of a list of jobs: the filters of `airunner list`; a job matches if it meets all of them."""

    prefix: (
        Annotated[str, Meta(min_length=PREFIX_CHARS_MIN, max_length=64, description="First characters of the id.")]
        | None
    ) = None
    name: Annotated[Title, Meta(description="Only jobs of this name.")] | None = None
    queue: Annotated[Name, Meta(description="Only jobs of this queue.")] | None = None
    state: Annotated[
        tuple[JobState, ...], Meta(max_length=len(JobState), description="Only jobs in one of these states.")
    ] = ()
    owner: Annotated[Title, Meta(description="Only jobs of this owner.")] | None = None
    label: Annotated[
        dict[Label, Argument],
        Meta(
            max_length=FILTERS_MAX,
            description="Only jobs with this metadata, as NAME=VALUE.",
        ),
    ] = {}
    since: (
        Annotated[Instant, Meta(description="Only jobs submitted since, as 10m (ago) or 2027-01-31T03:00:00Z.")] | None
    ) = None
    until: Annotated[Instant, Meta(description="Only jobs submitted until then.")] | None = None
    before: (
        Annotated[JobName, Meta(description="Only jobs older than this one: the last of the page before.")] | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX, description="Number of jobs on the page.")] = JOBS_SHOWN
    count: Annotated[bool, Meta(description="Whether all matching jobs are counted.")] = False


async def list_jobs(call: Call[JobsQuery]) -> Response:
    """List a page of jobs, newest first."""
    query = call.query
    now_ms = int(call.services.now_s() * 1_000)
    since_ms, until_ms = _instant("since", query.since, now_ms), _instant("until", query.until, now_ms)
    filters: dict[str, Any] = {
        "prefix": query.prefix,
        "name": query.name,
        "queue": query.queue,
        "state": query.state or None,
        "owner": query.owner,
        "metadata": query.label,
        "details": True,
    }
    found: list[JobSummary] = []
    before, more, total, beyond = query.before, True, None, False
    async with call.asking() as client:
        for number in range(1 if until_ms is None else PAGES_MAX):
            page = await client.list_page(
                **filters, before=before, page_size=query.limit - len(found), count=query.count and not number
            )
            if not number:
                total, beyond = page.total, page.beyond
            late = [job for job in page.jobs if since_ms is None or job.submitted_ms >= since_ms]
            found += [job for job in late if until_ms is None or job.submitted_ms <= until_ms]
            more = page.more and len(late) == len(page.jobs)
            before = page.jobs[-1].id if page.jobs else before
            if not more or len(found) == query.limit:
                break
        listed = await Reasons(client).add(found)
    following = call.next_page(before=before) if more and before is not None else None
    form = JobsPage(jobs=cast("tuple[ListedJob, ...]", tuple(listed)), next=following, total=total, beyond=beyond)
    return json_answer(form, headers=None if following is None else {"Link": f'<{following}>; rel="next"'})


def _instant(name: str, text: str | None, now_ms: int) -> int | None:
    if text is None:
        return None
    if re.fullmatch(INSTANT.removesuffix("$"), text) is None:
        raise bad_field(
            name, f"expected a time ago such as 10m, or an instant such as 2027-01-31T03:00:00Z, not {shown(text)}"
        )
    return instant_ms(text, Side.PAST, now_ms)


async def submit_jobs(call: Call[None]) -> Response:
    """Submit a job, or several."""
    key = idempotency_key(call.request)
    jobs = await new_jobs(call.request, int(call.services.now_s() * 1_000))
    async with naming_the_key(key), call.asking() as client:
        if not jobs.several:
            (job,) = [await client.submit(spec, request_id=key) for spec in jobs.specs]
            form = SubmittedForm(job_id=job.id, hint=command_hint(jobs.specs[0].command))
            return json_answer(form, HTTPStatus.CREATED, {"Location": f"/v1/jobs/{job.id}"})
        submitted = await client.submit_many(jobs.specs, request_id=key)
    named = [
        NamedForm(job_id=job.id, name=spec.name, hint=command_hint(spec.command))
        for job, spec in zip(submitted, jobs.specs, strict=True)
    ]
    return json_answer(SubmittedPage(jobs=tuple(named)), HTTPStatus.CREATED)


LOCATION: Final = {"Location": "Address of the new job; of several jobs, there is none."}
KEY: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": KEY_CHARS_MAX,
    "description": (
        "Key of this submission, such as a UUID: the same request with the same key within a day has the same answer, "
        "and nothing is submitted again."
    ),
}
OPERATIONS: Final = (
    Operation(
        name="listJobs",
        method="GET",
        path="/v1/jobs",
        summary="List jobs, newest first",
        role="read",
        query=JobsQuery,
        run=list_jobs,
        answers=(Answer("A page of jobs.", {JSON: JobsPage}, headers={"Link": "Address of the next page, rel=next."}),),
        problems=(HTTPStatus.NOT_FOUND,),
    ),
    Operation(
        name="submitJobs",
        method="POST",
        path="/v1/jobs",
        summary=f"Submit a job or several, as JSON or as {FILE} of `airunner submit`",
        role="submit",
        run=submit_jobs,
        bodies={JSON: None, YAML: str},
        headers={IDEMPOTENCY_KEY: KEY},
        answers=(
            Answer(
                "The jobs are on the broker's disk.",
                {JSON: SubmittedForm | SubmittedPage},
                HTTPStatus.CREATED,
                headers=LOCATION,
            ),
        ),
        problems=(HTTPStatus.CONFLICT, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.INSUFFICIENT_STORAGE),
    ),
)
