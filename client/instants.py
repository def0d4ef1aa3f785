"""Instants as people write them: `2027-01-31T03:00:00Z`, or `+90s`, `+10m`, `+2h`, `+1d` from now."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from airunner.protocol.errors import OperatorError
from airunner.protocol.names import MILLISECONDS_MAX

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_FROM_NOW: Final = re.compile(r"\+(\d{1,9})([smhd])\Z")
EXPECTED: Final = "expected an instant with its offset, such as 2027-01-31T03:00:00Z, or a time from now such as +10m"


def instant_ms(text: str, now_ms: int) -> int:
    """The instant in ms since the epoch; `now_ms` is this machine's.

    Raises `OperatorError` for anything else, and for an instant that does not say how far it is from UTC.
    """
    if found := _FROM_NOW.match(text):
        return now_ms + int(found[1]) * _UNITS_MS[found[2]]
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise OperatorError(f"{text!r}: {EXPECTED}") from error
    if instant.tzinfo is None:
        raise OperatorError(f"{text!r} does not say how far it is from UTC; end it with Z, or an offset such as +01:00")
    ms = int(instant.timestamp() * 1_000)
    if not 0 <= ms <= MILLISECONDS_MAX:
        raise OperatorError(f"{text!r}: {EXPECTED}")
    return ms
