"""Ids sort by time; tokens are the same again and never stored."""

from __future__ import annotations

from collections.abc import Callable
from uuid import RFC_4122, UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.names import (
    NAME_CHARS_MAX,
    REQUEST_ID_BYTES,
    Name,
    TagValue,
    Variable,
    fits_name,
    fits_tag_value,
    fits_variable,
    new_job_id,
    new_request_id,
    task_token,
    token_hash,
)


@given(st.binary(min_size=16, max_size=16))
def test_a_job_id_is_a_random_uuid_from_its_first_character(randomness: bytes):
    number = UUID(job_id := new_job_id(randomness))
    assert str(number) == job_id
    assert (number.version, number.variant, number.bytes[:6]) == (4, RFC_4122, randomness[:6])


@given(st.integers(0, 2**48 - 2), st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_a_request_id_sorts_by_time_and_keeps_all_randomness(now_ms: int, randomness: bytes, other: bytes):
    request_id = new_request_id(now_ms, randomness)
    assert (len(request_id), request_id[6:]) == (REQUEST_ID_BYTES, randomness)
    assert request_id < new_request_id(now_ms + 1, other)


def test_randomness_is_used_to_the_last_byte():
    assert len({new_job_id(bytes([0] * at + [255] + [0] * (15 - at))) for at in range(16)}) == 16


def test_a_grants_token_is_the_same_again_and_no_other():
    seed = bytes(32)
    assert task_token(seed, "job", 1) == task_token(seed, "job", 1)
    tokens = {task_token(seed, "job", 1), task_token(seed, "job", 2), task_token(seed, "jo", 1)}
    tokens |= {task_token(bytes([1] * 32), "job", 1), bytes(token_hash(task_token(seed, "job", 1)))}
    assert len(tokens) == 5
    assert {len(token) for token in tokens} == {32}


@pytest.mark.parametrize("name", ["", "-x", "a b", "a;b", "a\n", "x" * 129, "é"])
def test_a_name_needs_no_quotes(name: str):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, Name)
    assert msgspec.convert("ada@example.org/ci:1", Name)


@pytest.mark.parametrize(("kind", "fits"), [(Name, fits_name), (TagValue, fits_tag_value), (Variable, fits_variable)])
@given(text=st.text(max_size=NAME_CHARS_MAX + 2) | st.from_regex(r"[a-z_][a-z0-9.@:/+-]{0,130}", fullmatch=True))
def test_what_fits_is_what_a_message_takes(kind: object, fits: Callable[[str], bool], text: str):
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        assert not fits(text)
    else:
        assert fits(text)
