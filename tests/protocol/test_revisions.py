"""Requests of older revisions are read as those of this one, and readers pass over what they do not know."""

from __future__ import annotations

from typing import Final

import msgpack
import msgspec
import pytest

from airunner.protocol.coding import decode_reply, decode_request, encode
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import EventSegment, UnknownBody, decode_bodies, encode_bodies, events_of
from airunner.protocol.follow import Follow
from airunner.protocol.frames import REVISION
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobEventsReplayed
from airunner.protocol.revisions import upgraded
from tests.protocol.examples import EVENTS, JOB_ID, NOW_MS, REPLIES, REQUESTS

NEW: Final = {"kind": "MOOD", "timestamp_ms": NOW_MS, "humour": ["dry"], "fields": 1}


def test_an_event_that_is_not_known_is_passed_on_as_it_is_and_hides_none_of_its_neighbours() -> None:
    raw = msgpack.packb([*msgpack.unpackb(encode_bodies([EVENTS["OUTPUT"]])), NEW])
    assert decode_bodies(raw) == [EVENTS["OUTPUT"], UnknownBody(kind="MOOD", timestamp_ms=NOW_MS, fields=NEW)]
    _, event = events_of(JOB_ID, EventSegment(first_sequence=1, count=2, attempt=1, events=raw))
    assert (event.kind, event.timestamp_ms) == ("MOOD", NOW_MS)


def test_one_who_follows_goes_on_behind_an_event_that_is_not_known() -> None:
    raw = msgpack.packb([NEW, *msgpack.unpackb(encode_bodies([EVENTS["JOB_FINISHED"]]))])
    follow = Follow(JOB_ID, 0)
    assert follow.request() is not None
    run = EventSegment(first_sequence=1, count=2, attempt=1, events=raw)
    events = follow.replayed(JobEventsReplayed(runs=(run,), next_sequence=3, last_sequence=2, finished=True), 0)
    assert [event.kind for event in events] == ["MOOD", "JOB_FINISHED"]
    assert follow.finished


@pytest.mark.parametrize("broken", [{"kind": "MOOD"}, {"kind": 7, "timestamp_ms": 1}, {"kind": "x" * 129}, 7, None])
def test_what_is_no_event_of_any_kind_is_refused(broken: object) -> None:
    with pytest.raises(BadRequest):
        decode_bodies(msgpack.packb([broken]))


def test_a_reason_that_is_not_known_is_shown_as_it_is_and_taken_from_no_agent() -> None:
    body = msgpack.unpackb(encode(REPLIES["JobFound"]))
    body["job"]["result"]["reason"] = "bored"
    found = decode_reply(msgpack.packb(body))
    assert (str(found.job.result.reason), found.job.result.state) == ("bored", JobState.FAILED)
    assert msgspec.json.decode(msgspec.json.encode(found))["job"]["result"]["reason"] == "bored"
    completion = msgpack.unpackb(encode(REQUESTS["CompleteJob"]))
    completion["result"]["reason"] = "bored"
    with pytest.raises(BadRequest, match="not a known reason"):
        decode_request(msgpack.packb(completion))
    for no_word in ("", "Two Words", "x" * 65, 7):
        body["job"]["result"]["reason"] = no_word
        with pytest.raises(BadRequest):
            decode_reply(msgpack.packb(body))


def flat(part: dict[str, object]) -> dict[str, object]:
    """A part of a request as revision 2 has it."""
    lease = part.pop("lease")
    return {**part, **lease}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_of_revision_2_is_read_as_the_same_of_this_one(name: str) -> None:
    old = msgpack.unpackb(encode(REQUESTS[name]))
    if name in ("CompleteJob", "ReleaseJob"):  # requests that came later are the same in both
        old = flat(old)
    if name == "PublishJobEvents":
        old = {**old, **{parts: [flat(part) for part in old[parts]] for parts in ("batches", "completions")}}
    assert decode_request(upgraded(msgpack.packb(old), 2)) == REQUESTS[name]
    assert upgraded(b"whatever", REVISION) == b"whatever"


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\x07",
        msgpack.packb([7]),
        b"\x81\xa4type\xa1\xff",
        b"\x81\x90\x01",
        msgpack.packb({"type": "PublishJobEvents", "batches": 7}),
        msgpack.packb({"type": "PublishJobEvents", "batches": [7]}),
        msgpack.packb({"type": "ReleaseJob", "job_id": JOB_ID}),
    ],
)
def test_what_is_no_request_of_revision_2_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(upgraded(body, 2))
