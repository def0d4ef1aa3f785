"""Operations on one job: reading, cancelling and retrying it. A job is named by its whole id."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from airunner.client.web.api.forms import CancelledForm, RetriedForm
from airunner.client.web.api.jobs import KEY, LOCATION
from airunner.client.web.api.newjobs import idempotency_key, naming_the_key
from airunner.client.web.api.operation import IDEMPOTENCY_KEY, JSON, Answer, Call, Operation, json_answer
from airunner.protocol.job import Job


async def get_job(call: Call[None]) -> Response:
    """Get a job as it is now."""
    async with call.asking() as client:
        return json_answer(await client.get(call.job_id))


async def cancel_job(call: Call[None]) -> Response:
    """Cancel a job."""
    async with call.asking() as client:
        return json_answer(CancelledForm(job_id=call.job_id, state=await client.cancel(call.job_id)))


async def retry_job(call: Call[None]) -> Response:
    """Submit an ended job again, as a new job."""
    key = idempotency_key(call.request)
    async with naming_the_key(key), call.asking() as client:
        job = await client.retry(call.job_id, request_id=key)
    form = RetriedForm(job_id=job.id, origin=call.job_id)
    return json_answer(form, HTTPStatus.CREATED, {"Location": f"/v1/jobs/{job.id}"})


OPERATIONS: Final = (
    Operation(
        name="getJob",
        method="GET",
        path="/v1/jobs/{job_id}",
        summary="Get a job as it is now",
        role="read",
        run=get_job,
        answers=(Answer("The job, as `airunner show --json` prints it.", {JSON: Job}),),
        problems=(HTTPStatus.NOT_FOUND,),
    ),
    Operation(
        name="cancelJob",
        method="POST",
        path="/v1/jobs/{job_id}/cancel",
        summary="Cancel a job: a waiting job ends at once, a running job is ended by its agent",
        role="submit",
        run=cancel_job,
        answers=(Answer("The job's state; a job that had ended is as it was.", {JSON: CancelledForm}),),
        problems=(HTTPStatus.NOT_FOUND,),
    ),
    Operation(
        name="retryJob",
        method="POST",
        path="/v1/jobs/{job_id}/retry",
        summary="Submit an ended job again, as a new job",
        role="submit",
        run=retry_job,
        headers={IDEMPOTENCY_KEY: KEY},
        answers=(Answer("The new job is on the broker's disk.", {JSON: RetriedForm}, HTTPStatus.CREATED, LOCATION),),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.INSUFFICIENT_STORAGE),
    ),
)
