"""Recordings: asciicast v3 out of a job's events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.cli.cast import CLEARED, Cast
from airunner.protocol import events
from airunner.protocol.events import EventBody, JobLeased, Output, Stream
from airunner.protocol.fields import JobSpec, ProcessType, TerminalSize
from airunner.protocol.job import JobState
from tests.client.cli.test_output import event

PTY = JobSpec(command="sh", args=("-c", "a b"), process_type=ProcessType.PTY, terminal=TerminalSize(cols=100, rows=30))
PIPE = JobSpec(command="make")
BROKER_MS = 5_000_000_000_000  # of a clock that has nothing to do with the agent's


def started(ms: int) -> events.ProcessStart:
    return events.ProcessStart(timestamp_ms=ms, pid=1, started_at=ms)


def out(ms: int, data: bytes, stream: Stream = Stream.STDOUT) -> Output:
    return Output(timestamp_ms=ms, stream=stream, data=data)


def finished(exit_code: int | None = 0, signal: int | None = None) -> events.JobFinished:
    state = JobState.COMPLETED if exit_code == 0 else JobState.FAILED
    return events.JobFinished(timestamp_ms=BROKER_MS, state=state, exit_code=exit_code, signal=signal)


def recorded(spec: JobSpec, *bodies: EventBody) -> list[Any]:
    cast = Cast(spec, "a job")
    attempt = 0
    lines = ""
    for sequence, body in enumerate(bodies, 1):
        attempt += isinstance(body, JobLeased)
        lines += cast.feed(event(body, sequence, attempt))
    return [json.loads(line) for line in lines.splitlines()]


def test_a_recording_begins_with_the_command_and_has_its_true_times_and_its_exit_status() -> None:
    header, *lines = recorded(
        PTY,
        events.JobScheduled(timestamp_ms=BROKER_MS, queue="q"),
        JobLeased(timestamp_ms=BROKER_MS, agent="a"),
        events.GitCloneStart(timestamp_ms=1_000, repository="r"),
        started(60_000),
        events.TerminalResize(timestamp_ms=60_000, cols=100, rows=30),
        out(60_250, b"hello\r\n"),
        events.TerminalResize(timestamp_ms=61_250, cols=120, rows=40),
        out(61_350, b"\x1b[31mred"),
        events.OutputTruncated(timestamp_ms=62_000, omitted_bytes=7),
        events.ProcessEnd(timestamp_ms=63_000, pid=1, exit_code=7),
        finished(7),
    )
    assert header == {
        "version": 3,
        "term": {"cols": 100, "rows": 30, "type": "xterm-256color"},
        "command": "sh -c 'a b'",
        "title": "a job",
        "timestamp": 60,
    }
    assert recorded(PTY, started(1_000), finished(None, 9))[-1] == [0.0, "x", "137"], "as monitor's"
    assert lines == [
        [0.25, "o", "hello\r\n"],
        [1.0, "r", "120x40"],
        [0.1, "o", "\x1b[31mred"],
        [0.65, "m", "7 bytes of output were left out here"],
        [1.0, "x", "7"],
    ]


def test_characters_that_come_in_two_pieces_are_whole_and_what_is_none_is_shown_as_terminals_do() -> None:
    lines = recorded(
        PTY, started(0), out(100, b"h\xc3"), out(200, b"\xa9"), out(300, b"\xff"), out(400, b"\xe2\x82"), finished()
    )[1:]
    assert lines == [[0.1, "o", "h"], [0.1, "o", "é"], [0.1, "o", "\ufffd"], [0.1, "o", "\ufffd"], [0.0, "x", "0"]]
    lines = recorded(PIPE, started(0), out(0, b"\xc3"), out(0, b"err", Stream.STDERR), out(0, b"\xa9"), finished())
    assert [line[2] for line in lines[1:]] == ["err", "é", "0"]


def test_a_newline_of_a_pipe_begins_at_the_left() -> None:
    lines = recorded(PIPE, started(0), out(0, b"a\nb\r\nc\r"), out(0, b"\nd\r"), out(0, b"x\n\n"), finished())
    assert "".join(line[2] for line in lines[1:-1]) == "a\r\nb\r\nc\r\nd\rx\r\n\r\n"
    assert recorded(PTY, started(0), out(0, b"a\n"))[1][2] == "a\n", "a terminal has been asked for just that"


@pytest.mark.parametrize("second_ms", [1_000, 99_000_000], ids=["behind", "ahead"])
def test_another_attempt_begins_on_a_cleared_screen_when_the_broker_says_that_it_did(second_ms: int) -> None:
    """The second agent's clock is another one."""
    lines = recorded(
        PTY,
        JobLeased(timestamp_ms=BROKER_MS, agent="a"),
        started(3_600_000),
        out(3_602_000, b"one\xc3"),
        events.JobExpired(timestamp_ms=BROKER_MS + 30_000),
        JobLeased(timestamp_ms=BROKER_MS + 40_000, agent="b"),
        started(second_ms),
        out(second_ms + 3_000, b"two"),
        finished(),
    )[1:]
    assert lines == [
        [2.0, "o", "one"],
        [0.0, "o", "\ufffd"],
        [38.0, "m", "attempt 2"],
        [0.0, "o", CLEARED],
        [3.0, "o", "two"],
        [0.0, "x", "0"],
    ]


def test_a_recording_for_older_players_has_times_from_the_beginning() -> None:
    cast = Cast(PTY, "t", version=2)
    bodies = [started(1_000), out(1_500, b"a"), out(2_500, b"b"), finished()]
    header, *lines = map(json.loads, "".join(cast.feed(event(body)) for body in bodies).splitlines())
    assert (header["version"], header["width"], header["height"]) == (2, 100, 30)
    assert lines == [[0.5, "o", "a"], [1.5, "o", "b"]]


def test_a_clock_that_is_set_back_costs_one_interval_and_no_more() -> None:
    lines = recorded(PIPE, started(10_000), out(11_000, b"a"), out(5_000, b"b"), out(6_500, b"c"), finished())[1:]
    assert [line[0] for line in lines] == [1.0, 0.0, 1.5, 0.0]


def test_a_job_that_wrote_nothing_has_a_recording_too() -> None:
    failed = events.ProcessError(timestamp_ms=1_000, message="no such command")
    header, end = recorded(PIPE, JobLeased(timestamp_ms=BROKER_MS, agent="a"), failed, finished(127))
    assert "timestamp" not in header
    assert end == [0.0, "x", "127"]


@given(st.lists(st.tuples(st.sampled_from(Stream), st.binary(min_size=1, max_size=6)), max_size=8))
def test_every_line_is_json_that_no_terminal_obeys_and_no_text_is_lost(pieces: list[tuple[Stream, bytes]]) -> None:
    cast = Cast(PTY, "t")
    bodies = [started(0), *(out(0, data, stream) for stream, data in pieces), finished()]
    lines = "".join(cast.feed(event(body)) for body in bodies)
    assert all(char.isprintable() or not char.isascii() for char in lines.replace("\n", ""))
    shown = [json.loads(line)[2] for line in lines.splitlines()[1:-1]]
    for stream in Stream:
        data = b"".join(data for of, data in pieces if of is stream)
        if len({of for of, _ in pieces}) <= 1 and data:
            assert "".join(shown) == data.decode(errors="replace")
