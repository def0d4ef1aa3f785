"""What `logs` prints of a log: lines, their search, and its end, of which little is read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.cli.console import JobConsole
from airunner.client.cli.logprinter import LogPrinter
from airunner.client.client import Client
from airunner.client.loglines import Line, LineSplitter, Search, Tail
from airunner.client.logreader import WINDOW_EVENTS, Wanted
from airunner.protocol.events import STREAMS, Event, Heartbeat, Output, OutputTruncated, Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState
from airunner.protocol.logsearch import LINE_BYTES_MAX
from airunner.protocol.names import JobId
from tests.client.cli.test_output import ERR, OUT, event


def written(*pieces: tuple[Stream, bytes], attempt: int = 1) -> list[Event]:
    return [
        event(Output(timestamp_ms=number, stream=stream, data=data), number, attempt)
        for number, (stream, data) in enumerate(pieces, 1)
    ]


def lines_of(events: list[Event]) -> list[Line]:
    splitter = LineSplitter()
    return [*(line for each in events for line in splitter.feed(each)), *splitter.finish()]


def test_a_line_has_the_place_of_its_first_byte_and_streams_and_attempts_do_not_mix() -> None:
    first = written((OUT, b"hel"), (ERR, b"e\nrr"), (OUT, b"lo\n\nwor"))
    lines = lines_of([*first, *written((OUT, b"ld\n"), attempt=2)])
    assert [(line.stream, line.data, line.sequence, line.attempt) for line in lines] == [
        (ERR, b"e\n", 2, 1),
        (OUT, b"hello\n", 1, 1),
        (OUT, b"\n", 3, 1),
        (ERR, b"rr", 2, 1),
        (OUT, b"wor", 3, 1),
        (OUT, b"ld\n", 1, 2),
    ]
    long = [len(line.data) for line in lines_of(written(*[(OUT, b"x" * 60_000)] * 5))]
    assert max(long) < 2 * LINE_BYTES_MAX < sum(long) == 300_000


@pytest.mark.parametrize("context", [0, 1, 3])
def test_a_search_finds_the_lines_that_grep_does_in_whatever_colours(context: int) -> None:
    random = Random(context)
    text = "".join(f"{number} {random.choice('abcdefghij')}\n" for number in range(200)).encode()
    options = [f"-C{context}"] if context else []
    expected = subprocess.run(["grep", *options, "[ab]$"], input=text, capture_output=True, check=True).stdout
    search = Search(re.compile("[ab]$"), context)
    shown = [line.data for each in lines_of(written((OUT, text))) for line in search.feed(each)]
    assert b"".join(shown) == expected
    red = lines_of(written((OUT, b"\x1b[1;31merror\x1b[0m\r\n")))
    assert list(Search(re.compile("^error$")).feed(*red)) == red


def test_a_tail_that_takes_too_much_memory_is_shorter_and_says_so() -> None:
    tail = Tail(3, bytes_max=5)
    tail.feed(lines_of(written((OUT, b"a\nb\nc\nd\n"))))
    assert ([line.data for line in tail.lines], tail.too_large) == ([b"c\n", b"d\n"], True)


class Screen:
    """Console that collects what is written to it."""

    def __init__(self) -> None:
        self.written: list[tuple[Stream, bytes]] = []
        self.said = ""

    def job_output(self, stream: Stream, data: bytes) -> None:
        self.written += [(stream, line) for line in data.splitlines(keepends=True)]

    def job_over(self) -> None:
        pass

    def must_say(self, text: str) -> None:
        self.said += text


class Stored:
    """Client of a stored log, which counts how many events were read."""

    def __init__(self, log: Sequence[Event]) -> None:
        self._log = log
        self.read = 0

    async def get(self, job_id: str) -> Job:
        spec = JobSpec(command="true")
        state = JobState.COMPLETED
        return Job(id=JobId(job_id), spec=spec, state=state, submitted_ms=0, last_sequence=len(self._log))

    async def replay(
        self, _job_id: str, start: int, since_ms: int | None, kinds: Sequence[str]
    ) -> AsyncIterator[Event]:
        for each in self._log[start - 1 :]:
            self.read += 1
            if each.kind in kinds and each.timestamp_ms >= (since_ms or 0):
                yield each


def shown(
    log: Sequence[Event], tail: int, wanted: Wanted, grep: str | None = None, window: int = WINDOW_EVENTS
) -> tuple[Screen, int]:
    screen, stored = Screen(), Stored(log)
    pattern = None if grep is None else re.compile(grep)
    reader = LogPrinter(
        cast("Client", stored), "j", cast("JobConsole", screen), wanted, pattern, 1 if grep else 0, window=window
    )
    anyio.run(lambda: reader.show(tail, follow=False))
    return screen, stored.read


PIECES = st.tuples(st.sampled_from(Stream), st.sampled_from([b"a", b"b", b"bb", b"b\n", b"a\n\n", b"\nb"]))


@given(
    st.lists(PIECES, min_size=5, max_size=20),
    st.integers(0, 4),
    st.sampled_from([None, "a", "bb"]),
    st.sampled_from([STREAMS, (OUT,), (ERR,)]),
)
def test_the_last_lines_are_the_end_of_all_lines(
    pieces: list[tuple[Stream, bytes]], tail: int, grep: str | None, streams: tuple[Stream, ...]
) -> None:
    until_ms = len(pieces) + 2
    log = written(*pieces, (OUT, b"\n"), (ERR, b"\n"), *pieces)
    wanted = Wanted(streams, until_ms=until_ms)
    every = [line for line in lines_of(log[:until_ms]) if line.stream in streams]
    if grep is not None:
        search = Search(re.compile(grep), 1)
        every = [found for line in every for found in search.feed(line)]
    ends = [(line.stream, line.data.rstrip(b"\n") + b"\n") for line in every]
    screen, _ = shown(log, tail, wanted, grep, window=1)
    assert [(stream, line.rstrip(b"\n") + b"\n") for stream, line in screen.written] == ends[max(0, len(ends) - tail) :]


def test_the_last_lines_of_a_long_log_take_a_few_events_and_what_the_agent_left_out_is_said() -> None:
    pieces = written(*[(OUT, b"%d\n" % number) for number in range(10_000)])
    log = [*pieces, event(OutputTruncated(timestamp_ms=9, omitted_bytes=5), 10_001)]
    log += [event(Heartbeat(timestamp_ms=9), 10_002 + number) for number in range(20)]
    screen, read = shown(log, 20, Wanted(STREAMS))
    assert screen.written == [(OUT, b"%d\n" % number) for number in range(9_980, 10_000)]
    assert (read < 100, screen.said) == (True, "5 bytes of output were left out by the agent")
