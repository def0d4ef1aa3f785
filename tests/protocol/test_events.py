"""Events keep their bytes, and only an agent's own pass as an agent's."""

from __future__ import annotations

import contextlib
from typing import get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.errors import BadRequest
from airunner.protocol.events import (
    BATCH_EVENTS_MAX,
    AgentBody,
    BrokerBody,
    Event,
    EventSegment,
    Heartbeat,
    Output,
    Stream,
    check_batch,
    decode_bodies,
    encode_bodies,
    events_of,
    without_first,
)
from tests.protocol.examples import EVENTS, JOB_ID, NOW_MS

OUTPUTS = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=20).map(
    lambda pieces: [Output(timestamp_ms=NOW_MS, stream=Stream.STDERR, data=piece) for piece in pieces]
)


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_comes_out_as_it_went_in_and_an_agent_publishes_only_what_is_its_own(kind: str):
    raw = encode_bodies([EVENTS[kind]])
    assert decode_bodies(raw) == [EVENTS[kind]]
    assert msgpack.unpackb(raw)[0]["kind"] == kind
    event = Event(job_id=JOB_ID, sequence=1, attempt=1, body=EVENTS[kind])
    assert event.kind == kind
    assert event.timestamp_ms == NOW_MS
    if isinstance(EVENTS[kind], get_args(BrokerBody)):
        with pytest.raises(BadRequest):
            check_batch(raw)
    else:
        assert isinstance(EVENTS[kind], get_args(AgentBody))
        assert check_batch(raw) == [EVENTS[kind]]


def test_a_batch_is_bounded():
    one = Heartbeat(timestamp_ms=NOW_MS)
    assert len(check_batch(encode_bodies([one] * BATCH_EVENTS_MAX))) == BATCH_EVENTS_MAX
    for raw in (encode_bodies([]), encode_bodies([one] * (BATCH_EVENTS_MAX + 1)), encode_bodies([one]) + b"\xc0"):
        with pytest.raises(BadRequest):
            check_batch(raw)


@given(OUTPUTS, st.data())
def test_the_tail_of_a_batch_keeps_its_bytes(bodies: list[AgentBody], data: st.DataObject):
    known = data.draw(st.integers(0, len(bodies)))
    assert without_first(encode_bodies(bodies), known) == encode_bodies(bodies[known:])


@given(OUTPUTS, st.integers(1, 1_000))
def test_a_run_numbers_its_events_without_a_hole(bodies: list[AgentBody], first: int):
    run = EventSegment(first_sequence=first, count=len(bodies), attempt=2, events=encode_bodies(bodies))
    events = events_of(JOB_ID, run)
    assert [event.sequence for event in events] == list(range(first, run.next_sequence))
    assert [event.body for event in events] == bodies


@given(st.binary(max_size=100))
def test_garbage_is_refused_and_nothing_worse(raw: bytes):
    for decode in (check_batch, decode_bodies):
        with contextlib.suppress(BadRequest):
            decode(raw)
