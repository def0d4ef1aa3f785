"""Heap of a process: what becomes of memory that is freed.

A broker returns a block from `RETURNED_BYTES` on, such as a large batch of events, to the kernel when it is freed, so
it stays small. From the first search or transfer of files on, a process keeps what is freed: these need half a MiB or
more at a time, and to have the kernel clear each page of it again took a fifth of a search's time, and a third of a
transfer's.

Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD. Elsewhere than with glibc nothing here has an effect.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Final

RETURNED_BYTES: Final = 262_144  # of a block that is returned when it is freed
KEPT_BYTES: Final = 8_388_608  # larger than any block; free memory that a heap keeps, unless its user needs more
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def return_freed_memory() -> None:
    """Return large blocks to the kernel when they are freed."""
    _set(_MMAP_THRESHOLD, RETURNED_BYTES)


@cache
def keep_freed_memory(kept_bytes: int = KEPT_BYTES) -> None:
    """Keep up to `kept_bytes` of free memory in each heap, one of a thread, from the first call on."""
    _set(_MMAP_THRESHOLD, KEPT_BYTES)
    _set(_TRIM_THRESHOLD, kept_bytes)


def _set(option: int, value: int) -> None:
    import ctypes  # some ms, which a process that moves no files does not pay

    with suppress(AttributeError, OSError):  # no glibc
        ctypes.CDLL(None).mallopt(option, value)
