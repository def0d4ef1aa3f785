"""Prices: what a request costs its payer, in units of some 100 µs of the broker's work. Pure.

Two parts: a flat price by its bytes and values, charged when it is decoded whatever it turns out to be; and the work
that was measured once it is done, in the same units (`Done.cost`), with the bytes of the reply. Nobody pays for a
guess.

A quota is set in small requests a second; one of those is `UNITS_A_REQUEST`.
"""

from __future__ import annotations

from typing import Final

UNITS_A_REQUEST: Final = 2  # of submitting or leasing one job: 1 to decode, 1 in the store
VERIFYING_UNITS: Final = 4  # a signature takes as long as four other things
BYTES_A_UNIT: Final = 4_096  # of a request that is decoded to the last value
VALUES_A_UNIT: Final = 64
EVENT_BYTES_A_UNIT: Final = 65_536  # of events, which are looked at as a whole
REPLY_BYTES_A_UNIT: Final = 16_384  # what is sent waits in memory while its peer does not read: by default 31 MiB/s


def price_of_decoding(size_bytes: int, values: int, *, events: bool) -> int:
    """What a body of so many bytes and values costs, whatever it asks; `events`: most of it are some."""
    return 1 + size_bytes // (EVENT_BYTES_A_UNIT if events else BYTES_A_UNIT) + values // VALUES_A_UNIT


def price_of_reply(size_bytes: int) -> int:
    """What a reply of so many bytes costs."""
    return size_bytes // REPLY_BYTES_A_UNIT
