"""Index of a log: which places it remembers, and that it stays small."""

from __future__ import annotations

from airunner.client.web.logindex import (
    GROUPS_MAX,
    PLACES_MAX,
    SPACING_LINES,
    UNFINISHED_BYTES_MAX,
    LogIndex,
    LogIndexes,
    unfinished,
    whole_lines,
)
from airunner.protocol.events import Stream
from airunner.protocol.logsearch import START, LogLine, SearchPlace, UnfinishedLine
from airunner.protocol.replies import LogSearched


def place(lines: int, unfinished_bytes: int = 0) -> SearchPlace:
    data = b"x" * unfinished_bytes
    begun = UnfinishedLine(stream=Stream.STDOUT, sequence=1, attempt=1, timestamp_ms=0, data=data)
    return SearchPlace(sequence=lines + 1, lines=lines, unfinished=(begun,) if data else ())


def page(lines: int, unfinished_bytes: int = 0) -> LogSearched:
    return LogSearched(place=place(lines, unfinished_bytes), lines=lines)


def line(number: int, text: str) -> LogLine:
    data = text.encode()
    return LogLine(
        line=number,
        sequence=1,
        attempt=1,
        stream=Stream.STDOUT,
        timestamp_ms=0,
        data=data,
        size_bytes=len(data),
    )


def test_a_line_is_read_from_the_last_place_before_it() -> None:
    index = LogIndex()
    for lines in (50_000, 10_000, 30_000):
        index.note(page(lines))
    found = [index.before(number) for number in (1, 10_000, 10_001, 49_999, 50_001, 10**9)]
    assert [None if at is None else at.lines for at in found] == [None, None, 10_000, 30_000, 50_000, 50_000]


def test_places_are_apart_few_and_small() -> None:
    index = LogIndex()
    for number in range(3 * PLACES_MAX):
        index.note(page((number + 1) * SPACING_LINES))
        index.note(page((number + 1) * SPACING_LINES + 1))
    kept = {
        place.lines for place in map(index.before, range(0, 4 * PLACES_MAX * SPACING_LINES, SPACING_LINES)) if place
    }
    assert PLACES_MAX / 2 <= len(kept) <= PLACES_MAX
    assert not any(lines % SPACING_LINES for lines in kept)
    index = LogIndex()
    index.note(page(10_000, UNFINISHED_BYTES_MAX + 1))
    assert index.before(10**9) is None


def test_the_end_of_a_log_that_grows_is_remembered_and_its_unfinished_lines_are_no_lines() -> None:
    grown = LogSearched(hits=(line(5_000, "last\n"), line(5_001, "10 %")), lines=5_001, end=place(5_000))
    assert whole_lines(grown) == 5_000
    assert [row.line for row in unfinished(grown)] == [5_001]
    index = LogIndex()
    index.note(grown)
    assert index.before(5_001) == place(5_000)


def test_groups_are_found_once_and_bounded() -> None:
    index = LogIndex()
    first = LogSearched(hits=(line(1, "--- one"), line(2, "--- a/file")), place=place(2), lines=2)
    index.note_groups(START, first)
    index.note_groups(START, first)  # another request has found the same
    assert index.groups == [(1, "folded")]
    assert index.grouped == place(2)
    many = tuple(line(number, "+++ more") for number in range(3, GROUPS_MAX + 10))
    index.note_groups(place(2), LogSearched(hits=many, lines=GROUPS_MAX + 9))
    assert len(index.groups) == GROUPS_MAX


def test_a_group_in_which_something_went_wrong_is_open() -> None:
    index = LogIndex()
    texts = ("^^^ +++", "--- one", "^^^ +++", "::group::two", "::endgroup::", "^^^ +++", "~~~ three")
    found = tuple(line(number, text) for number, text in enumerate(texts, 1))
    index.note_groups(START, LogSearched(hits=found, lines=len(found)))
    assert index.groups == [(2, "open"), (4, "folded"), (5, "end"), (7, "folded")]


def test_the_logs_that_were_read_last_are_remembered() -> None:
    indexes = LogIndexes(2)
    first, second = indexes.of("a"), indexes.of("b")
    assert indexes.of("a") is first
    indexes.of("c")
    assert indexes.of("a") is first
    assert indexes.of("b") is not second
