"""An attempt's log is signed once, at its end, whatever is sent again; and never of events that were dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.agent.flag import Flag
from airunner.agent.output import logsigning
from airunner.agent.output.recorder import Recorder
from airunner.certs.curve import new_secret
from airunner.certs.signing import LogSigner, is_signed
from airunner.protocol.events import LogSigned, ProcessError, Stream, encode_bodies
from airunner.protocol.job import Result, Usage
from airunner.protocol.logchain import LogChain, leaves_of, statement
from tests.agent.output.recording import EVERYTHING, Sink, no_more_than, recorder_in, taken

SIGNER = LogSigner(new_secret())
RESULT = Result(exit_code=0, usage=Usage(stdout_bytes=7))


def told(recorder: Recorder, number: int) -> None:
    recorder.add(ProcessError(timestamp_ms=number, message=str(number)))
    recorder.outbox.flush()


async def test_every_event_of_an_attempt_is_signed_whatever_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logsigning, "SIGN_EVENTS", 3)
    recorder = recorder_in(tmp_path, signer=SIGNER)
    for number in range(7):
        told(recorder, number)
    recorder.outbox.unsent(9, EVERYTHING)
    recorder.outbox.resend_from(2)
    recorder.outbox.finish(RESULT)
    recorder.outbox.finish(RESULT)
    recorder.outbox.resend_from(0)
    bodies = taken(recorder)
    signed = [(index, body) for index, body in enumerate(bodies) if isinstance(body, LogSigned)]
    assert [index for index, _ in signed] == [3, 6, 9, 10]
    assert [body.result for _, body in signed] == [None, None, None, Result(exit_code=0)]
    chain, begin = LogChain(), 0
    for index, body in signed:
        chain.add(leaves_of(encode_bodies(bodies[begin:index])))
        assert (body.tags, body.head) == chain.link()
        assert is_signed(body.signer, statement("job1", 1, body), body.signature)
        assert not is_signed(body.signer, statement("job1", 2, body), body.signature)
        assert (body.index, body.timestamp_ms) == (index, bodies[index - 1].timestamp_ms)
        begin = index
    completion = recorder.outbox.completion()
    assert completion is not None
    assert completion.event_count == 11


async def test_the_end_waits_for_room_for_its_signature(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, signer=SIGNER)
    with no_more_than(100):
        told(recorder, 0)
        assert recorder.outbox.spool.full
        recorder.outbox.finish(RESULT)
    assert len(taken(recorder)) == 1
    assert recorder.outbox.completion() is None
    recorder.outbox.acknowledge(1)
    (signed,) = taken(recorder)
    assert isinstance(signed, LogSigned)
    assert recorder.outbox.completion() is not None


async def test_a_broker_that_does_not_know_signatures_gets_none(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, signer=SIGNER, signed=False)
    told(recorder, 0)
    recorder.outbox.finish(RESULT)
    assert [type(body) for body in taken(recorder)] == [ProcessError]


async def test_no_event_that_was_dropped_is_signed(tmp_path: Path) -> None:
    cancelled = Flag()
    recorder = recorder_in(tmp_path, sink=Sink(), cancelled=cancelled, signer=SIGNER)
    for _ in range(4):
        await recorder.add_output(Stream.STDOUT, b"x" * 60_000, 1)
        recorder.outbox.flush()
    with no_more_than(250_000):
        await recorder.add_output(Stream.STDOUT, b"x" * 60_000, 1)
        recorder.outbox.flush()
        assert recorder.outbox.spool.full
        recorder.outbox.finish(RESULT)
    cancelled.set()
    assert recorder.outbox.drop_output_from(0)
    assert [type(body).__name__ for body in taken(recorder)] == ["OutputTruncated"]
    recorder.outbox.acknowledge(1)
    assert taken(recorder) == []
    assert recorder.outbox.completion() is not None
