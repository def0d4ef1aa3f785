r"""Line styles of a log in a page: the bytes of one line become spans of text with a style. Pure.

```
 b"9%\r\x1b[31m10%\x1b[0m done\n" ── LineScreen ──► runs ── span_of ──► [["10%", "fg-red"], [" done"]]
```

A line is shown as a terminal shows it (see `client.cli.styled`): colours stay, a carriage return, a backspace and an
erased line overwrite what was there, and every other control sequence is left out, also a link's address. Nothing in a
span is ever read as HTML: the page makes a text node of its text, and its classes are those of this module.
"""

from __future__ import annotations

import re
from typing import Final

from airunner.client.cli.styled import COLOURS, LineScreen, Run, Style
from airunner.protocol.events import STREAMS, Stream

SHOWN_CHARS_MAX: Final = 4_096  # of a line in a page: longer ones are cut, as browsers lay out long lines slowly
MARKS: Final = {"b": "bold", "f": "faint", "i": "italic", "s": "struck", "u": "under"}
CLASSES: Final = tuple(f"{bright}{colour}" for bright in ("", "bright") for colour in COLOURS)
"""Colours with classes in the style sheet: `fg-…` and `bg-…`, and reversed `on-…` and `in-…`; others are #rrggbb."""

GROUP_PATTERN: Final = r"^(--- |\+\+\+ |~~~ |\^\^\^ \+\+\+|::group::|::endgroup::|##\[group\]|##\[endgroup\])"
"""Pattern of lines that divide a log into groups, for a search of it."""
OPENED: Final = "opened"  # the group before this line: what is in it went wrong

_SEQUENCE: Final = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
_GROUP: Final = re.compile(GROUP_PATTERN)
_DIFF: Final = re.compile(r"(--- (a/|/dev/null)|\+\+\+ (b/|/dev/null))")  # the head of a diff is no group
_GROUPS: Final = {
    "--- ": "folded",
    "~~~ ": "folded",
    "+++ ": "open",
    "^^^ +++": OPENED,
    "::group::": "folded",
    "##[group]": "folded",
    "::endgroup::": "end",
    "##[endgroup]": "end",
}
_NAMED: Final = re.compile(r"(::|##\[)(end)?group(::|\])")
_REPORT: Final = re.compile(r"::(error|warning)(?: [^\n]*?)?::|##\[(error|warning)\]")

Span = tuple[str] | tuple[str, str] | tuple[str, str, str, str]
"""Text, the classes of its style, and its colours of text and background where they have no class."""


class LineStyles:
    """Line styles of a window of a log: a colour lasts until it is changed, in each stream, and in one attempt."""

    def __init__(self) -> None:
        self._attempt = 0
        self._screens = {stream: LineScreen() for stream in STREAMS}

    def spans(self, stream: Stream, attempt: int, line: bytes) -> tuple[list[Span], int]:
        """Return the spans of the next line, and the number of characters at its end that are left out."""
        if attempt != self._attempt:
            self._attempt = attempt
            self._screens = {stream: LineScreen() for stream in STREAMS}
        return cut(self._screens[stream].render(line))


def without_sequences(line: bytes) -> bytes:
    """Remove escape sequences in little time, and what is left of others."""
    return _SEQUENCE.sub(b"", line).replace(b"\x1b", b"")


def cut(runs: tuple[Run, ...], chars_max: int = SHOWN_CHARS_MAX) -> tuple[list[Span], int]:
    """Return runs as spans with at most `chars_max` characters, and the number of characters that are left out."""
    spans: list[Span] = []
    room = chars_max
    for text, style in runs:
        if room > 0:
            spans.append(span_of(text[:room], style))
        room -= len(text)
    return spans, max(0, -room)


def span_of(text: str, style: Style) -> Span:
    """Return a run as a span."""
    fg, bg, kinds = style.fg, style.bg, ("fg", "bg")
    if "r" in style.marks:
        fg, bg, kinds = bg or "page", fg or "ink", ("in", "on")
    names = [MARKS[mark] for mark in style.marks if mark in MARKS]
    names += [f"{kind}-{colour}" for kind, colour in zip(kinds, (fg, bg), strict=True) if colour and colour[0] != "#"]
    true_fg, true_bg = (colour if colour.startswith("#") else "" for colour in (fg, bg))
    if true_fg or true_bg:
        return text, " ".join(names), true_fg, true_bg
    return (text, " ".join(names)) if names else (text,)


def group_name(spans: list[Span]) -> list[Span]:
    """Return the spans of a line that divides a log without the mark of GitHub, so that they name the group."""
    found = _NAMED.match(text_of(spans))
    marked = 0 if found is None else found.end()
    rest: list[Span] = []
    for text, *style in spans:
        if len(text) > marked:
            rest.append((text[marked:], *style))  # type: ignore[arg-type]
        marked = max(0, marked - len(text))
    return rest


def group_of(text: str) -> str:
    """Return how a line divides a log into groups: `folded` or `open` begins one, `end` ends it; empty: it does not.

    `--- `, `~~~ `, `+++ ` and `^^^ +++`, which opens the group before it, are those of Buildkite, `::group::` and
    `::endgroup::` those of GitHub, and `##[group]` and `##[endgroup]` those of Azure, and of GitHub's stored logs.
    """
    found = _GROUP.match(text)
    return "" if found is None or _DIFF.match(text) else _GROUPS[found[1]]


def text_of(spans: list[Span]) -> str:
    """Return the text of spans."""
    return "".join(span[0] for span in spans)


def reported(spans: list[Span]) -> list[Span]:
    """Return the spans of a line with the class of an error or a warning, if it is one of GitHub's or Azure's."""
    found = _REPORT.match(text_of(spans))
    if found is None:
        return spans
    name = f"said-{found[1] or found[2]}"
    return [(text, " ".join((name, *style[:1])).strip(), *style[1:]) for text, *style in spans]  # type: ignore[misc]  # its length follows from the span
