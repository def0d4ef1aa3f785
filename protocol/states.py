"""States of a job and the changes between them, as one table. The diagram in docs/ARCHITECTURE.md is drawn from it.

A change of a job's state that is not in the table never happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from airunner.protocol.job import JobState


class Change(StrEnum):
    """Change of a job's state."""

    LEASE = "lease"
    RELEASE = "release"
    EXPIRE = "expire"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    UNBLOCK = "unblock"
    SKIP = "skip"


TRANSITIONS: Final[Mapping[tuple[JobState, Change], JobState]] = MappingProxyType(
    {
        (JobState.BLOCKED, Change.UNBLOCK): JobState.SCHEDULED,
        (JobState.BLOCKED, Change.SKIP): JobState.SKIPPED,
        (JobState.BLOCKED, Change.CANCEL): JobState.CANCELLED,
        (JobState.BLOCKED, Change.FAIL): JobState.FAILED,
        (JobState.SCHEDULED, Change.LEASE): JobState.RUNNING,
        (JobState.SCHEDULED, Change.CANCEL): JobState.CANCELLED,
        (JobState.SCHEDULED, Change.FAIL): JobState.FAILED,
        (JobState.RUNNING, Change.RELEASE): JobState.SCHEDULED,
        (JobState.RUNNING, Change.EXPIRE): JobState.SCHEDULED,
        (JobState.RUNNING, Change.RETRY): JobState.SCHEDULED,
        (JobState.RUNNING, Change.COMPLETE): JobState.COMPLETED,
        (JobState.RUNNING, Change.FAIL): JobState.FAILED,
        (JobState.RUNNING, Change.CANCEL): JobState.CANCELLED,
    }
)

FINISHING: Final[Mapping[JobState, Change]] = MappingProxyType(
    {
        JobState.COMPLETED: Change.COMPLETE,
        JobState.FAILED: Change.FAIL,
        JobState.CANCELLED: Change.CANCEL,
        JobState.SKIPPED: Change.SKIP,
    }
)
"""The change that leads to each terminal state."""


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram."""
    steps = [f"    {state} --> {target}: {change}" for (state, change), target in TRANSITIONS.items()]
    ends = [f"    {state} --> [*]" for state in JobState if state.terminal]
    lines = [
        "stateDiagram-v2",
        "    [*] --> SCHEDULED: enqueue",
        "    [*] --> BLOCKED: enqueue after other jobs",
        *steps,
        *ends,
    ]
    return "\n".join(lines)
