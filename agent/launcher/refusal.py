"""Refusals by the agent's machine, which is out of processes, memory, descriptors or disk: not the job's fault. Pure.

A system call of the agent then fails, for example with EAGAIN or ENOSPC. The job is released, usually without counting
the attempt towards `max_attempts` (see `counts`). The agent reports the reason, and leases nothing until it can run
jobs again (see `leases/health.py`). If a system call of the running command fails, that is the job's own failure.

If a message of git or a failed hook is the only evidence, a check of the machine must confirm the refusal. Otherwise a
repository too large for the disk, or a program that prints such messages, would be retried for ever.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final, cast


class Scarce(StrEnum):
    """Scarce resource: a machine has too little of it."""

    PROCESSES = "processes or memory"
    DESCRIPTORS = "open files"
    DISK = "disk"


HINTS: Final = {
    Scarce.PROCESSES: "raise the agent's limits (ulimit -u, TasksMax=, memory) or lower --spawn",
    Scarce.DESCRIPTORS: "raise the agent's limit of open files (ulimit -n, LimitNOFILE=) or lower --spawn",
    Scarce.DISK: "make room on the disk of AIRUNNER_HOME, and make it writable",
}
"""What the agent's operator can do, by scarce resource."""

_SCARCE: Final = {
    errno.EAGAIN: Scarce.PROCESSES,
    errno.ENOMEM: Scarce.PROCESSES,
    errno.EMFILE: Scarce.DESCRIPTORS,
    errno.ENFILE: Scarce.DESCRIPTORS,
    errno.ENOBUFS: Scarce.DESCRIPTORS,
    errno.ETOOMANYREFS: Scarce.DESCRIPTORS,  # too many descriptors are in flight between processes
    errno.ENOSPC: Scarce.DISK,
    errno.EDQUOT: Scarce.DISK,
    errno.EROFS: Scarce.DISK,
    errno.EIO: Scarce.DISK,
}


class MachineRefused(Exception):
    """Refusal by this machine, which lacks a resource; the message says what it could not do, and why.

    `guessed`: concluded from git's message or a hook's failure, not from an errno. `begun`: the process had started.
    """

    def __init__(self, scarce: Scarce, message: str, *, guessed: bool = False, begun: bool = False) -> None:
        super().__init__(message)
        self.scarce = scarce
        self.message = message
        self.guessed = guessed
        self.begun = begun
        self.room_bytes = 0  # free disk space required before the agent leases again; 0: not set by `Probes` yet

    @property
    def trouble(self) -> str:
        """What is wrong with the machine, and what its operator can do."""
        return f"{self.message}: out of {self.scarce}; {HINTS[self.scarce]}"


def scarce_at_launch(number: int) -> Scarce | None:
    """Return the resource that a launch with errno `number` has lacked; None: the command is at fault."""
    if number == errno.ENOSPC:  # at a launch it means that no terminal is free, not that the disk is full
        return Scarce.PROCESSES
    return _SCARCE.get(number)


def scarce_at_home(number: int | None) -> Scarce:
    """Return the resource that a file operation in the agent's home with errno `number` has lacked (default: disk)."""
    return _SCARCE.get(number or 0, Scarce.DISK)


def counts(refusal: MachineRefused, *, begun: bool, able: bool) -> bool:
    """Return whether the release of the job counts towards its `max_attempts`, as the loss of an agent does.

    `begun`: the command had started, so every further attempt would run it again. `able`: a check has found that the
    machine lacks nothing: a guessed refusal is then the job's fault, such as a repository larger than the disk.
    """
    return begun or refusal.begun or (refusal.guessed and able)


def refusal_in(error: BaseException) -> MachineRefused | None:
    """Find the machine's refusal in `error`, also in an exception group.

    An `OSError` with an errno of `_SCARCE` counts as one: within the agent an attempt uses only the agent's files.
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
