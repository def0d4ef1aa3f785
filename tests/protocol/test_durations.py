"""Durations as people write them."""

from __future__ import annotations

import pytest

from airunner.protocol.durations import days_up_to, duration_ms, seconds_between, whole_seconds
from airunner.protocol.errors import OperatorError


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90", 90_000),
        ("0", 0),
        ("1.5", 1_500),
        ("250ms", 250),
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("1.1s", 1_100),
        ("1d12h", 129_600_000),
        ("2w", 1_209_600_000),
        ("1m1ms", 60_001),
    ],
)
def test_a_duration_is_numbers_and_units_and_a_lone_number_is_seconds(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "+1s", "1 h", "1H", "1y", "1h30", "1e3", ".5s", "1.s", "1h1h", "30m1h", "9999999999999w"]
)
def test_another_way_of_writing_is_refused_in_words(text: str) -> None:
    with pytest.raises(OperatorError) as error:
        duration_ms(text)
    assert repr(text) in error.value.message
    with pytest.raises(OperatorError, match="a number and a unit"):
        duration_ms("90", plain="")


def test_seconds_of_a_flag_have_bounds_and_the_flag_is_named() -> None:
    read = seconds_between("--grace", 1, 100)
    assert (read("1m30s"), read(10), read("1.5")) == (90, 10, 1.5)
    for text in ("0", "101", "2m", "soon"):
        with pytest.raises(OperatorError, match=f"--grace.*{text}"):
            read(text)
    days = days_up_to("--retain-days", 10)
    assert (days("2.5"), days(7.0), days("1w"), days("12h"), days("0")) == (2.5, 7, 7, 0.5, 0)
    for text in ("11", "2w", "-1", "nan"):
        with pytest.raises(OperatorError, match=f"--retain-days.*{text}"):
            days(text)
    assert whole_seconds("1m30s") == 90
    with pytest.raises(OperatorError, match="whole seconds"):
        whole_seconds("1.5s")
