"""Request size: how many bytes of a log one request may move, adapted to the speed of the link.

The size starts small, doubles while replies come soon, and shrinks when replies come late or the connection ends first.
So a request takes a few seconds at most, on any supported link, and messages that wait behind it on the connection (a
heartbeat, the reply to a Ping) arrive in time. This is slow start (RFC 5681), driven by reply times instead of losses.

```
           answered within QUICK_MS: × 2                    16 KiB ≤ bytes_max ≤ 1 MiB
 32 KiB ───────────────────────────────►  …
           answered after SLOW_MS: ÷ 2       the connection ended first: ÷ 4
```
"""

from __future__ import annotations

from typing import Final

from airunner.protocol.blobs import REQUEST_BYTES_MAX as BLOBS_BYTES_MAX

REQUEST_BYTES_MIN: Final = 16_384  # two seconds on the slowest supported link, 8 KB/s
REQUEST_BYTES_FIRST: Final = 32_768
REQUEST_BYTES_MAX: Final = 1_048_576  # fits in one frame, together with the last batch, which may exceed it
QUICK_MS: Final = 2_000  # longer than a satellite link's round trip, and no longer than the wait for a Ping
SLOW_MS: Final = 4_000


class RequestSize:
    """Request size of one channel, shared by all its users."""

    def __init__(self) -> None:
        self.bytes_max = REQUEST_BYTES_FIRST

    @property
    def blobs_bytes_max(self) -> int:
        """How many bytes of blobs one request may move: two large ones, if the link carries the largest requests."""
        return BLOBS_BYTES_MAX if self.bytes_max == REQUEST_BYTES_MAX else self.bytes_max

    def answered(self, size_bytes: int, took_ms: int) -> None:
        """Adjust the size after a request that moved `size_bytes`, either way, was answered in `took_ms`.

        A request that moved less than half of the size does not show that the link could carry more.
        """
        if took_ms >= SLOW_MS:
            self.bytes_max = max(REQUEST_BYTES_MIN, self.bytes_max // 2)
        elif took_ms <= QUICK_MS and 2 * size_bytes >= self.bytes_max:
            self.bytes_max = min(REQUEST_BYTES_MAX, 2 * self.bytes_max)

    def cut_off(self, waited_ms: int) -> None:
        """Reduce the size after a request that was not answered in `waited_ms` and is not waited for any longer.

        A lease may have ended meanwhile, because its heartbeat waited behind the reply.
        """
        if waited_ms >= QUICK_MS:
            self.broken()

    def broken(self) -> None:
        """Reduce the size after the connection ended before the reply came."""
        self.bytes_max = max(REQUEST_BYTES_MIN, self.bytes_max // 4)
