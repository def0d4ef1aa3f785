"""Holes in files: free the disk space of a file's beginning while its end is still written. Linux only.

It needs no room itself, where a copy of what is kept would need as much again. Not every file system can do it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_KEEP_SIZE: Final = 1  # fallocate(2)
_PUNCH_HOLE: Final = 2
_SEEK_BYTES: Final = 65_536


def punch(descriptor: int, begin: int, end: int) -> None:
    """Punch a hole: the bytes from `begin` up to `end` become zeros that take no space, but for parts of pages.

    Raises `OSError` where this file system has no holes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", libc.fallocate)
    if fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_int64(begin), ctypes.c_int64(end - begin)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def after_zeros(descriptor: int, begin: int) -> int:
    """Find the first byte from `begin` on that is not zero; the file's end where there is none. Raises `OSError`."""
    size = os.fstat(descriptor).st_size
    at = begin
    while at < size:
        chunk = os.pread(descriptor, _SEEK_BYTES, at)
        rest = chunk.lstrip(b"\0")
        if rest:
            return at + len(chunk) - len(rest)
        at += len(chunk)
        if at < size:
            try:
                at = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:  # no data behind it, or a file system that does not tell
                continue
    return size
