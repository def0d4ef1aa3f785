"""References to jobs, as methods of the client take them: an id, or anything that the client has returned for a job."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from airunner.protocol.errors import BadRequest
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


def ids_of(jobs: Iterable[JobRef]) -> list[JobId]:
    """Return the ids of jobs, each once. Raises `BadRequest` for a text, whose characters are no jobs."""
    if isinstance(jobs, str):
        raise BadRequest(f"several jobs are expected, such as [{jobs!r}], not {jobs!r}")
    return list(dict.fromkeys(map(id_of, jobs)))
