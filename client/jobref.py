"""References to jobs, as methods of the client take them: an id, or anything that the client has returned for a job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from airunner.protocol.errors import BadRequest
from airunner.protocol.job import JobView
from airunner.protocol.names import JobId

FOLLOWED_MAX: Final = 10_000  # jobs that are waited for at once: each takes some 25 KB


class SubmittedJob(Struct, frozen=True):
    """Submitted job, which is on the broker's disk; `Client.get` returns its state."""

    id: JobId


JobRef = str | SubmittedJob | JobView
"""Reference to a job: its id, or a `SubmittedJob`, `JobSummary` or `Job`."""


def id_of(job: JobRef) -> JobId:
    """Return the id of a job."""
    return JobId(job) if isinstance(job, str) else job.id


def ids_of(jobs: Iterable[JobRef]) -> list[JobId]:
    """Return the ids of jobs, each once. Raises `BadRequest`: too many, or a text, whose characters are no jobs."""
    if isinstance(jobs, str):
        raise BadRequest(f"several jobs are expected, such as [{jobs!r}], not {jobs!r}")
    job_ids = list(dict.fromkeys(map(id_of, jobs)))
    if len(job_ids) > FOLLOWED_MAX:
        raise BadRequest(f"at most {FOLLOWED_MAX:,} jobs can be waited for at once, not {len(job_ids):,}")
    return job_ids
