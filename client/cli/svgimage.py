"""SVG image of a job's terminal: an animation in one file, without scripts, as README files and pages embed it.

A recording (`cast`) is played on an emulated screen; each state of the screen that lasts is a frame. The frames lie
below one another, and CSS moves the one whose time it is into view; rows that are equal are there once. Pauses are cut
to `IDLE_MAX_MS`, and the last frame stays for `LAST_MS` before it all begins again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Final

from wcwidth import wcswidth

from airunner.client.cli.cast import Cast
from airunner.client.cli.emulator import Emulator
from airunner.client.cli.htmlpage import colours_of
from airunner.client.cli.styled import Row
from airunner.protocol.events import Event
from airunner.protocol.fields import JobSpec

FRAME_MS: Final = 50  # shortest time of a frame
FRAMES_MAX: Final = 1_000  # of a longer recording the beginning is shown
IDLE_MAX_MS: Final = 2_000
LAST_MS: Final = 4_000
_CELL: Final = (8.4, 18)  # width and height of a character at 14 px
_PAD: Final = 14
_FONT: Final = 'font-family="ui-monospace,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="14"'
Frame = tuple[int, ...]
"""Frame: the numbers of its rows."""


class SvgImage:
    """SVG image of a job: takes its events, and is complete at the end."""

    def __init__(self, spec: JobSpec, title: str) -> None:
        self._cast = Cast(spec, title)
        self._title = title
        self._emulator = Emulator(spec.terminal.cols, spec.terminal.rows, 1)
        self._size = (spec.terminal.cols, spec.terminal.rows)  # the largest that the terminal has
        self._rows: dict[str, int] = {"": 0}  # the number of each row that is shown, by its elements
        self._frames: list[tuple[int, Frame]] = []  # from when on each is shown, in ms
        self._now_ms = 0
        self._changed = False

    def feed(self, event: Event) -> bytes:
        """Show the next event on the screen; return nothing yet."""
        for line in self._cast.feed(event).splitlines():
            if line.startswith("["):
                pause_s, code, text = json.loads(line)
                self._show(int(pause_s * 1_000), code, text)
        return b""

    def _show(self, pause_ms: int, code: str, text: str) -> None:
        if self._changed and pause_ms >= FRAME_MS:
            self._keep()
        self._now_ms += min(pause_ms, IDLE_MAX_MS)
        if code == "o":
            self._changed = True
            list(self._emulator.feed(text.encode(), 0))  # what leaves the screen is not shown
        elif code == "r":
            cols, rows = map(int, text.split("x"))
            self._size = (max(cols, self._size[0]), max(rows, self._size[1]))
            self._emulator.resize(cols, rows)

    def _keep(self) -> None:
        """Keep the screen as a frame, from now on."""
        self._changed = False
        if len(self._frames) < FRAMES_MAX:
            rows = tuple(self._rows.setdefault(_elements(row), len(self._rows)) for row in self._emulator.rows())
            self._frames.append((self._now_ms, rows))

    def end(self) -> bytes:
        """Return the image."""
        if self._changed or not self._frames:
            self._keep()
        return "".join(self._image()).encode()

    def _image(self) -> Iterator[str]:
        cols, rows = self._size
        width, height = cols * _CELL[0] + 2 * _PAD, rows * _CELL[1] + 2 * _PAD
        total_ms = self._frames[-1][0] + LAST_MS
        title = escape(self._title)
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        yield f'xml:space="preserve" {_FONT}>\n<title>{title}</title>\n'
        yield "<style>text{fill:#e6edf3;white-space:pre}.b{font-weight:bold}"
        yield ".f{opacity:.6}.i{font-style:italic}.u{text-decoration:underline}.s{text-decoration:line-through}"
        yield f"#f{{animation:f {total_ms}ms steps(1) infinite}}@keyframes f{{"
        for number, (begin_ms, _) in enumerate(self._frames):
            begin = 0.0 if number == 0 else 100 * begin_ms / total_ms
            yield f"{begin:.3f}%{{transform:translateY(-{number * height:g}px)}}"
        yield "}</style>\n<defs>\n"
        yield "".join(f'<g id="r{number}">{elements}</g>\n' for elements, number in self._rows.items() if number)
        yield f'</defs>\n<rect width="{width:g}" height="{height:g}" rx="8" fill="#0d1117"/>\n<g id="f">\n'
        for number, (_, frame) in enumerate(self._frames):
            top = number * height + _PAD
            uses = (f'<use href="#r{row}" y="{top + y * _CELL[1]:g}"/>' for y, row in enumerate(frame) if row)
            yield f'<g transform="translate({_PAD})">{"".join(uses)}</g>\n'
        yield "</g>\n</svg>\n"


def _elements(row: Row) -> str:
    """Return the elements of a row: backgrounds, then texts."""
    backs: list[str] = []
    texts: list[str] = []
    column = 0
    for text, style in row.runs:
        cells = max(0, wcswidth(text))
        fg, bg = colours_of(style)
        x, width = column * _CELL[0], cells * _CELL[0]
        if bg:
            backs.append(f'<rect x="{x:g}" width="{width:g}" height="{_CELL[1]}" fill="{bg}"/>')
        if text.strip():
            marks = style.marks.replace("r", "")
            attributes = (f' class="{" ".join(marks)}"' if marks else "") + (f' style="fill:{fg}"' if fg else "")
            shown = escape(text, quote=False)
            texts.append(f'<text x="{x:g}" y="14" textLength="{width:g}"{attributes}>{shown}</text>')
        column += cells
    return "".join((*backs, *texts))
