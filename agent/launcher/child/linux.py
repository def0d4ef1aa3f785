"""Process attributes of prctl(2) that launcher and keeper need. Linux only; standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36


def become_subreaper() -> None:
    """Make orphans among this process's descendants its children. A fork does not inherit the setting."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def call_me_when_my_parent_dies(number: signal.Signals) -> None:
    """Ask the kernel to send this process signal `number` when its parent dies. A fork does not inherit this."""
    _prctl(_PR_SET_PDEATHSIG, number)


def set_name(name: str) -> None:
    """Set the process's name in ps(1), 15 bytes at most."""
    buffer = ctypes.create_string_buffer(name.encode())
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(argument), unused, unused, unused):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
