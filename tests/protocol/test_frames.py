"""An envelope is what it should be, or refused before it is looked into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.errors import BadRequest, Unsupported
from airunner.protocol.frames import (
    BODY_BYTES_MAX,
    TOKEN_BYTES_MAX,
    VERSION,
    RequestFrames,
    answerable,
    pack_reply,
    pack_request,
    unpack_reply,
    unpack_request,
)
from airunner.protocol.names import RequestId

ID = RequestId(b"i" * 16)


def test_a_request_and_a_reply_come_out_as_they_went_in():
    assert unpack_request(pack_request(ID, b"token", b"body")) == RequestFrames(ID, b"token", b"body")
    assert unpack_reply(pack_reply(ID, b"body")) == (ID, b"body")


@pytest.mark.parametrize("unpack", [unpack_request, unpack_reply])
@pytest.mark.parametrize("frames", [[], [b""], [b"AR2", ID, b"", b""]])
def test_another_version_is_unsupported(unpack, frames: list[bytes]):
    with pytest.raises(Unsupported):
        unpack(frames)


@pytest.mark.parametrize(
    "frames",
    [
        [VERSION],
        [VERSION, ID, b""],
        [VERSION, ID, b"", b"", b""],
        [VERSION, ID[:-1], b"", b""],
        [VERSION, ID, b"t" * (TOKEN_BYTES_MAX + 1), b""],
        [VERSION, ID, b"", b"b" * (BODY_BYTES_MAX + 1)],
    ],
    ids=["one", "three", "five", "short id", "long token", "long body"],
)
def test_a_request_out_of_bounds_is_refused(frames: list[bytes]):
    with pytest.raises(BadRequest):
        unpack_request(frames)


@pytest.mark.parametrize(
    "frames",
    [[VERSION], [VERSION, ID, b"", b""], [VERSION, b"", b""], [VERSION, ID, b"b" * (BODY_BYTES_MAX + 1)]],
    ids=["one", "four", "no id", "long body"],
)
def test_a_reply_out_of_bounds_is_refused(frames: list[bytes]):
    with pytest.raises(BadRequest):
        unpack_reply(frames)


def test_a_refusal_finds_the_id_where_there_is_one():
    assert answerable([VERSION, ID]) == ID
    assert answerable([VERSION, b"short"]) is None
    assert answerable([VERSION]) is None
    assert answerable([b"AR2", ID]) is None


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_garbage_is_refused_and_nothing_worse(frames: list[bytes]):
    for unpack in (unpack_request, unpack_reply):
        with pytest.raises((BadRequest, Unsupported)):
            unpack([frame.replace(VERSION, b"") for frame in frames])
