"""Request size: how many bytes of a log to move with one request, from what the link has carried so far. Pure.

It starts small and doubles while answers come soon, and shrinks when they come late or the connection ends before they
do: so a request is on its way for some seconds at the most, whatever the link, and what waits behind it on the same
connection (a heartbeat, the answer to a Ping) is in time. The idea is slow start's (RFC 5681), with the time that an
answer takes in place of losses.

```
           answered within QUICK_MS: × 2                    16 KiB ≤ bytes_max ≤ 1 MiB
 32 KiB ───────────────────────────────►  …
           answered after SLOW_MS: ÷ 2       the connection ended first: ÷ 4
```
"""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_MIN: Final = 16_384  # two seconds of the slowest link that is provided for, 8 KB/s
REQUEST_BYTES_FIRST: Final = 32_768
REQUEST_BYTES_MAX: Final = 1_048_576  # fits one frame, with the batch that goes beyond it
QUICK_MS: Final = 2_000  # more than the round trip of a satellite's link, and no longer than a Ping is waited for
SLOW_MS: Final = 4_000


class RequestSize:
    """The size that is asked for over one connection, by all that share it."""

    def __init__(self) -> None:
        self.bytes_max = REQUEST_BYTES_FIRST

    def answered(self, size_bytes: int, took_ms: int) -> None:
        """A request that moved so many bytes, either way, was answered after so long.

        One that moved less than half of what it might have shows nothing of what the link carries.
        """
        if took_ms >= SLOW_MS:
            self.bytes_max = max(REQUEST_BYTES_MIN, self.bytes_max // 2)
        elif took_ms <= QUICK_MS and 2 * size_bytes >= self.bytes_max:
            self.bytes_max = min(REQUEST_BYTES_MAX, 2 * self.bytes_max)

    def broken(self) -> None:
        """The connection ended while an answer was owed."""
        self.bytes_max = max(REQUEST_BYTES_MIN, self.bytes_max // 4)
