"""Instants as people write them."""

from __future__ import annotations

import pytest

from airunner.client.cli.instants import Side, instant_ms
from airunner.protocol.errors import OperatorError

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "side", "ms"),
    [
        ("2027-01-31T03:00:00Z", Side.FUTURE, 1_801_364_400_000),
        ("2027-01-31t03:00:00.5z", Side.PAST, 1_801_364_400_500),
        ("2027-01-31 04:00:00+01:00", Side.FUTURE, 1_801_364_400_000),
        ("1801364400000", Side.FUTURE, 1_801_364_400_000),
        ("0", Side.PAST, 0),
        ("+10m", Side.FUTURE, NOW_MS + 600_000),
        ("1h30m", Side.FUTURE, NOW_MS + 5_400_000),
        ("1w", Side.PAST, NOW_MS - 604_800_000),
        ("-10m", Side.PAST, NOW_MS - 600_000),
        ("10m ago", Side.PAST, NOW_MS - 600_000),
        ("9000w", Side.PAST, 0),
    ],
)
def test_an_instant_is_rfc_3339_or_a_duration_from_now_or_milliseconds(text: str, side: Side, ms: int) -> None:
    assert instant_ms(text, side, NOW_MS) == ms


@pytest.mark.parametrize(
    ("text", "side", "message"),
    [
        ("noon", Side.FUTURE, "'noon': expected an instant such as 2027-01-31T03:00:00Z, a time from now such as +10m"),
        ("noon", Side.PAST, "'noon': expected an instant such as 2027-01-31T03:00:00Z, a time ago such as 10m"),
        ("10m ago", Side.FUTURE, "'10m ago': expected an instant"),
        ("+10m", Side.PAST, "'+10m': expected an instant"),
        ("1801364400", Side.FUTURE, "'1801364400': expected an instant"),
        ("+90", Side.FUTURE, "'+90': expected an instant"),
        ("1969-12-31T23:59:59Z", Side.PAST, "'1969-12-31T23:59:59Z': expected an instant"),
        ("9" * 17, Side.FUTURE, "expected an instant"),
        ("2027-03-29", Side.FUTURE, "does not say how far it is from UTC: write 2027-03-29T00:00:00Z"),
        ("2027-03-29T10:00", Side.PAST, "does not say how far it is from UTC: write 2027-03-29T10:00:00Z"),
    ],
)
def test_what_is_no_instant_is_refused_with_what_to_write(text: str, side: Side, message: str) -> None:
    with pytest.raises(OperatorError) as error:
        instant_ms(text, side, NOW_MS)
    assert message in error.value.message
