"""Settlement of a lease: how its slot ends it, once. The lease is completed, released, lost, or left behind.

After `LeftBehind` the attempt's spool stays for the home's next agent; otherwise it is removed.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct

from airunner.protocol.job import JobState


class Completed(Struct, frozen=True):
    """Completed: the broker has the result, and the job is now in `state`."""

    state: JobState
    exit_status: int


class Released(Struct, frozen=True):
    """Released: the broker may give the job to another agent at once."""


class Lost(Struct, frozen=True):
    """Lost: the agent no longer has the lease; or the broker `refused` its release (the reason), and it expires."""

    refused: str = ""


class LeftBehind(Struct, frozen=True):
    """Left behind: the agent had to stop before the broker replied; the home's next agent delivers and releases."""


Settlement = Completed | Released | Lost | LeftBehind


def described(settlement: Settlement) -> str:
    """Describe a settlement for the agent's log, where the name of the attempt comes before it."""
    match settlement:
        case Completed(JobState.SCHEDULED, exit_status):
            return f"ends with exit status {exit_status}, and the job will be retried"
        case Completed(state, exit_status):
            return f"ends {state} with exit status {exit_status}"
        case Released():
            return "is released"
        case Lost(""):
            return "has lost its lease; its processes are ended"
        case Lost(refused):
            return f"cannot be released, and its lease will expire: {refused}"
        case LeftBehind():
            return "is left to the next agent of this home, which delivers its output and gives the job back"
        case _:
            assert_never(settlement)
