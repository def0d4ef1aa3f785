"""Log search: finds what the client's own search finds, in any pages; bounded in work and for any pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from airunner.broker.lifecycle import hits, searching
from airunner.broker.lifecycle.commands import LogFound
from airunner.broker.lifecycle.linepattern import LinePattern
from airunner.broker.lifecycle.searching import search, searched_part
from airunner.broker.store.rows import Segment
from airunner.client import loglines
from airunner.client.loglines import SEPARATOR, Line, LineSplitter, Search
from airunner.protocol.coding import decode_reply, encode
from airunner.protocol.compression import compressed
from airunner.protocol.errors import BadPattern, CorruptLog
from airunner.protocol.events import EventSegment, Heartbeat, Output, Stream, encode_bodies, events_of
from airunner.protocol.logsearch import SHOWN_BYTES_MAX, LogLine, SearchPlace, UnfinishedLine
from airunner.protocol.names import MILLISECONDS_MAX, JobId
from airunner.protocol.replies import LogSearched
from airunner.protocol.requests import SearchLog

JOB = JobId("j" * 32)
TEXTS = ("a", "b", "AB", "\n", "\r\n", "\r", "\x1b[31m", "\x1b[0", "m", " ", "é", "xyz")
PIECES = (*(text.encode() for text in TEXTS), b"\xff", b"\xc3")
PLAIN = ("", "xyz", "a", "ab", "\r", "\n", "a\n", "é")
REGEX = ("b$", "^a", "^$", "a.b", "a[^b]", r"\Aa", r"b\z", r"\bab\b", "(?-m:^)a", "x.{2}", "a|^x", r"\s$", "a\n*b")

outputs = st.lists(st.sampled_from((*PIECES, b"\n", b"\n", b"a\n", b"line\n")), min_size=1, max_size=24).map(b"".join)
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


def pages(log: Sequence[Segment], request: SearchLog, *, finished: bool = True) -> list[LogSearched]:
    """All pages of a search."""
    found = [one_page(log, request, finished=finished)]
    while (place := found[-1].place) is not None:
        request = replace(request, place=place)
        found.append(one_page(log, request, finished=finished))
        assert found[-1].place != place, "a request made no progress"
    return found


def one_page(
    log: Sequence[Segment],
    request: SearchLog,
    *,
    finished: bool = True,
    last: int = 0,
) -> LogSearched:
    """Search from the segment that an engine would find; `last` is the log's last sequence, unless it is whole."""
    start = request.place.sequence if request.place else 1
    rest = (part for part in log if part.first_sequence + part.count > start)
    last = last or (log[-1].first_sequence + log[-1].count - 1 if log else 0)
    found = LogFound(request, last, finished=finished, segments=searched_part(rest, request))
    return search(found)[0]


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


@example(parts=[(0, False, [Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"\r\x1b[31m\n")])], pattern="\r",
         regex=False, ignore_case=False, context=0, from_line=1, limit=1, cut=8)  # fmt: skip
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
    flags = re.ASCII | (re.IGNORECASE if ignore_case else re.NOFLAG)  # RE2's `\b` and the like are of ASCII
    compiled = re.compile(python if regex else re.escape(pattern), flags)
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
    matches = [hit for page in found for hit in page.hits]
    assert list(map(as_line, matches)) == expected
    assert found[-1].lines == len(all_lines)
    assert [all_lines[hit.line - 1] for hit in matches] == expected, "a line has another number"
    assert all(len(page.hits) <= limit + context + len(Stream) for page in found)


unfinished_lines = st.builds(
    UnfinishedLine,
    stream=st.sampled_from(Stream),
    sequence=st.integers(1, 9),
    offset=st.integers(0, 70_000),
    attempt=st.integers(0, 3),
    timestamp_ms=st.just(1),
    data=outputs,
)
places = st.builds(
    SearchPlace,
    sequence=st.integers(1, 12) | st.just(MILLISECONDS_MAX),
    offset=st.integers(0, 40) | st.just(65_536),
    lines=st.integers(0, 9) | st.just(MILLISECONDS_MAX - 100_000),
    attempt=st.integers(0, 3),
    unfinished=st.lists(unfinished_lines, max_size=2, unique_by=lambda line: line.stream).map(tuple),
    after=st.integers(0, 16),
)


@given(
    parts=parts_of_logs,
    place=places,
    pattern=st.sampled_from(PLAIN),
    context=st.integers(0, 2),
    limit=st.integers(1, 3),
)
def test_any_place_of_a_client_leads_to_an_end(
    parts: Any, place: SearchPlace, pattern: str, *, context: int, limit: int
) -> None:
    request = SearchLog(job_id=JOB, pattern=pattern, context=context, limit=limit, place=place)
    for page in pages(logged(parts), request):
        assert decode_reply(encode(page)) == page, "a page that cannot be sent"


def test_a_place_that_has_two_unfinished_lines_of_one_stream_is_refused() -> None:
    line = UnfinishedLine(stream=Stream.STDOUT, sequence=1, attempt=1, timestamp_ms=1, data=b"a")
    with pytest.raises(ValueError, match="one unfinished line"):
        SearchPlace(sequence=1, unfinished=(line, line))


