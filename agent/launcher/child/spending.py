"""Spending: the resources of a job's processes, added up as they are reaped. Child's half: standard library only.

The kernel hands the figures of a process, and of those that it has reaped itself, to its reaper. Every process of a job
whose parent is gone is reaped by its keeper, so that none is missed and none counted twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import resource

_BLOCK_BYTES: Final = 512  # of getrusage(2), whatever the disk's own are
_KIB: Final = 1_024
_MS: Final = 1_000


class Spending:
    """Spending of one job."""

    def __init__(self) -> None:
        self._user_s = self._system_s = 0.0
        self._peak_bytes = self._read_bytes = self._written_bytes = 0

    def add(self, used: resource.struct_rusage) -> None:
        """Add a process that has ended."""
        self._user_s += used.ru_utime
        self._system_s += used.ru_stime
        self._peak_bytes = max(self._peak_bytes, used.ru_maxrss * _KIB)
        self._read_bytes += used.ru_inblock * _BLOCK_BYTES
        self._written_bytes += used.ru_oublock * _BLOCK_BYTES

    @property
    def figures(self) -> list[int]:
        """The sums in the order of the contract's `Spent`."""
        times = [round(self._user_s * _MS), round(self._system_s * _MS)]
        return [*times, self._peak_bytes, self._read_bytes, self._written_bytes]
