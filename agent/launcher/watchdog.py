"""Watchdog for keepers that do not answer: a job may stop its own, and a wait for it would never end.

A stopped keeper is woken, and killed where that does not help; its job's processes are then found by their mark. The
agent's half: a keeper is the launcher's child and not ours, so it is known by its process id and its start time.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

from airunner.agent.launcher.child.tree import Status, status_of

_STOPPED: Final = (b"T", b"t")  # by a signal, or by its tracer


class KeeperProcess:
    """Keeper process, which lives when this is made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        status = status_of(pid)
        self._began = status and status.began

    @property
    def stopped(self) -> bool:
        """Whether a signal or a tracer has stopped it."""
        status = self._status()
        return status is not None and status.state in _STOPPED

    def wake(self) -> None:
        """Continue it, if it was stopped."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(OSError):  # it is gone
            descriptor = os.pidfd_open(self._pid)
            try:
                if self._status() is not None:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _status(self) -> Status | None:
        """Return its status; None: it is gone, and its process id may be another's."""
        status = status_of(self._pid)
        return status if status is not None and status.began == self._began else None
