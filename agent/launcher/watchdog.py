"""Keeper processes as the agent sees them: whether a keeper is stopped, and signals that continue or kill it.

A job may stop its own keeper (SIGSTOP), and the agent would wait for ever. `local.py` and `process.py` decide when to
signal. A keeper is not the agent's child, so it is identified by its process id and start time.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

from airunner.agent.launcher.child.tree import Status, status_of

_STOPPED: Final = (b"T", b"t")  # states of a process that a signal or a tracer has stopped


class KeeperProcess:
    """Keeper process `pid`, which must be alive when this object is made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        status = status_of(pid)
        self._began = status and status.began

    @property
    def stopped(self) -> bool:
        """Whether a signal or a tracer has stopped the process."""
        status = self._status()
        return status is not None and status.state in _STOPPED

    def wake(self) -> None:
        """Continue the process, if it is stopped (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(OSError):  # the process is gone
            descriptor = os.pidfd_open(self._pid)
            try:
                if self._status() is not None:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _status(self) -> Status | None:
        """Return the keeper's status; None: it is gone, and its process id may be another's."""
        status = status_of(self._pid)
        return status if status is not None and status.began == self._began else None
