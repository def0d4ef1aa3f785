"""Spending: the resources that a job's processes used, summed as they are reaped. Standard library only.

When a process is reaped, the kernel reports its resources and those of the children that it had reaped. A process whose
parent has died is reaped by the keeper. So each process counts once; one whose parent ignored SIGCHLD does not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import resource

_BLOCK_BYTES: Final = 512  # unit of getrusage(2), whatever the disk's block size
_KIB: Final = 1_024
_MS: Final = 1_000


class Spending:
    """Spending of one job: the sums over its processes that have ended."""

    def __init__(self) -> None:
        self._user_s = self._system_s = 0.0
        self._peak_bytes = self._read_bytes = self._written_bytes = 0

    def add(self, used: resource.struct_rusage) -> None:
        """Add the resources of a process that has ended."""
        self._user_s += used.ru_utime
        self._system_s += used.ru_stime
        self._peak_bytes = max(self._peak_bytes, used.ru_maxrss * _KIB)
        self._read_bytes += used.ru_inblock * _BLOCK_BYTES
        self._written_bytes += used.ru_oublock * _BLOCK_BYTES

    @property
    def figures(self) -> list[int]:
        """The sums in the order of the fields of `Spent` (contract.py)."""
        times = [round(self._user_s * _MS), round(self._system_s * _MS)]
        return [*times, self._peak_bytes, self._read_bytes, self._written_bytes]
