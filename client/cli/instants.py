"""Instants of options and job files: RFC 3339, a time from now or ago, or milliseconds since the epoch."""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from typing import Final

from airunner.protocol.durations import duration_ms
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import MILLISECONDS_MAX

_MS: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
MS_DIGITS_MIN: Final = 12  # of a future instant: shorter numbers are seconds since the epoch, or a date


class Side(Enum):
    """Side of the present on which an instant lies if it is written as a duration."""

    FUTURE = "an instant such as 2027-01-31T03:00:00Z, a time from now such as +10m, or ms since the epoch"
    PAST = "an instant such as 2027-01-31T03:00:00Z, a time ago such as 10m, or ms since the epoch"


def instant_ms(text: str, side: Side, now_ms: int, expected: str = "") -> int:
    """Parse an instant into ms since the epoch; durations count from `now_ms`.

    Raises `OperatorError`, which says what is `expected`: by default the side's notations.
    """
    expected = f"{text!r}: expected {expected or side.value}"
    if _MS.fullmatch(text):
        if side is Side.FUTURE and len(text) < MS_DIGITS_MIN:
            raise OperatorError(f"{expected}, which have {MS_DIGITS_MIN} digits or more")
        ms = int(text)
    elif (length := _duration(text, side)) is not None:
        ms = now_ms + length if side is Side.FUTURE else max(0, now_ms - length)
    else:
        try:
            instant = datetime.fromisoformat(text.upper())
        except ValueError as error:
            raise OperatorError(expected) from error
        if instant.tzinfo is None:
            raise OperatorError(
                f"{text!r} does not say how far it is from UTC: write {instant.isoformat()}Z, or an offset such as "
                "+01:00 in place of the Z"
            )
        ms = int(instant.timestamp() * 1_000)
    if not 0 <= ms <= MILLISECONDS_MAX:
        raise OperatorError(expected)
    return ms


def past_ms(option: str, text: str | None, now_ms: int) -> int | None:
    """Parse an option's instant of the past, if it is given. Raises `OperatorError`, which names the option."""
    try:
        return None if text is None else instant_ms(text, Side.PAST, now_ms)
    except OperatorError as error:
        raise OperatorError(f"{option} {error.message}") from error


def _duration(text: str, side: Side) -> int | None:
    """Parse a duration on a side of the present: `10m`, `+10m`, or `10m`, `-10m`, `10m ago`; None: it is not one."""
    length = text.removeprefix("+") if side is Side.FUTURE else text.removeprefix("-").removesuffix("ago").rstrip()
    try:
        return duration_ms(length, plain="")
    except OperatorError:
        return None