def printed(*texts: bytes) -> list[Segment]:
    """A log with a segment for each text."""
    return logged([(0, False, [Output(timestamp_ms=1, stream=Stream.STDOUT, data=text)]) for text in texts])


def test_a_request_takes_a_bounded_part_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SEARCHED_BYTES_MAX", 3 * len(printed(b"line\n")[0].events))
    monkeypatch.setattr(searching, "READ_BYTES_MAX", 1)
    log = printed(*[b"line\n"] * 7)

    def looked(**fields: Any) -> list[int]:
        found = pages(log, SearchLog(job_id=JOB, **fields))
        return [page.lines for page in found]

    assert looked(pattern="no") == [3, 6, 7]
    assert looked(from_line=9) == [3, 6, 7]
    assert looked(from_line=6) == [3, 6, 7]
    assert looked() == [1, 2, 3, 4, 5, 6, 7], "lines that are only read"
    monkeypatch.setattr(searching, "STORED_BYTES_MAX", 1)
    assert looked(pattern="no") == [1, 2, 3, 4, 5, 6, 7]
    monkeypatch.undo()
    monkeypatch.setattr(searching, "SEARCHED_SEGMENTS_MAX", 2)
    assert looked(pattern="no") == [2, 4, 6, 7]


def test_a_page_has_so_many_bytes_of_hits_and_of_each_line_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "HITS_BYTES_MAX", 2 * SHOWN_BYTES_MAX)
    long = b"x" * 12_000 + b"\n"
    first, second, third = pages(printed(long * 5), SearchLog(job_id=JOB))
    assert [len(page.hits) for page in (first, second, third)] == [2, 2, 1]
    assert {(len(hit.data), hit.size_bytes) for page in (first, second, third) for hit in page.hits} == {
        (SHOWN_BYTES_MAX, len(long))
    }
    assert [hit.offset for hit in second.hits] == [2 * len(long), 3 * len(long)]


def test_a_page_ends_before_damage_and_a_search_that_starts_there_is_refused() -> None:
    whole = printed(b"one\n", b"two\n", b"three\n")
    torn = [*whole[:1], replace(whole[1], events=b"\xc1"), *whole[2:]]
    for log, missing in ((torn, "cannot be decoded"), ([whole[0], whole[2]], "is missing"), (torn[:1], "is missing")):
        request = SearchLog(job_id=JOB)
        page = one_page(log, request, last=3)
        assert page.place is not None
        assert [hit.text for hit in page.hits] == ["one"]
        with pytest.raises(CorruptLog, match=missing):
            one_page(log, replace(request, place=page.place), last=3)


def test_damage_that_the_engine_meets_ends_a_part_or_is_raised() -> None:
    def read(sound: int) -> Iterator[Segment]:
        yield from printed(*[b"a\n"] * sound)
        raise CorruptLog

    assert len(searched_part(read(2), SearchLog(job_id=JOB))) == 2
    with pytest.raises(CorruptLog):
        searched_part(read(0), SearchLog(job_id=JOB))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?i).*x.*y.*z", "(x+x+)+y", "(a|aa)*b", ".*.*.*.*.*=.*", "(.?){200}q"])
def test_no_pattern_takes_more_than_linear_time(pattern: str) -> None:
    text = b"a" * 65_000 + b"!\n"
    assert LinePattern(pattern, regex=True, ignore_case=False).find(text * 40, 0) == -1


@pytest.mark.parametrize("pattern", ["(", "a**", "(?=a)", r"\1", "[^a]{1000}[^b]{1000}", "(((a{100}){100}){100})"])
def test_a_pattern_that_is_invalid_or_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        LinePattern(pattern, regex=True, ignore_case=False)
    assert LinePattern(pattern, regex=False, ignore_case=True).find(b"..\n" + pattern.encode() + b"\n", 0) == 3


@pytest.mark.parametrize("limit", [1, 1_000])
@pytest.mark.parametrize("returns", [b"\n", b"\r\n"])
@pytest.mark.parametrize("together", [False, True])
def test_context_is_around_each_match_and_says_so(
    limit: int, returns: bytes, monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> None:
    monkeypatch.setattr(searching, "SEARCHED_SEGMENTS_MAX", 1)
    lines = [letter.encode() + returns for letter in "abxxcdefxg"]
    log = printed(b"".join(lines)) if together else printed(*lines)
    found = pages(log, SearchLog(job_id=JOB, pattern="^x$", regex=True, context=1, limit=limit))
    assert "".join(hit.text for page in found for hit in page.hits) == "bxxcfxg"
    assert [hit.line for page in found for hit in page.hits if hit.match] == [3, 4, 9]
    assert found[-1].lines == len(lines)


def test_a_page_ends_with_the_event_after_which_it_is_late_and_the_next_one_goes_on() -> None:
    log = logged([(0, True, [Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"a\n")] * 5)])
    request, lines = SearchLog(job_id=JOB, pattern="no"), list[int]()
    looks = iter([False, True, True, False, False])
    while True:
        page, _ = search(LogFound(request, 5, finished=True, segments=tuple(log)), lambda: next(looks))
        lines.append(page.lines)
        if page.place is None:
            break
        request = replace(request, place=page.place)
    assert lines == [2, 3, 5]
