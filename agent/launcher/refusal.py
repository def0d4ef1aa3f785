"""Refusals of the agent's own machine, which are not the fault of the job that meets them. Pure.

A machine that is out of processes, memory, descriptors or disk reports it by an errno, whatever the job. The job goes
back as if it had not been leased: it is not counted towards `max_attempts`, the agent reports why, and leases nothing
until it can run jobs again (see `leases.health`). What a running command is refused is the job's own business.

Where only git's words say so, they are believed as far as the machine's state bears them out: a repository that does
not fit on a disk with room for others, or a program that says such things, is not to go round for ever.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final, cast


class Scarce(StrEnum):
    """Scarce resource: what a machine can be out of."""

    PROCESSES = "processes or memory"
    DESCRIPTORS = "open files"
    DISK = "disk"


HINTS: Final = {
    Scarce.PROCESSES: "raise its bounds (ulimit -u, TasksMax=, memory) or lower --spawn",
    Scarce.DESCRIPTORS: "raise its bound of open files (ulimit -n, LimitNOFILE=) or lower --spawn",
    Scarce.DISK: "make room on the disk of AIRUNNER_HOME, and let it be written",
}
"""What to do about each, for the agent's operator."""

_SCARCE: Final = {
    errno.EAGAIN: Scarce.PROCESSES,
    errno.ENOMEM: Scarce.PROCESSES,
    errno.EMFILE: Scarce.DESCRIPTORS,
    errno.ENFILE: Scarce.DESCRIPTORS,
    errno.ENOBUFS: Scarce.DESCRIPTORS,
    errno.ETOOMANYREFS: Scarce.DESCRIPTORS,  # on their way between two processes
    errno.ENOSPC: Scarce.DISK,
    errno.EDQUOT: Scarce.DISK,
    errno.EROFS: Scarce.DISK,
    errno.EIO: Scarce.DISK,
}


class MachineRefused(Exception):
    """Refusal of this machine, which cannot do something now; the message says what, and why.

    `guessed`: from a program's words, and not an errno. `begun`: a command of the job's had run by then.
    """

    def __init__(self, scarce: Scarce, message: str, *, guessed: bool = False, begun: bool = False) -> None:
        super().__init__(message)
        self.scarce = scarce
        self.message = message
        self.guessed = guessed
        self.begun = begun
        self.room_bytes = 0  # that the disk has to have before it is tried again


def scarce_at_launch(number: int) -> Scarce | None:
    """Return what the machine lacks where a launch fails with errno `number`; None: the command is at fault."""
    if number == errno.ENOSPC:  # no room for another terminal, and no matter of the disk
        return Scarce.PROCESSES
    return _SCARCE.get(number)


def scarce_at_home(number: int | None) -> Scarce:
    """Return what the machine lacks when it refuses a file of the agent's own home with errno `number`."""
    return _SCARCE.get(number or 0, Scarce.DISK)


def counts(refusal: MachineRefused, *, begun: bool, able: bool) -> bool:
    """Return whether giving the job back counts towards its `max_attempts`, as a lost agent does.

    `begun`: its command was running; each further attempt runs it once more. `able`: the machine, looked at afterwards,
    is out of nothing; what only words tell of is then the job's own, such as a repository larger than the disk.
    """
    return begun or refusal.begun or (refusal.guessed and able)


def refusal_in(error: BaseException) -> MachineRefused | None:
    """Find the machine's refusal in `error`, which may be what a task group raised.

    An `OSError` that was not translated counts as one: all that an attempt touches in the agent is the agent's own.
    """
    if isinstance(error, MachineRefused):
        return error
    if isinstance(error, OSError) and error.errno in _SCARCE:
        return MachineRefused(_SCARCE[error.errno], str(error))
    if isinstance(error, BaseExceptionGroup):
        exceptions = cast("BaseExceptionGroup[BaseException]", error).exceptions
        found = (refusal_in(exception) for exception in exceptions)
        return next((refusal for refusal in found if refusal is not None), None)
    return None
