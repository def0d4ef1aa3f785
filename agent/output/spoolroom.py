"""How much of the disk all spools of an agent take together."""

from __future__ import annotations

from typing import Final

LOW_SHARE: Final = 2  # once full it has room again when half of it is free


class SpoolRoom:
    """Counted in bytes by whoever writes and gives back."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._full = False

    @property
    def full(self) -> bool:
        """Whether nothing more is to be written for now."""
        if self._bytes >= self._bytes_max:
            self._full = True
        elif self._bytes <= self._bytes_max // LOW_SHARE:
            self._full = False
        return self._full

    def account(self, size: int) -> None:
        """So much was written; given back, where it is negative."""
        self._bytes += size
