"""Submission of a job with its tree: one request, if the broker has all of that from an earlier job."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from airunner.client.client import Client
from airunner.client.jobref import SubmittedJob
from airunner.client.uploading import PreparedTree
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import RequestId
from airunner.protocol.replies import JobsEnqueued


async def submit_tree(
    client: Client, job: JobSpec, prepared: PreparedTree, *, stdin: bytes = b"", request_id: RequestId | None = None
) -> SubmittedJob:
    """Submit a job with the tree that `Client.prepare_tree` has prepared. Raises what `submit` and `upload` raise."""
    job = replace(job, tree=prepared.tree)
    missing: Sequence[int] | None = None
    if not stdin:
        reply = await client.offer_tree(job, prepared, request_id)
        if isinstance(reply, JobsEnqueued):
            return SubmittedJob(reply.job_ids[0])
        missing = reply.missing
    await client.put_blobs(prepared.tree.upload, prepared.blobs, missing)
    return await client.submit(job, stdin=stdin, request_id=request_id)
