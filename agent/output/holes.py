"""Holes in files: free the disk space of a file's beginning while its end is still written. Linux only.

Punching a hole needs no free disk space; copying the rest of the file would. Some file systems have no holes.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_KEEP_SIZE: Final = 1  # flag of fallocate(2)
_PUNCH_HOLE: Final = 2  # flag of fallocate(2)
_SEEK_BYTES: Final = 65_536  # bytes read at a time


def punch(descriptor: int, begin: int, end: int) -> None:
    """Punch a hole: the bytes from `begin` up to `end` become zeros, and every whole page of them is freed.

    Raises `OSError`, for example when the file system has no holes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", libc.fallocate)
    if fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_int64(begin), ctypes.c_int64(end - begin)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def after_zeros(descriptor: int, begin: int) -> int:
    """Return the offset of the first byte from `begin` on that is not zero, or the file's size. Raises `OSError`."""
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
            except OSError:  # no data follows, or the file system does not have SEEK_DATA
                continue
    return size
