"""The laws of jobs that wait for others, judged from the ends of these."""

from __future__ import annotations

from collections.abc import Iterator

from airunner.protocol.dependencies import Ending, dependency_of
from airunner.protocol.events import Event, JobFinished, JobLeased, JobScheduled, JobUnblocked
from airunner.protocol.job import JobState
from tests.simulation.evidence import Case, Evidence, Found

MEETS = {
    Ending.SUCCESS: (JobState.COMPLETED,),
    Ending.FAILURE: (JobState.FAILED,),
    Ending.ANY: (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED),
}


def no_job_runs_before_what_it_waits_for(evidence: Evidence) -> Found:
    """A job is leased only after all that it waits for have ended, each as it has to."""
    for job_id, case in evidence.cases.items():
        leased = _first(case, JobLeased)
        if leased is None:
            continue
        unblocked = _first(case, JobUnblocked)
        blocked = isinstance(case.events[0].body, JobScheduled) and case.events[0].body.unmet
        if blocked and (unblocked is None or unblocked.sequence > leased.sequence):
            yield job_id, "was leased and never unblocked"
        for awaited, ending in _awaited(evidence, case):
            if awaited.job.state not in MEETS[ending]:
                yield job_id, f"ran, and {awaited.job.id} is {awaited.job.state}, not {ending}"
            ended = _first(awaited, JobFinished)
            if ended is None or unblocked is None:
                continue
            began, end = evidence.span(unblocked), evidence.span(ended)
            if began is not None and end is not None and began.surely_before(end):
                yield job_id, f"was unblocked before {awaited.job.id} had ended"


def a_job_is_skipped_for_a_reason(evidence: Evidence) -> Found:
    """A job is SKIPPED only if one that it waits for did not end as required."""
    for job_id, case in evidence.cases.items():
        if case.job.state is JobState.SKIPPED and all(
            awaited.job.state in MEETS[ending] for awaited, ending in _awaited(evidence, case)
        ):
            yield job_id, "is SKIPPED, and all that it waited for have ended as required"


def _awaited(evidence: Evidence, case: Case) -> Iterator[tuple[Case, Ending]]:
    for job_id, ending in map(dependency_of, case.job.spec.after):
        if job_id in evidence.cases:
            yield evidence.cases[job_id], ending


def _first(case: Case, kind: type) -> Event | None:
    return next((event for event in case.events if isinstance(event.body, kind)), None)
