"""Instants as people write them: `2027-01-31T03:00:00Z`, or `+90s`, `+10m`, `+1h30m`, `+1d` from now."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from airunner.protocol.durations import duration_ms
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import MILLISECONDS_MAX

EXPECTED: Final = "expected an instant with its offset, such as 2027-01-31T03:00:00Z, or a time from now such as +10m"


def instant_ms(text: str, now_ms: int) -> int:
    """Parse an instant to ms since the epoch; `now_ms` is this machine's time.

    Raises `OperatorError` for anything else, and for an instant without an offset from UTC.
    """
    if text.startswith("+"):
        try:
            return now_ms + duration_ms(text[1:], plain_seconds=False)
        except OperatorError as error:
            raise OperatorError(f"{text!r}: {EXPECTED}") from error
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
