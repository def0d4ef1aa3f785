"""Log search: finds what the client's own search finds, in any pages; bounded in work and for any pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from airunner.broker.lifecycle import searching
from airunner.broker.lifecycle.searching import search
from airunner.broker.store.rows import JobRow, Segment
from airunner.client import loglines
from airunner.client.loglines import SEPARATOR, Line, LineSplitter, Search
from airunner.protocol.compression import compressed
from airunner.protocol.events import EventSegment, Heartbeat, Output, Stream, encode_bodies, events_of
from airunner.protocol.job import JobState
from airunner.protocol.logsearch import LogLine
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.replies import LogSearched
from airunner.protocol.requests import SearchLog

JOB = JobId("j" * 32)
TEXTS = ("a", "b", "AB", "\n", "\r\n", "\r", "\x1b[31m", "\x1b[0", "m", " ", "é", "xyz")
PIECES = (*(text.encode() for text in TEXTS), b"\xff", b"\xc3")
PLAIN = ("", "a", "ab", "\r", "\n", "a\n", "é")
REGEX = ("b$", "^a", "^$", "a.b", "a[^b]", r"\Aa", r"b\z", r"\bab\b", "(?-m:^)a", "x.{2}", "a|^x", r"\s$", "a\n*b")

outputs = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map(b"".join)
bodies = st.one_of(
    st.builds(Output, timestamp_ms=st.integers(0, 9), stream=st.sampled_from(Stream), data=outputs),
    st.builds(Heartbeat, timestamp_ms=st.just(1)),
)
parts_of_logs = st.lists(
    st.tuples(st.integers(0, 1), st.booleans(), st.lists(bodies, min_size=1, max_size=5)), max_size=6
)


def logged(parts: Sequence[tuple[int, bool, Sequence[Any]]]) -> list[Segment]:
    """Segments of a log: whether a new attempt begins, whether it is compressed, and its events."""
    found: list[Segment] = []
    first, attempt = 1, 1
    for further, packed, events in parts:
        attempt += further
        raw = encode_bodies(events)
        found.append(
            Segment(
                number=1,
                first_sequence=first,
                count=len(events),
                attempt=attempt,
                last_timestamp_ms=9,
                events=compressed(raw) if packed else raw,
            )
        )
        first += len(events)
    return found


def job_with(log: Sequence[Segment], state: JobState = JobState.COMPLETED) -> JobRow:
    last = log[-1].first_sequence + log[-1].count - 1 if log else 0
    return JobRow(
        number=1, job_id=JOB, tenant="home", queue="default", needs="", gate=1, state=state, priority=0, owner="",
        watch_key=WatchKey(bytes(32)), submitted_ms=0, max_attempts=3, last_sequence=last,
    )  # fmt: skip


def pages(log: Sequence[Segment], request: SearchLog, state: JobState = JobState.COMPLETED) -> list[LogSearched]:
    """All pages of a search; each request starts at the segment that an engine would find."""
    found = [one_page(log, request, state)]
    while found[-1].place is not None:
        request = replace(request, place=found[-1].place)
        found.append(one_page(log, request, state))
        assert found[-1].place != found[-2].place, "a request made no progress"
    return found


def one_page(log: Sequence[Segment], request: SearchLog, state: JobState = JobState.COMPLETED) -> LogSearched:
    start = request.place.sequence if request.place else 1
    return search(job_with(log, state), request, (part for part in log if part.first_sequence + part.count > start))


def lines_of(log: Sequence[Segment]) -> list[Line]:
    splitter = LineSplitter()
    runs = [
        EventSegment(first_sequence=part.first_sequence, count=part.count, attempt=part.attempt, events=part.events)
        for part in log
    ]
    found = [line for run in runs for event in events_of(JOB, run) for line in splitter.feed(event)]
    return [*found, *splitter.finish()]


def as_line(hit: LogLine) -> Line:
    return Line(hit.stream, hit.data, hit.sequence, hit.attempt, hit.timestamp_ms)


@given(
    parts=parts_of_logs,
    pattern=st.sampled_from(PLAIN + REGEX),
    regex=st.booleans(),
    ignore_case=st.booleans(),
    context=st.integers(0, 3),
    from_line=st.integers(1, 6),
    limit=st.integers(1, 4),
    cut=st.sampled_from([8, 65_536]),
)
def test_a_search_finds_what_the_clients_own_search_finds_in_any_pages(
    parts: Any, pattern: str, *, regex: bool, ignore_case: bool, context: int, from_line: int, limit: int, cut: int
) -> None:
    log = logged(parts)
    python = pattern.replace(r"\z", r"\Z").replace("(?-m:^)", "^")
    compiled = re.compile(python if regex else re.escape(pattern), re.IGNORECASE if ignore_case else 0)
    with pytest.MonkeyPatch.context() as patched:
        for module in (searching, loglines):
            patched.setattr(module, "LINE_BYTES_MAX", cut)
        all_lines = lines_of(log)
        own = Search(compiled, context)
        expected = [line for every in all_lines[from_line - 1 :] for line in own.feed(every) if line is not SEPARATOR]
        request = SearchLog(
            job_id=JOB, pattern=pattern, regex=regex, ignore_case=ignore_case, context=context, from_line=from_line,
            limit=limit,
        )  # fmt: skip
        patched.setattr(searching, "SEARCHED_SEGMENTS_MAX", 2)
        found = pages(log, request)
    hits = [hit for page in found for hit in page.hits]
    assert list(map(as_line, hits)) == expected
    assert found[-1].lines == len(all_lines)
    assert [all_lines[hit.line - 1] for hit in hits] == expected, "a line has another number"
    assert all(len(page.hits) <= limit + context + len(Stream) for page in found)
