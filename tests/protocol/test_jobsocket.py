"""Messages of a job's socket: frames however they are cut, and refusals of what is no message."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.artifactpaths import link_problem, name_problem, path_problem
from airunner.protocol.blobs import PIECE_BYTES_MAX
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import ARTIFACT_PATH_CHARS_MAX
from airunner.protocol.jobsocket import (
    BODY_BYTES_MAX,
    ArtifactsPut,
    Frames,
    PutArtifacts,
    PutContent,
    PutEnd,
    PutFile,
    SocketRefused,
    ToAgent,
    frame,
    message_of_agent,
    message_of_job,
)

MESSAGES: list[ToAgent] = [
    PutArtifacts(),
    PutFile(path="dist/run", mode=0o750),
    PutContent(data=b"#!/bin/sh\n"),
    PutFile(path="link", mode=0o777, target="dist/run"),
    PutEnd(),
]
STREAM = b"".join(map(frame, MESSAGES))


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_messages_arrive_however_the_stream_is_cut(cuts: list[int]) -> None:
    frames, at = Frames(), 0
    found: list[ToAgent] = []
    for cut in [*sorted(cuts), len(STREAM)]:
        found += map(message_of_job, frames.feed(STREAM[at:cut]))
        at = cut
    assert found == MESSAGES


def test_answers_arrive_as_they_were_sent() -> None:
    answers = [ArtifactsPut(files=2, size_bytes=10), SocketRefused(code="quota", message="too much")]
    assert list(map(message_of_agent, Frames().feed(b"".join(map(frame, answers))))) == answers


def test_the_largest_messages_fit_in_a_frame() -> None:
    path = "\N{GRINNING FACE}" * ARTIFACT_PATH_CHARS_MAX
    for message in (PutContent(data=bytes(PIECE_BYTES_MAX)), PutFile(path=path, target=path)):
        (body,) = Frames().feed(frame(message))
        assert message_of_job(body) == message
        assert len(body) <= BODY_BYTES_MAX


def test_a_frame_that_claims_more_is_refused_before_it_comes() -> None:
    with pytest.raises(BadRequest, match=r"bytes; .* are the most"):
        list(Frames().feed(struct.pack(">I", BODY_BYTES_MAX + 1)))


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"\x80", b"\x81\xa4type\xa8Whatever", frame(PutFile(path="\ud800x"[1:]))]
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        message_of_job(body)
    with pytest.raises(BadRequest):
        message_of_agent(body)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b", "\udcff", "a" * ARTIFACT_PATH_CHARS_MAX],
)
def test_what_is_no_path_below_the_checkout_is_no_name(path: str) -> None:
    assert name_problem(path) is not None


@pytest.mark.parametrize("path", ["a", "a/", "dist/x.whl", "...", "a b/\N{SNOWMAN}"])
def test_a_path_below_the_checkout_is_a_name(path: str) -> None:
    assert name_problem(path) is None
    assert path_problem(path) is None


def test_a_target_that_is_too_long_or_no_text_is_none() -> None:
    assert link_problem("a", "b" * (ARTIFACT_PATH_CHARS_MAX + 1)) == "its target is too long"
    assert link_problem("a", "\udcff") == "its target is not UTF-8"
