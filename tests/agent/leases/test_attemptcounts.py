"""What an agent counts of its attempts."""

from __future__ import annotations

from airunner.agent.leases.attemptcounts import OUTCOMES, AttemptCounts
from airunner.agent.leases.settlement import Completed, LeftBehind, Lost, Released, Settlement
from airunner.protocol.job import JobState

FINISHED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
SETTLEMENTS: list[Settlement] = [
    *(Completed(state, 1) for state in (JobState.SCHEDULED, *FINISHED)),
    Released(),
    Lost("refused"),
    LeftBehind(),
]


def test_every_end_of_an_attempt_is_counted_once_and_its_start_if_there_was_one() -> None:
    counts = AttemptCounts()
    for settlement in SETTLEMENTS:
        counts.record(settlement, 2.0 if isinstance(settlement, Completed) else None)
    assert counts.outcomes == dict.fromkeys(OUTCOMES, 1)
    assert len(OUTCOMES) == len(SETTLEMENTS)
    assert counts.prepared.sum == 8
