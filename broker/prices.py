"""Prices of decoding a request and of sending its reply, in units of some 100 µs of the broker's work. Pure.

A tenant is charged for decoding its request, valid or not, by bytes and values; for the measured work (`Done.cost`)
each time that the store tried the request; and for the reply, by its bytes.

Operators set a quota in small requests a second; one small request is `UNITS_A_REQUEST`.
"""

from __future__ import annotations

from typing import Final

UNITS_A_REQUEST: Final = 2  # units of a small request (one job submitted or leased): 1 to decode, 1 in the store
VERIFYING_UNITS: Final = 4  # units of verifying a token's signature
BYTES_A_UNIT: Final = 4_096  # bytes of a request's body that are decoded in a unit
VALUES_A_UNIT: Final = 64  # msgpack values of a body that are decoded in a unit
EVENT_BYTES_A_UNIT: Final = 65_536  # bytes of published events in a unit: events are not decoded one by one
BLOB_BYTES_A_UNIT: Final = 262_144  # bytes of blobs in a unit, from a bucket of their own: 500 MB/s by default
SEARCHED_BYTES_A_UNIT: Final = 4_194_304  # bytes of a log, decompressed, searched in a unit
"""A search is outside of the event loop, one at a time. At 1 GB/s it and the reading of what it searches, which
the store counts, take half of the default quota: so none of the tenant's other requests is refused meanwhile."""
REPLY_BYTES_A_UNIT: Final = 49_152  # bytes of replies in a unit, as measured: with the default quota, 94 MiB/s


def price_of_decoding(size_bytes: int, values: int, *, bulk: bool, blobs: bool = False) -> int:
    """Return the price of decoding a body with so many bytes and values; `bulk`: mostly events; `blobs`: or blobs."""
    bytes_a_unit = BLOB_BYTES_A_UNIT if blobs else EVENT_BYTES_A_UNIT if bulk else BYTES_A_UNIT
    return 1 + size_bytes // bytes_a_unit + values // VALUES_A_UNIT


def price_of_reply(size_bytes: int) -> int:
    """Return the price of sending a reply of this many bytes."""
    return size_bytes // REPLY_BYTES_A_UNIT


def price_of_search(size_bytes: int) -> int:
    """Return the price of a search in this many bytes of a log, decompressed."""
    return size_bytes // SEARCHED_BYTES_A_UNIT
