"""docs/PROTOCOL.md names everything that can stand on the wire."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from airunner.protocol import (
    bounds,
    caches,
    events,
    fields,
    frames,
    job,
    jobretry,
    logsearch,
    message,
    replies,
    requests,
)
from airunner.protocol.errors import PeerError
from airunner.protocol.events import EventBody
from airunner.protocol.job import JobState
from airunner.protocol.requests import Request

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
TAGGED = [*get_args(Request), *get_args(replies.Reply), *get_args(EventBody)]
INNER = {msgspec.Struct, fields.Field, events.Event, events.UnknownBody, message.Message}  # never on the wire
PARTS = {
    struct
    for module in (caches, events, fields, job, jobretry, logsearch, message, replies, requests)
    for struct in vars(module).values()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct) and not struct.__struct_config__.tag
}
ENUMS = (events.Stream, caches.SaveWhen, fields.ProcessType, job.Reason, replies.Verdict, replies.QueueMode)
WORDS = [*(word for enum in ENUMS for word in enum), *PeerError.codes()]


def tag_of(struct: type[msgspec.Struct]) -> str:
    return struct.__struct_config__.tag


@pytest.mark.parametrize("tag", [tag_of(struct) for struct in TAGGED])
def test_every_message_and_kind_of_event_is_documented(tag: str) -> None:
    assert f"`{tag}`" in PAGE or f'"type": "{tag}"' in PAGE


@pytest.mark.parametrize("struct", [*TAGGED, *sorted(PARTS - INNER, key=str)])
def test_every_field_is_documented(struct: type[msgspec.Struct]) -> None:
    for field in struct.__struct_encode_fields__:
        assert any(form in PAGE for form in (f"`{field}`", f'"{field}"', f"{{{field}", f", {field}")), field


@pytest.mark.parametrize("word", WORDS)
def test_every_code_and_chosen_word_is_documented(word: str) -> None:
    assert f"`{word}`" in PAGE or f'`"{word}"`' in PAGE
    assert all(state in PAGE for state in JobState)


@pytest.mark.parametrize("request_type", get_args(Request))
def test_every_request_has_a_section_with_an_example(request_type: type[msgspec.Struct]) -> None:
    _, found, rest = PAGE.partition(f"\n### {tag_of(request_type)} →")
    assert found
    assert f'{{"type": "{tag_of(request_type)}"' in rest.partition("\n#")[0]


def test_the_bounds_are_the_codes() -> None:
    for bound in (frames.BODY_BYTES_MAX, frames.TOKEN_BYTES_MAX, frames.SUBSCRIPTION_BYTES_MAX):
        assert f" {bound:,} bytes".replace(",", " ") in PAGE
    for values in (bounds.VALUES_MAX, bounds.REPLY_VALUES_MAX):
        assert f" {values:,} |".replace(",", " ") in PAGE
    assert frames.magic(frames.REVISION).decode() in PAGE
