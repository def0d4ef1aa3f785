"""An envelope is what it should be, or refused before it is looked into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import airunner.protocol.frames as frames_module
from airunner.protocol.errors import BadRequest, Unsupported
from airunner.protocol.frames import (
    BODY_BYTES_MAX,
    FIRST,
    NO_REQUEST,
    REVISION,
    SERVED,
    TOKEN_BYTES_MAX,
    RequestFrames,
    answerable,
    magic,
    pack_reply,
    pack_request,
    unpack_reply,
    unpack_request,
)
from airunner.protocol.names import RequestId

ID = RequestId(b"i" * 16)
VERSION = magic(REVISION)


def test_a_request_and_a_reply_come_out_as_they_went_in():
    assert unpack_request(pack_request(ID, b"token", b"body")) == RequestFrames(ID, b"token", b"body")
    for revision in (FIRST, REVISION, 7):
        assert unpack_reply(pack_reply(ID, b"body", revision)) == (ID, b"body"), "a refusal is read in any"


@pytest.mark.parametrize("unpack", [unpack_request, unpack_reply])
@pytest.mark.parametrize("frames", [[], [b""], [b"AR", ID, b"", b""], [b"AR0", ID, b"", b""], [b"HTTP", ID, b"", b""]])
def test_another_protocol_is_unsupported(unpack, frames: list[bytes]):
    with pytest.raises(Unsupported):
        unpack(frames)


def test_the_last_two_revisions_are_served_and_no_other():
    assert SERVED == (REVISION - 1, REVISION)
    for revision in SERVED:
        assert unpack_request([magic(revision), ID, b"", b""]).revision == revision
    for revision, old in ((REVISION - 2, "client or agent"), (REVISION + 1, "broker"), (999_999, "broker")):
        with pytest.raises(Unsupported, match=f"revisions 2 and 3 .* revision {revision}: upgrade the {old}"):
            unpack_request([magic(revision), ID, b"", b""])


def test_a_ping_is_answered_in_the_first_revision_whatever_is_served(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frames_module, "SERVED", (7, 8))
    assert unpack_request(pack_request(NO_REQUEST, b"", b"ping")).revision == FIRST
    with pytest.raises(Unsupported, match=r"revisions 7 and 8 .* revision 1: upgrade the client or agent"):
        unpack_request([magic(FIRST), ID, b"", b""])


@pytest.mark.parametrize(
    ("unpack", "frames"),
    [
        (unpack_request, [VERSION]),
        (unpack_request, [VERSION, ID, b""]),
        (unpack_request, [VERSION, ID, b"", b"", b""]),
        (unpack_request, [VERSION, ID[:-1], b"", b""]),
        (unpack_request, [VERSION, ID, b"t" * (TOKEN_BYTES_MAX + 1), b""]),
        (unpack_request, [VERSION, ID, b"", b"b" * (BODY_BYTES_MAX + 1)]),
        (unpack_reply, [VERSION]),
        (unpack_reply, [VERSION, ID, b"", b""]),
        (unpack_reply, [VERSION, b"", b""]),
        (unpack_reply, [VERSION, ID, b"b" * (BODY_BYTES_MAX + 1)]),
    ],
    ids=lambda part: part.__name__ if callable(part) else "-".join(f"{len(frame)}" for frame in part),
)
def test_what_is_out_of_bounds_is_refused(unpack, frames: list[bytes]):
    with pytest.raises(BadRequest):
        unpack(frames)


def test_a_refusal_finds_the_id_where_there_is_one():
    assert answerable([VERSION, ID]) == (ID, REVISION)
    assert answerable([b"AR7", ID]) == (ID, 7), "a refusal can be read in every revision"
    assert answerable([VERSION, b"short"]) is None
    assert answerable([VERSION]) is None
    assert answerable([b"HTTP", ID]) is None


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_garbage_is_refused_and_nothing_worse(frames: list[bytes]):
    for unpack in (unpack_request, unpack_reply):
        with pytest.raises((BadRequest, Unsupported)):
            unpack([frame.replace(b"AR", b"") for frame in frames])
