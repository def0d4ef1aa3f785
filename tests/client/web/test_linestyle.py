"""Styles of a log's lines: what a terminal would show of each, as text and classes."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.web.lines import SEQUENCES_MAX, rows_of
from airunner.client.web.linestyle import (
    CLASSES,
    MARKS,
    SHOWN_CHARS_MAX,
    LineStyles,
    Span,
    group_name,
    group_of,
    reported,
    text_of,
)
from airunner.protocol.events import Stream
from airunner.protocol.logsearch import LogLine

OUT, ERR = Stream.STDOUT, Stream.STDERR
NAMES = {*MARKS.values(), "in-page", "on-ink"} | {f"{kind}-{n}" for kind in ("fg", "bg", "in", "on") for n in CLASSES}
PIECES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    st.sampled_from(["\r", "\b", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[3D", "\x1b[2C", "\x1b[5G", "\x1b[P", "\x1b[X"]),
    st.sampled_from(
        ["\x1b[31m", "\x1b[0m", "\x1b[1;44m", "\x1b[38;5;200m", "\x1b[7m", "\x1b]0;title\x07", "\x1b[?25l"]
    ),
)


def spans(line: bytes) -> list[Span]:
    return LineStyles().spans(OUT, 1, line)[0]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\n", [("plain",)]),
        (b"windows\r\n", [("windows",)]),
        (b"\x1b[31mred\x1b[0m plain", [("red", "fg-red"), (" plain",)]),
        (b"\x1b[1;4;92mbright", [("bright", "bold under fg-brightgreen")]),
        (b"\x1b[38;5;9mnamed\x1b[38;5;200mof 256", [("named", "fg-brightred"), ("of 256", "", "#ff00d7", "")]),
        (b"\x1b[38;2;1;2;3;48;2;255;0;128mtrue", [("true", "", "#010203", "#ff0080")]),
        (b"\x1b[7mreversed", [("reversed", "in-page on-ink")]),
        (b"\x1b[7;44mreversed", [("reversed", "in-blue on-ink")]),
        (b"\x1b[7;31mreversed", [("reversed", "in-page on-red")]),
        (b" 9%\r10%\r100%\n", [("100%",)]),
        (b"abc\b\bX\n", [("aXc",)]),
        (b"gone\r\x1b[2Kleft", [("left",)]),
        (b"\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", [("link",)]),
        (b"\x1b]0;title\x07<script>alert(1)</script>", [("<script>alert(1)</script>",)]),
        (b"\xff\xfe", [("\ufffd\ufffd",)]),
        (b"", []),
    ],
)
def test_a_line_is_shown_as_a_terminal_shows_it(line: bytes, shown: list[Span]) -> None:
    assert spans(line) == shown


def test_a_colour_lasts_until_it_is_changed_in_its_stream_and_attempt() -> None:
    styles = LineStyles()
    styles.spans(OUT, 1, b"\x1b[31mred\n")
    assert styles.spans(ERR, 1, b"plain\n")[0] == [("plain",)]
    assert styles.spans(OUT, 1, b"still\n")[0] == [("still", "fg-red")]
    assert styles.spans(OUT, 2, b"again\n")[0] == [("again",)]


def test_a_long_line_is_cut_and_what_is_left_out_is_counted() -> None:
    shown, cut = LineStyles().spans(OUT, 1, b"a" * (SHOWN_CHARS_MAX - 1) + b"\x1b[1mbcd")
    assert [span[0][-1] for span in shown] == ["a", "b"]
    assert cut == 2


@given(st.binary(max_size=200).map(lambda line: line.replace(b"\n", b"")))
def test_whatever_a_job_writes_becomes_text_with_known_classes(line: bytes) -> None:
    for text, *style in spans(line):
        assert not {*text} & {*map(chr, range(32))}
        assert {*" ".join(style[:1]).split()} <= NAMES
        assert all(colour == "" or (len(colour) == 7 and int(colour[1:], 16) >= 0) for colour in style[1:])


@given(st.lists(PIECES, max_size=12))
def test_the_text_is_that_of_a_terminal(pieces: list[str]) -> None:
    line = "".join(pieces)
    screen = pyte.Screen(200, 1)
    pyte.Stream(screen).feed(line)
    assert "".join(text for text, *_ in spans(line.encode())).rstrip() == screen.display[0].rstrip()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("--- Tests", "folded"),
        ("+++ Tests", "open"),
        ("::group::Tests", "folded"),
        ("::endgroup::", "end"),
        ("~~~ Set up", "folded"),
        ("^^^ +++", "opened"),
        ("##[group]Tests", "folded"),
        ("##[endgroup]", "end"),
        ("~~~~~~", ""),
        ("^^^", ""),
        ("--- a/setup.py", ""),
        ("+++ b/setup.py", ""),
        ("--- /dev/null", ""),
        ("------", ""),
        (" --- Tests", ""),
    ],
)
def test_groups_are_those_of_buildkite_github_and_azure_and_no_diff(text: str, kind: str) -> None:
    assert group_of(text) == kind


def test_a_group_of_github_is_shown_by_its_name() -> None:
    assert group_name(spans(b"::group::\x1b[31mBuild\x1b[0m it")) == [("Build", "fg-red"), (" it",)]
    assert group_name(spans(b"::gr\x1b[1moup::Build")) == [("Build", "bold")]
    assert group_name(spans(b"##[group]Build")) == [("Build",)]
    assert group_name(spans(b"::endgroup::")) == group_name(spans(b"##[endgroup]")) == []
    assert group_name(spans(b"--- Build")) == [("--- Build",)]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"::error::bad", [("::error::bad", "said-error")]),
        (b"::error file=a.c,line=3::bad", [("::error file=a.c,line=3::bad", "said-error")]),
        (b"::warning::a \x1b[1mbold", [("::warning::a ", "said-warning"), ("bold", "said-warning bold")]),
        (b"##[error]a\x1b[38;2;1;2;3mb", [("##[error]a", "said-error"), ("b", "said-error", "#010203", "")]),
        (b"##[warning]old", [("##[warning]old", "said-warning")]),
        (b" ::error::no", [(" ::error::no",)]),
        (b"::errors::no", [("::errors::no",)]),
        (b"::error no", [("::error no",)]),
    ],
)
def test_errors_and_warnings_of_github_and_azure_are_text_with_a_class(line: bytes, shown: list[Span]) -> None:
    assert reported(spans(line)) == shown


def test_lines_with_more_escape_sequences_than_a_window_may_have_are_plain() -> None:
    coloured = b"".join(b"\x1b[3%dmX" % (number % 7 + 1) for number in range(1_360))
    line = LogLine(
        line=1,
        sequence=1,
        offset=0,
        attempt=1,
        stream=Stream.STDOUT,
        timestamp_ms=0,
        data=coloured,
        size_bytes=len(coloured),
        match=True,
    )
    rows = rows_of([line] * 1_000)
    assert {text_of(row["s"]) for row in rows} == {"X" * 1_360}
    spans = [len(row["s"]) for row in rows]
    assert spans[:7] == [1_360] * 7
    assert sum(spans) <= SEQUENCES_MAX + len(rows)
