"""Timestamps in front of a job's lines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.cli.stamps import Stamps, Timestamps
from airunner.protocol.events import JobLeased, Output, ProcessStart, Stream
from airunner.protocol.names import MILLISECONDS_MAX
from tests.client.cli.test_output import event


def shown(stamps: Stamps, data: bytes, ms: int, stream: Stream = Stream.STDOUT, attempt: int = 1) -> bytes:
    output = Output(timestamp_ms=ms, stream=stream, data=data)
    shown = event(output, attempt=attempt)
    stamps.note(shown)
    return stamps.lines(shown, output)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_line_has_the_time_of_its_first_byte_though_it_comes_in_pieces() -> None:
    stamps = Stamps(Timestamps.CLOCK)
    told = shown(stamps, b"hel", 3_600_000) + shown(stamps, b"lo\nwor", 3_605_000) + shown(stamps, b"ld\n\n", 3_609_000)
    assert told == b"[01:00:00] hello\n[01:00:05] world\n[01:00:09] \n"


def test_stdout_and_stderr_have_lines_of_their_own() -> None:
    stamps = Stamps(Timestamps.CLOCK)
    assert shown(stamps, b"out", 0) == b"[00:00:00] out"
    assert shown(stamps, b"err\n", 1_000, Stream.STDERR) == b"[00:00:01] err\n"
    assert shown(stamps, b"put\n", 2_000) == b"put\n"
    assert shown(stamps, b"err\n", 3_000, Stream.STDERR) == b"[00:00:03] err\n"


def test_a_carriage_return_begins_a_line_and_a_newline_behind_it_does_not() -> None:
    stamps = Stamps(Timestamps.CLOCK)
    assert shown(stamps, b"10%\r20%\r\nx\r", 0) == b"[00:00:00] 10%\r[00:00:00] 20%\r\n[00:00:00] x\r"
    assert shown(stamps, b"\ny", 1_000) == b"\n[00:00:01] y"


def test_relative_ones_count_from_the_start_of_the_attempts_command_by_its_own_clock() -> None:
    stamps = Stamps(Timestamps.RELATIVE)
    leased = event(JobLeased(timestamp_ms=9_999_999, agent="a"))
    stamps.note(leased)
    assert stamps.stamp(leased) == "", "the broker's clock is another one"
    assert shown(stamps, b"hook\n", 500) == b"[+0.0s] hook\n"
    stamps.note(event(ProcessStart(timestamp_ms=1_000, pid=1, started_at=1_000)))
    assert shown(stamps, b"a\n", 4_000) == b"[+3.0s] a\n"
    assert shown(stamps, b"b\n", 900) == b"[-0.1s] b\n"
    assert shown(stamps, b"c\n", 77_000, attempt=2) == b"[+0.0s] c\n"


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=8))
def test_nothing_is_lost_and_how_it_is_cut_makes_no_difference(pieces: list[bytes]) -> None:
    cut = Stamps(Timestamps.CLOCK)
    whole = Stamps(Timestamps.CLOCK)
    told = b"".join(shown(cut, piece, 0) for piece in pieces)
    data = b"".join(pieces)
    assert told == (shown(whole, data, 0) if data else b"")
    assert told.replace(b"[00:00:00] ", b"") == data.replace(b"[00:00:00] ", b"")


def test_an_absurd_instant_is_still_shown() -> None:
    late = event(JobLeased(timestamp_ms=MILLISECONDS_MAX, agent="a"))
    assert len(Stamps(Timestamps.CLOCK).stamp(late)) == len("[08:59:00] ")
