"""Heap of the broker's process: what becomes of memory that is freed.

A block from `RETURNED_BYTES` on, such as a large batch of events, is returned to the kernel when it is freed, so the
broker stays small. From its first search on the heap keeps what is freed: a search frees and allocates half a MiB with
each segment, and to have the kernel clear each page of it again took a fifth of its time.

Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD. Elsewhere than with glibc nothing here has an effect.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

RETURNED_BYTES: Final = 262_144  # of a block that is returned when it is freed
KEPT_BYTES: Final = 8_388_608  # free memory that a thread's heap keeps: more than a search has in use at once
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def return_freed_memory() -> None:
    """Return large blocks to the kernel when they are freed."""
    _set(_MMAP_THRESHOLD, RETURNED_BYTES)


def keep_freed_memory() -> None:
    """Keep up to `KEPT_BYTES` of free memory in each heap."""
    _set(_MMAP_THRESHOLD, KEPT_BYTES)
    _set(_TRIM_THRESHOLD, KEPT_BYTES)


def _set(option: int, value: int) -> None:
    with suppress(AttributeError, OSError):  # no glibc
        ctypes.CDLL(None).mallopt(option, value)
