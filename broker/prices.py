"""Prices of requests: what a request costs its payer, in units of some 100 µs of the broker's work. Pure.

A price has two parts: a flat one by its bytes and values, charged when it is decoded, valid or not; and the measured
work once it is done, in the same units (`Done.cost`), with the bytes of the reply. No estimate is charged.

A quota is set in small requests a second; one small request is `UNITS_A_REQUEST`.
"""

from __future__ import annotations

from typing import Final

UNITS_A_REQUEST: Final = 2  # of submitting or leasing one job: 1 to decode, 1 in the store
VERIFYING_UNITS: Final = 4  # to verify a signature
BYTES_A_UNIT: Final = 4_096  # of a request that is decoded to the last value
VALUES_A_UNIT: Final = 64
EVENT_BYTES_A_UNIT: Final = 65_536  # of events, which are not decoded one by one
REPLY_BYTES_A_UNIT: Final = 16_384  # a reply waits in memory while its peer does not read: by default 31 MiB/s


def price_of_decoding(size_bytes: int, values: int, *, events: bool) -> int:
    """Price of decoding a body with this many bytes and values; `events`: it consists mostly of events."""
    return 1 + size_bytes // (EVENT_BYTES_A_UNIT if events else BYTES_A_UNIT) + values // VALUES_A_UNIT


def price_of_reply(size_bytes: int) -> int:
    """Price of sending a reply of this many bytes."""
    return size_bytes // REPLY_BYTES_A_UNIT
