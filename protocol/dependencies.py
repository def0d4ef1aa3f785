"""Dependencies of jobs: a job waits until other jobs have ended, and is skipped if one ends otherwise than it has to.

A dependency is written `JOB`, `JOB:success`, `JOB:failure` or `JOB:any`, with the id of a job of the same tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from airunner.protocol.errors import FieldError
from airunner.protocol.form import Field, Form
from airunner.protocol.names import NAME_CHARS_MAX, JobName

AFTER_MAX: Final = 1_024  # jobs that one job waits for
DEPENDENTS_MAX: Final = 1_024  # jobs that wait for one job: their list is a part of its row
_CHARS_MAX: Final = NAME_CHARS_MAX + len(":success")  # of a job's name and its end


class Ending(StrEnum):
    """How a job that another one waits for has to end: COMPLETED, FAILED, or in any way."""

    SUCCESS = "success"
    FAILURE = "failure"
    ANY = "any"


class Dependency(NamedTuple):
    """Dependency on a job, given by its id."""

    job_id: JobName
    ending: Ending = Ending.SUCCESS

    def __str__(self) -> str:
        return self.job_id if self.ending is Ending.SUCCESS else f"{self.job_id}:{self.ending}"


Dependencies = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=_CHARS_MAX)], ...],
    Meta(max_length=AFTER_MAX),
    Field(
        "Start only once this job (id, or its beginning, or name) has succeeded; JOB:failure: has failed; JOB:any: has "
        "ended. If it does not end so, the new job is SKIPPED.",
        Form.WORDS,
        metavar="JOB[:END]",
    ),
]


def dependency_of(text: str) -> Dependency:
    """Parse a dependency; a name of a job may have a colon, so what does not end as one has to is a name."""
    job_id, _, ending = text.rpartition(":")
    return Dependency(job_id, Ending(ending)) if job_id and ending in tuple(Ending) else Dependency(text)


def check_dependencies(after: Sequence[str]) -> None:
    """Check a job's dependencies. Raises `FieldError`: two are on the same job."""
    seen: set[str] = set()
    for number, text in enumerate(after):
        job_id, _ = dependency_of(text)
        if job_id in seen:
            raise FieldError("after", f"{job_id} is named twice; name it once", number)
        seen.add(job_id)
