"""Byte ranges of an answer (RFC 9110, section 14): which bytes a `Range` header wants. Pure.

One range is served. Several at once, another unit and what is no range are ignored, as the standard allows: then the
whole answer is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

TAG_BYTES: Final = 12  # of an `ETag`
RANGE: Final[Mapping[str, object]] = {
    "type": "string",
    "description": "Bytes: bytes=0-99, bytes=100- or the last, bytes=-100.",
}
"""Schema of the header."""
_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII)


class WantedBytes(Struct, frozen=True):
    """Bytes that a header wants: from `first` to `last`, both included; without `first` the `last` bytes of all."""

    first: int | None
    last: int | None

    def of(self, length: int) -> range | None:
        """Return the positions of these bytes in an answer of some length; None: there are none."""
        if self.first is None:
            assert self.last is not None, "a range without both ends is none"
            found = range(max(0, length - self.last), length)
        else:
            found = range(self.first, length if self.last is None else min(length, self.last + 1))
        return found or None


def wanted_bytes(header: str) -> WantedBytes | None:
    """Read a `Range` header; None: it is not there, or ignored."""
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (int(digits) if digits else None for digits in found.groups())
    return None if first is not None and last is not None and last < first else WantedBytes(first, last)
