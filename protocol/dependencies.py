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
from airunner.protocol.names import JobName

AFTER_MAX: Final = 1_024  # jobs that one job waits for
DEPENDENTS_MAX: Final = 1_024  # jobs that wait for one job: their list is a part of its row
_EXPECTED: Final = "expected a job and how it has to end, such as JOB, JOB:failure or JOB:any"


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
    tuple[Annotated[str, Meta(min_length=1, max_length=80)], ...],
    Meta(max_length=AFTER_MAX),
    Field(
        "Job to wait for: it has to end with `:success` (the default), `:failure` or `:any`; if it ends otherwise, "
        "this job is skipped.",
        Form.WORDS,
        metavar="JOB[:END]",
    ),
]


def dependency_of(text: str) -> Dependency:
    """Parse a dependency. Raises `ValueError`."""
    job_id, colon, ending = text.rpartition(":")
    if not colon:
        return Dependency(text)
    if not job_id or ending not in tuple(Ending):
        raise ValueError(f"{_EXPECTED}, not {text!r}")
    return Dependency(job_id, Ending(ending))


def check_dependencies(after: Sequence[str]) -> None:
    """Check a job's dependencies. Raises `FieldError`: one is no dependency, or two are on the same job."""
    seen: set[str] = set()
    for number, text in enumerate(after):
        try:
            job_id, _ = dependency_of(text)
        except ValueError as error:
            raise FieldError("after", str(error), number) from error
        if job_id in seen:
            raise FieldError("after", f"{job_id} is named twice; name it once", number)
        seen.add(job_id)
