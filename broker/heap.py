"""Heap of the broker's process: from its first search on, memory that is freed is kept for the next use.

glibc returns free memory at the end of a heap once it exceeds a bound, and the kernel clears each page of it when it is
used again. A search frees and allocates half a MiB with each segment: page faults were a fifth of its time.

Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, which follow the largest mapped block that was freed.
"""

from __future__ import annotations

from typing import Final

KEPT_BYTES: Final = 8_388_608  # free memory that a thread's heap keeps: more than a search has in use at once


def keep_freed_memory() -> None:
    """Keep up to `KEPT_BYTES` of free memory in each heap: glibc keeps twice the largest block that was freed.

    The block is mapped and never touched. Elsewhere than with glibc this has no effect.
    """
    bytes(KEPT_BYTES // 2)
