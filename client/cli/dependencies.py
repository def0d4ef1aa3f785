"""Dependencies of a job as people give them: jobs by the beginning of an id, or by name; and what a job waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airunner.protocol.errors import NotFound
from airunner.protocol.job import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airunner.client.cli.causes import Why
    from airunner.client.client import Client
    from airunner.protocol.dependencies import Dependency
    from airunner.protocol.fields import JobSpec
    from airunner.protocol.job import Job

SHOWN_MAX: Final = 8  # jobs that another one waits for and that are looked up


async def with_dependencies(client: Client, spec: JobSpec) -> JobSpec:
    """Replace what people call the jobs that a new one waits for by their ids.

    Raises `NoJob`, `SeveralJobs`, and the errors of `Client`.
    """
    if not spec.after:
        return spec
    from msgspec.structs import replace

    from airunner.client.cli.jobname import job_id_of
    from airunner.protocol.dependencies import dependency_of

    found = [dependency_of(text) for text in spec.after]
    after = [str(each._replace(job_id=await job_id_of(client, each.job_id))) for each in found]
    return replace(spec, after=tuple(after))


async def why_blocked(client: Client, job: Job) -> Why:
    """Say which jobs a BLOCKED job waits for. Raises the errors of `Client`."""
    from airunner.client.cli.causes import Cause, Why

    states = await _states(client, job)
    waits = [(each, state) for each, state in states if state is not None and not state.terminal]
    first = job.spec.name or job.id
    named = ", ".join(f"{each} ({state})" for each, state in waits)
    more = job.unmet - len(waits)
    others = f"{' and ' if named else ''}{more:,} {'more' if named else 'others'}" if more > 0 else ""
    text = f"waits for the end of {_count(job.unmet)}: {named}{others}" if named or others else f"{first} may start now"
    commands = tuple(f"airunner explain {each.job_id}" for each, _ in waits[:1])
    return Why(cause=Cause.BLOCKED, text=text, commands=commands)


async def why_skipped(client: Client, job: Job) -> str:
    """Say for which job another one was skipped. Raises the errors of `Client`."""
    from airunner.protocol.dependencies import Ending

    wanted = {Ending.SUCCESS: (JobState.COMPLETED,), Ending.FAILURE: (JobState.FAILED,)}
    words = {Ending.SUCCESS: "had to succeed", Ending.FAILURE: "had to fail"}
    for each, state in await _states(client, job):
        if state is not None and each.ending in wanted and state.terminal and state not in wanted[each.ending]:
            return f"skipped: job {each.job_id} {words[each.ending]}, and is {state}"
    return "skipped: a job that it waited for ended otherwise than it had to"


async def _states(client: Client, job: Job) -> Sequence[tuple[Dependency, JobState | None]]:
    """Look up the states of the first jobs that one waits for; None: it was removed."""
    from airunner.protocol.dependencies import dependency_of

    found: list[tuple[Dependency, JobState | None]] = []
    for each in map(dependency_of, job.spec.after[:SHOWN_MAX]):
        try:
            found.append((each, (await client.get(each.job_id)).state))
        except NotFound:
            found.append((each, None))
    return found


def _count(jobs: int) -> str:
    return f"{jobs:,} {'job' if jobs == 1 else 'jobs'}"
