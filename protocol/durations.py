"""Duration parser for flags and job files: `90s`, `15m`, `1h30m`, `1.5h`, `7d`.

The units ms, s, m and h are written as docker and kubectl write them (Go's `time.ParseDuration`); d and w are days and
weeks. Each is there once at most, the largest first: `30m1h` is most often mistyped. A number without a unit counts
seconds, unless the caller says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Final, TypeVar

from airunner.protocol.errors import OperatorError
from airunner.protocol.names import MILLISECONDS_MAX

_Read = TypeVar("_Read")

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_NUMBER: Final = r"[0-9]{1,16}(?:\.[0-9]{1,9})?"
_PIECE: Final = re.compile(rf"({_NUMBER})(ms|[smhdw])", re.ASCII)
_WHOLE: Final = re.compile("(?=.)" + "".join(f"(?:{_NUMBER}{unit})?" for unit in reversed(_UNITS_MS)), re.ASCII)
_SECONDS: Final = re.compile(_NUMBER, re.ASCII)
EXPECTED: Final = "a number and a unit, as in 90s, 15m, 1h30m or 7d"


class TooLongError(OperatorError):
    """Duration beyond what a number of ms can hold exactly."""


def duration_ms(text: str, *, plain: str = "s") -> int:
    """Parse a duration into ms; a number alone has the unit `plain`; empty: it is refused. Raises `OperatorError`."""
    with_unit = f"{text}{plain}" if _SECONDS.fullmatch(text) else text
    if not _WHOLE.fullmatch(with_unit):
        raise OperatorError(f"{text!r}: expected {EXPECTED}")
    total = int(sum(Decimal(piece[1]) * _UNITS_MS[piece[2]] for piece in _PIECE.finditer(with_unit)))
    if total > MILLISECONDS_MAX:
        raise TooLongError(f"{text!r} is too long a duration; at most {MILLISECONDS_MAX} ms are allowed")
    return total


def whole_seconds(text: str) -> int:
    """Parse a duration into whole seconds. Raises `OperatorError`, also for a fraction of a second."""
    seconds, rest = divmod(duration_ms(text), 1_000)
    if rest:
        raise OperatorError(f"{text!r}: expected whole seconds")
    return seconds


def of_flag(flag: str, read: Callable[[str], _Read], text: str) -> _Read:
    """Parse the value of the option `flag` with `read`. Raises `OperatorError`, whose message names the option."""
    try:
        return read(text)
    except OperatorError as error:
        raise OperatorError(f"{flag} {error.message}") from error


def seconds_between(flag: str, least: int, most: int) -> Callable[[object], float]:
    """Make a parser for an option's duration, which raises `OperatorError` if it is not `least` to `most` seconds."""

    def read(text: object) -> float:
        ms = of_flag(flag, duration_ms, str(text))
        if not least * 1_000 <= ms <= most * 1_000:
            raise OperatorError(f"{flag} {text}: expected {least} to {most} seconds")
        return ms // 1_000 if ms % 1_000 == 0 else ms / 1_000

    return read


def days_up_to(flag: str, most: int) -> Callable[[object], float]:
    """Make a parser for an option's days, or another duration, of at most `most` days. Raises `OperatorError`."""

    def read(text: object) -> float:
        days = of_flag(flag, partial(duration_ms, plain="d"), str(text)) / _UNITS_MS["d"]
        if days > most:
            raise OperatorError(f"{flag} {text}: expected up to {most} days")
        return days

    return read
