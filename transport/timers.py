"""Timers of the kernel as file descriptors: timerfd_create(2), which Python has only since 3.13. Standard library only.

`BootTimer` fires at an instant of CLOCK_BOOTTIME, which counts on while the machine sleeps: an instant that passed
during the sleep fires at once, while a wait with a timeout would last longer by the time asleep. `StepTimer` fires at a
step of the machine's clock: when its time is set, or the machine wakes up, which sets the time too.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from contextlib import suppress
from typing import Final

BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS: its monotonic clock includes sleep
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME
_CANCEL_ON_SET: Final = 2  # TFD_TIMER_CANCEL_ON_SET
_COUNT_BYTES: Final = 8  # size of what read(2) returns, the number of expirations
_NEVER_S: Final = 9_000_000_000  # the year 2255 in seconds since 1970; 63 bits of nanoseconds end in 2262


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    """C structure `struct itimerspec`."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def boot_s() -> float:
    """Return the seconds of a clock that counts on during sleep and is never set."""
    return time.clock_gettime(BOOT_CLOCK)


class _Timer:
    """Timer on one timerfd: its descriptor becomes readable when the timer fires."""

    def __init__(self, clock: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            self._fail("timerfd_create")

    def close(self) -> None:
        """Close the descriptor."""
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
    """Timer that fires at an instant of CLOCK_BOOTTIME and stays readable until another instant is set."""

    def __init__(self) -> None:
        super().__init__(BOOT_CLOCK)
        self._instant_s = math.inf

    def set(self, instant_s: float) -> None:
        """Set the instant, by the clock of `boot_s`; inf: never."""
        if instant_s != self._instant_s:
            self._instant_s = instant_s
            self._set(0.0 if instant_s == math.inf else max(instant_s, 1e-9), _ABSOLUTE)  # 0 disarms


class StepTimer(_Timer):
    """Timer that fires at each step of the machine's clock."""

    def __init__(self) -> None:
        super().__init__(time.CLOCK_REALTIME)
        self._set(_NEVER_S, _ABSOLUTE | _CANCEL_ON_SET)

    def clear(self) -> None:
        """Clear the step that made the descriptor readable, so that the next step makes it readable again."""
        with suppress(OSError):  # ECANCELED: the expected result
            os.read(self.descriptor, _COUNT_BYTES)
