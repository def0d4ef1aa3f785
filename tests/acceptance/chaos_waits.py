"""What those who wait have come to in a chaos run of several brokers: jobs of a steady agent, and parked requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from airunner.protocol.events import JobExpired, JobLeased, JobReleased
from tests.acceptance.chaos_judge import Kept
from tests.simulation.fold import fold
from tests.simulation.history import Acknowledged, Invoked, Record

ANSWERED_MS: Final = 60_000  # until a parked request is answered, whatever befalls the brokers that it is asked of
NEVER_MS: Final = 2**62


def lost_by(agent: str, kept: Kept) -> Iterator[str]:
    """Leases of an agent that ended as if it had gone."""
    for job, log in kept:
        for lease in fold(tuple(log)).leases:
            holds = isinstance(lease.begin.body, JobLeased) and lease.begin.body.agent == agent
            end = None if lease.end is None else lease.end.body
            if holds and (isinstance(end, JobExpired) or (isinstance(end, JobReleased) and end.lost)):
                yield f"{job.id}: attempt {lease.attempt} of {agent} was lost"


def answers(records: Sequence[Record]) -> dict[bytes, int]:
    """After how long (ms) each request of a parker was answered."""
    asked = {record.request_id: record.at_ms for record in records if isinstance(record, Invoked)}
    told = {record.request_id: record.at_ms for record in records if isinstance(record, Acknowledged)}
    return {request_id: at_ms - asked[request_id] for request_id, at_ms in told.items()}


def unanswered(records: Sequence[Record]) -> Iterator[str]:
    """What is wrong with the answers to a parker."""
    answered = answers(records)
    for record in records:
        if isinstance(record, Invoked) and (waited_ms := answered.get(record.request_id, NEVER_MS)) > ANSWERED_MS:
            told = "never answered" if waited_ms == NEVER_MS else f"answered after {waited_ms} ms"
            yield f"{record.machine}: {record.request_id.hex()} was {told}"
