"""Dependencies of a job as people give them: jobs by the beginning of an id, or by name; and what a job waits for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airunner.protocol.errors import NotFound, OperatorError
from airunner.protocol.job import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from airunner.client.cli.causes import Why
    from airunner.client.client import Client
    from airunner.protocol.dependencies import Dependency
    from airunner.protocol.fields import JobSpec
    from airunner.protocol.job import Job

SHOWN_MAX: Final = 8  # jobs that another one waits for and that are named
SKIPPED: Final = "a job that it waited for did not end as required"


async def with_dependencies(client: Client, spec: JobSpec) -> JobSpec:
    """Replace what people call the jobs that a new one waits for by their ids.

    Raises `NoJob`, `SeveralJobs`, `OperatorError`, and the errors of `Client`.
    """
    if not spec.after:
        return spec
    from msgspec.structs import replace

    from airunner.client.cli.jobname import job_id_of
    from airunner.protocol.dependencies import dependency_of

    found = [dependency_of(text) for text in spec.after]
    after = {await job_id_of(client, each.job_id): each for each in found}
    if len(after) < len(found):
        raise OperatorError("--after: two of these are the same job; name each job once")
    return replace(spec, after=tuple(str(each._replace(job_id=job_id)) for job_id, each in after.items()))


async def why_blocked(client: Client, job: Job) -> Why:
    """Say which jobs a BLOCKED job waits for. Raises the errors of `Client`."""
    from airunner.client.cli.causes import Cause, Why

    waits: list[tuple[Dependency, JobState]] = []
    async for each, state in _states(client, job):
        if not state.terminal:
            waits.append((each, state))
        if len(waits) == min(job.unmet, SHOWN_MAX):
            break
    named = ", ".join(f"{each} ({state})" for each, state in waits)
    more = f" and {job.unmet - len(waits):,} more" if job.unmet > len(waits) > 0 else ""
    text = f"waits for the end of {_count(job.unmet)}: {named}{more}" if waits else "may start at any moment"
    commands = tuple(f"airunner explain {each.job_id}" for each, _ in waits[:1])
    return Why(cause=Cause.BLOCKED, text=text, commands=commands)


async def why_skipped(client: Client, job: Job) -> str:
    """Say for which job another one was skipped. Raises the errors of `Client`."""
    from airunner.protocol.dependencies import Ending

    wanted = {Ending.SUCCESS: (JobState.COMPLETED,), Ending.FAILURE: (JobState.FAILED,)}
    words = {Ending.SUCCESS: "had to succeed", Ending.FAILURE: "had to fail"}
    async for each, state in _states(client, job):
        if each.ending in wanted and state.terminal and state not in wanted[each.ending]:
            return f"job {each.job_id} {words[each.ending]}, and is {state}"
    return SKIPPED


async def _states(client: Client, job: Job) -> AsyncGenerator[tuple[Dependency, JobState]]:
    """Look up the states of the jobs that one waits for, except those that were removed."""
    from airunner.protocol.dependencies import dependency_of

    for each in map(dependency_of, job.spec.after):
        with suppress(NotFound):
            yield each, (await client.get(each.job_id)).state


def _count(jobs: int) -> str:
    return f"{jobs:,} {'job' if jobs == 1 else 'jobs'}"
