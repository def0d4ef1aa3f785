"""Kernel timers as file descriptors: timerfd_create(2), which Python has only from 3.13 on. Standard library only.

`BootTimer` goes off at an instant of CLOCK_BOOTTIME, which counts on while the machine sleeps: after a sleep it goes
off at once, where a wait with a timeout would last longer by the time asleep. `StepTimer` goes off when the machine's
time is set, or when the machine wakes up, which sets it too.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from contextlib import suppress
from typing import Final

BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS: its monotonic clock counts sleep in
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME
_CANCEL_ON_SET: Final = 2  # TFD_TIMER_CANCEL_ON_SET
_COUNT_BYTES: Final = 8  # of how often it went off
_NEVER_S: Final = 9_000_000_000  # seconds since 1970; the kernel counts nanoseconds in 63 bits


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def boot_s() -> float:
    """Seconds of the clock that no sleep of the machine stops and nobody sets."""
    return time.clock_gettime(BOOT_CLOCK)


class _Timer:
    """One timerfd; its descriptor is readable from the instant on that was `_set`."""

    def __init__(self, clock: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            self._fail("timerfd_create")

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.descriptor)

    def _set(self, instant_s: float, flags: int) -> None:
        whole_s = math.floor(instant_s)
        value = _Timespec(whole_s, int((instant_s - whole_s) * 1e9))
        if self._libc.timerfd_settime(self.descriptor, flags, ctypes.byref(_Setting(_Timespec(0, 0), value)), None):
            self._fail("timerfd_settime")

    @staticmethod
    def _fail(call: str) -> None:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


class BootTimer(_Timer):
    """Readable from an instant of CLOCK_BOOTTIME on, until another is set."""

    def __init__(self) -> None:
        super().__init__(BOOT_CLOCK)
        self._instant_s = math.inf

    def set(self, instant_s: float) -> None:
        """Go off at `instant_s`, as `boot_s` counts; inf: not at all."""
        if instant_s != self._instant_s:
            self._instant_s = instant_s
            self._set(0.0 if instant_s == math.inf else max(instant_s, 1e-9), _ABSOLUTE)  # 0 would disarm it


class StepTimer(_Timer):
    """Readable once the machine's time has been set, or the machine has woken up."""

    def __init__(self) -> None:
        super().__init__(time.CLOCK_REALTIME)
        self._set(_NEVER_S, _ABSOLUTE | _CANCEL_ON_SET)

    def again(self) -> None:
        """Wait for the next step; the timer stays set."""
        with suppress(OSError):  # ECANCELED: what it is for
            os.read(self.descriptor, _COUNT_BYTES)
