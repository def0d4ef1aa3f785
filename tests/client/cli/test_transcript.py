"""What a terminal has shown of a job, as text and as a page; held against pyte, a terminal emulator."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.cli.emulator import Emulator
from airunner.client.cli.exporters import Html, Text
from airunner.client.cli.styled import LineScreen, Row, Style
from airunner.client.cli.svgimage import SvgImage
from airunner.protocol import events
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import Event, EventBody, Output, Stream
from airunner.protocol.fields import JobSpec, ProcessType, TerminalSize
from airunner.protocol.job import Job, JobState, Result
from airunner.protocol.names import JobId
from tests.client.cli.test_output import event

SPEC = JobSpec(command="sh", args=("-c", "a <b>"))
PTY = JobSpec(command="sh", process_type=ProcessType.PTY, terminal=TerminalSize(cols=20, rows=4))
PIECES = st.sampled_from(
    [
        *("ab", "<&", "é", "\r", "\b", "\t", "\x1b[2C", "\x1b[3D", "\x1b[5G", "\x1b[K", "\x1b[1K", "\x1b[2K"),
        *("\x1b[P", "\x1b[2@", "\x1b[3X", "\x1b[1;31m", "\x1b[38;5;208m", "\x1b[48;2;1;2;3m", "\x1b[94;7m", "\x1b[0m"),
        *("\x1b[22;39m", "\x1b[4;9;3m", "\x1b[24;29;49m", "\x1b[105m"),
    ]
)


def row_of(line: bytes) -> Row:
    (row,) = rows_of(line) or [Row((), 0, 1)]
    return row


def rows_of(*outputs: bytes, cols: int = 400, rows: int = 4) -> list[Row]:
    emulator = Emulator(cols, rows, 1)
    left = [row for at, output in enumerate(outputs) for row in emulator.feed(output, at)]
    return [*left, *emulator.rows()]


@given(st.lists(PIECES, max_size=12))
def test_a_line_of_a_pipe_is_shown_as_a_terminal_shows_it(pieces: list[str]) -> None:
    line = "".join(pieces).encode()
    shown, expected = LineScreen().render(line + b"\n"), row_of(line).runs

    def cells(runs: tuple[tuple[str, Style], ...]) -> list[tuple[str, Style]]:
        found = [(char, style) for text, style in runs for char in text]
        while found and found[-1][0] == " ":
            found.pop()
        return [(char, style if char != " " else Style()) for char, style in found]  # erased cells may have a style

    assert cells(shown) == cells(expected)


@given(st.lists(st.binary(max_size=30), max_size=30))
def test_no_output_stops_the_emulator(pieces: list[bytes]) -> None:
    for begin in (b"", b"\x1b[", b"\x1b[?", b"\x1b[>1;2"):
        rows_of(*(begin + piece for piece in pieces), cols=7, rows=3)


def test_a_cursor_that_moves_relative_to_margins_that_are_not_set_stops_no_emulator() -> None:
    emulator = Emulator(20, 3, 1)
    assert list(emulator.feed(b"\x1b[?6h\x1b[2dstill", 0)) == []
    assert [row.text for row in emulator.rows()][-1] == "still"


def test_what_leaves_the_screen_is_kept_with_its_time_and_an_alternate_screen_leaves_nothing() -> None:
    rows = rows_of(*(b"line %d\r\n" % number for number in range(7)))
    assert [(row.text, row.timestamp_ms) for row in rows] == [(f"line {number}", number) for number in range(7)]
    rows = rows_of(b"one\r\n", b"\x1b[?1049h\x1b[Hfull", b"\r\n" * 9 + b"screen", b"\x1b[?1049l", b"two")
    assert [row.text for row in rows] == ["one", "two"]


def log(*bodies: EventBody) -> list[Event]:
    started = events.ProcessStart(timestamp_ms=1_000, pid=1, started_at=1_000)
    leased = events.JobLeased(timestamp_ms=0, agent="a")
    return [event(body, number, 1) for number, body in enumerate([leased, started, *bodies], start=1)]


def out(ms: int, data: bytes, stream: Stream = Stream.STDOUT) -> Output:
    return Output(timestamp_ms=ms, stream=stream, data=data)


def test_text_is_what_a_terminal_shows_without_colours() -> None:
    pieces = [out(1_000, b"\x1b[31mred\x1b[0m\n1 %\r2"), out(2_000, b"oh\n", Stream.STDERR), out(3_000, b" %\nend")]
    text = Text(SPEC)
    assert b"".join(map(text.feed, log(*pieces))) + text.end() == b"red\noh\n2 %\nend\n"
    wide = events.TerminalResize(timestamp_ms=1_500, cols=30, rows=4)
    text = Text(PTY)
    shown = b"".join(map(text.feed, log(out(1_000, b"x" * 25), wide, out(2_000, b"\r\n" + b"y" * 25))))
    assert shown + text.end() == b"x" * 20 + b"\nxxxxx\n" + b"y" * 25 + b"\n"


class Page(HTMLParser):
    """The lines of a page: class, time and text; and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "p":
            self.lines.append([dict(attrs).get("class") or "", ""])

    def handle_data(self, data: str) -> None:
        if self.lines:
            self.lines[-1][1] += data


