"""Spool room: the disk space that the spools of an agent's attempts share. Spools in recovery do not count."""

from __future__ import annotations

from typing import Final

LOW_SHARE: Final = 2  # once full, the room counts as full until at most 1/2 of it is in use


class SpoolRoom:
    """Spool room of `bytes_max` bytes. Each outbox accounts for the unacknowledged bytes of its spool."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self._full = False

    @property
    def full(self) -> bool:
        """Whether the spools have reached the limit, and have not come down to half of it since."""
        if self.used_bytes >= self.bytes_max:
            self._full = True
        elif self.used_bytes <= self.bytes_max // LOW_SHARE:
            self._full = False
        return self._full

    def account(self, size: int) -> None:
        """Account for `size` bytes written (negative: freed)."""
        self.used_bytes += size
