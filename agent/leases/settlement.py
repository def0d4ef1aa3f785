"""Settlement: how a slot ends a lease, decided once for each.

After every settlement but `LeftBehind` nothing is left to do for the attempt, so its spool is removed.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct

from airunner.protocol.job import JobState


class Completed(Struct, frozen=True):
    """Completed: the broker has the result, and the job is in this state now."""

    state: JobState
    exit_status: int


class Released(Struct, frozen=True):
    """Released: the broker may give the job to another agent at once."""


class Lost(Struct, frozen=True):
    """Lost: the lease is no longer ours, or it is `refused` to release it, and it expires."""

    refused: str = ""


class LeftBehind(Struct, frozen=True):
    """Left behind: the broker was not told before the agent had to stop; the home's next agent delivers the spool."""


Settlement = Completed | Released | Lost | LeftBehind


def described(settlement: Settlement) -> str:
    """Return the settlement as the agent reports it, to stand behind the name of the attempt."""
    match settlement:
        case Completed(JobState.SCHEDULED, exit_status):
            return f"ends with exit status {exit_status}, and the job will be tried again"
        case Completed(state, exit_status):
            return f"ends {state} with exit status {exit_status}"
        case Released():
            return "is released"
        case Lost(""):
            return "has lost its lease; its processes are ended"
        case Lost(refused):
            return f"is not released, its lease will expire: {refused}"
        case LeftBehind():
            return "is left for the next agent of this home to deliver and release"
        case _:
            assert_never(settlement)
