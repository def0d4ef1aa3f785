"""Wakeup pipe: makes signals visible to `poll`, in processes without an event loop. Standard library only."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType


class Wakeup:
    """Wakeup pipe, to which the interpreter writes each caught signal's number. A process may have one at a time."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in signals:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)  # a full pipe ends the wait too
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def watch(self, descriptor: int) -> None:
        """Make `wait` return also when `descriptor` is readable or its other end is closed."""
        self._poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Watch `descriptor` no more."""
        self._poll.unregister(descriptor)

    def wait(self, timeout_ms: int | None = None) -> tuple[set[int], bytes]:
        """Wait; return the watched descriptors that are ready, and the numbers of the signals that were caught."""
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout_ms)}
        if self._reader not in ready:
            return ready, b""
        return ready - {self._reader}, os.read(self._reader, 4_096)

    def close(self) -> None:
        """Close the pipe, in a fork that will make its own."""
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: with a handler the signal neither ends the process nor is lost, and the wakeup pipe reports it."""
