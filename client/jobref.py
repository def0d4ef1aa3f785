"""References to jobs, as methods of the client take them: an id, or anything that the client has returned for a job."""

from __future__ import annotations

from msgspec import Struct

from airunner.protocol.job import JobView
from airunner.protocol.names import JobId


class SubmittedJob(Struct, frozen=True):
    """Submitted job, which is on the broker's disk; `Client.get` returns its state."""

    id: JobId


JobRef = str | SubmittedJob | JobView
"""Reference to a job: its id, or a `SubmittedJob`, `JobSummary` or `Job`."""


def id_of(job: JobRef) -> JobId:
    """Return the id of a job."""
    return JobId(job) if isinstance(job, str) else job.id
