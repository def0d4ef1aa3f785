"""Request that submits a job with its tree, if the broker has all of that; see `TreeBundle`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from airunner.protocol import replies
from airunner.protocol.blobs import IDS_MAX, WireId
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import check_new
from airunner.protocol.message import Asking


class EnqueueJobWithTree(Asking[replies.BlobsMissing | replies.JobsEnqueued], frozen=True, kw_only=True):
    """Claim blobs for the upload of a job's tree, and submit the job unless one of them is missing. Role `submit`.

    With all blobs it is an EnqueueJob under the same request id; else put the missing ones, and send that EnqueueJob.
    """

    job: JobSpec
    ids: Annotated[tuple[WireId, ...], Meta(min_length=1, max_length=IDS_MAX)]

    def __post_init__(self) -> None:
        """Check the rules of new jobs; raises `ValueError`: what `check_new` refuses, or the job has no tree."""
        check_new(self.job)
        if self.job.tree is None:
            raise ValueError("tree: the job has none; submit it with EnqueueJob")
        if self.job.stdin_bytes is not None:
            raise ValueError("stdin_bytes: submit a job with a tree and a standard input with EnqueueJobWithStdin")

    @property
    def jobs(self) -> tuple[JobSpec]:
        """The job, as EnqueueJob has its jobs."""
        return (self.job,)
