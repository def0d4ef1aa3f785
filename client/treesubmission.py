"""Submission of a job with its tree: one request, if the broker has all of that from an earlier job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from airunner.client import uploading
from airunner.client.client import Client
from airunner.client.jobref import SubmittedJob
from airunner.client.specs import invalid_specs
from airunner.client.uploading import Ask, PreparedTree, ask_of, put_blobs
from airunner.protocol.errors import BadRequest
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import encode_spec
from airunner.protocol.names import RequestId
from airunner.protocol.replies import BlobsMissing, JobsEnqueued
from airunner.protocol.treerequest import EnqueueJobWithTree


async def prepare_tree(client: Client, bundle: Path) -> PreparedTree:
    """Upload the beginning of a Git bundle for `submit_tree`, unless it is small. Raises what `upload` raises."""
    return await uploading.prepare_tree(ask_of(client), bundle)


async def submit_tree(
    client: Client, job: JobSpec, prepared: PreparedTree, *, stdin: bytes = b"", request_id: RequestId | None = None
) -> SubmittedJob:
    """Submit a job with its prepared tree. Raises what `submit` and `upload` raise."""
    job = replace(job, tree=prepared.tree)
    missing: Sequence[int] | None = None
    if not stdin:
        reply = await _offer(ask_of(client), job, prepared, request_id)
        if isinstance(reply, JobsEnqueued):
            return SubmittedJob(reply.job_ids[0])
        missing = reply.missing
    await put_blobs(ask_of(client), prepared.tree.upload, prepared.blobs, missing)
    return await client.submit(job, stdin=stdin, request_id=request_id)


async def _offer(
    ask: Ask, job: JobSpec, prepared: PreparedTree, request_id: RequestId | None
) -> BlobsMissing | JobsEnqueued:
    """Submit a job with its tree, unless the broker says which blobs of that it lacks."""
    try:
        request = EnqueueJobWithTree(job=job, ids=tuple(blob.id for blob in prepared.blobs))
        encode_spec(job)
    except ValueError as error:
        raise invalid_specs(error, [job]) from error
    try:
        return await ask(request, request_id)
    except BadRequest as error:
        if type(request).__name__ not in error.message:
            raise
        raise BadRequest("this broker is too old to give a job a tree: upgrade it") from error