def test_a_page_has_the_lines_with_colours_and_times_and_needs_nothing_else() -> None:
    job = Job(
        id=JobId("id"), state=JobState.FAILED, submitted_ms=0, spec=SPEC, result=Result(exit_code=3), agent="build-7"
    )
    finished = events.JobFinished(timestamp_ms=9_000, state=JobState.FAILED, exit_code=3)
    page = Html(job, "<title>")
    shown = b"".join(
        page.feed(each)
        for each in log(out(1_250, b"\x1b[1;31ma<b\x1b[0m &amp;\n"), out(2_000, b"err\n", Stream.STDERR), finished)
    )
    text = (shown + page.end()).decode()
    parsed = Page(text)
    assert [(kind, line.strip()) for kind, line in parsed.lines] == [
        ("n", "leased by a"),
        ("n", "started, pid 1"),
        ("", "+0.2sa<b &amp;"),
        ("e", "+1.0serr"),
        ("n", "FAILED, exit code 3 after 8.0 s"),
    ]
    assert '<b class="b" style="color:#e5534b">a&lt;b</b> &amp;amp;</span>' in text
    assert "sh -c &#x27;a &lt;b&gt;&#x27;" in text
    assert not parsed.tags & {"script", "img", "link", "iframe"}
    assert not re.search(r"https?:|@import|url\(", text)
    empty = Html(job, "t").end().decode()
    assert Page(empty).lines == []


def test_an_image_has_a_frame_for_each_state_that_lasts_and_each_row_once() -> None:
    image = SvgImage(PTY, "<t>")
    pieces = [
        out(1_000, b"\x1b[31ma<\x1b[0m\r\n"),
        out(1_010, b"\xe6\xbc\xa2\x1b[44mb\x1b[0m"),
        out(9_000, b"\r\na<"),
        out(9_500, b"\x1b[0m\x1b[2J"),
    ]
    assert b"".join(map(image.feed, log(*pieces, events.JobFinished(timestamp_ms=0, state=JobState.COMPLETED)))) == b""
    svg = image.end().decode()
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "<t>"
    rows = ["".join(row.itertext()) for row in root.findall(f"{space}defs/{space}g")]
    assert rows == ["a<", "漢b", "a<"], "the first is red"
    frames = [[use.get("href") for use in frame] for frame in root.findall(f"{space}g/{space}g")]
    assert frames == [["#r1", "#r2"], ["#r1", "#r2", "#r3"], []]
    assert re.findall(r"([\d.]+)%{transform", svg) == ["0.000", "30.876", "38.556"], "of 10 ms, 2 s, 0.5 s and 4 s"
    assert '<rect x="16.8" width="8.4" height="18" fill="#539bf5"/>' in svg
    assert b"<use" not in SvgImage(SPEC, "t").end()


def test_a_terminals_text_needs_an_emulator_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airunner.client.cli.emulator", None)
    with pytest.raises(OperatorError, match=r"pip install 'airunner-jobs\[export\]'"):
        Text(PTY)
