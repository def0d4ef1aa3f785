"""HTML page of a job's log: one file with colours and times, without scripts or anything from elsewhere. Pure.

```
 header: job, state, command, queue, agent, times
 +0.3s │ a line of stdout
 +0.4s │ a line of stderr, marked at its left
       │ a message of airunner's: an attempt begins, how the job ended
```

Each time is a link to its line. Times count from the start of the attempt's command, as in `monitor --timestamps`;
the instant is shown where the pointer rests. What the page shows of a terminal is its scrollback and last screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from airunner.client.cli.styled import COLOURS, PLAIN, Row, Run, Style
from airunner.client.cli.wording import millisecond_text
from airunner.protocol.events import AgentBody, Event, ProcessStart, Stream

PALETTE: Final = dict(  # of VS Code's terminal, readable on both backgrounds
    zip(
        (*COLOURS, *(f"bright{colour}" for colour in COLOURS)),
        (
            *("#3b3b3b", "#e5534b", "#3fb950", "#d29922", "#539bf5", "#b083f0", "#39c5cf", "#c9d1d9"),
            *("#7d8590", "#ff938a", "#6bc46d", "#eac55f", "#82b6ff", "#dcbdfb", "#56d4dd", "#ffffff"),
        ),
        strict=True,
    )
)
_STYLE: Final = """
body{background:#0d1117;color:#e6edf3;font:14px/1.45 ui-monospace,Menlo,Consolas,monospace;margin:0}
header{padding:16px;border-bottom:1px solid #30363d}h1{font-size:18px;margin:0 0 8px;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0}dt{color:#7d8590}
dd{margin:0;white-space:pre-wrap}
main{padding:8px 0}p{margin:0;padding:0 16px 0 0;white-space:pre-wrap;overflow-wrap:anywhere;display:flex}
p:hover,p:target{background:#1c2128}p>a{flex:none;width:9ch;text-align:right;padding-right:1.5ch;color:#7d8590;
text-decoration:none;user-select:none}p>span{border-left:3px solid transparent;padding-left:1ch;min-height:1.45em}
.e>span{border-color:#e5534b}.n{color:#7d8590;font-style:italic}.f{opacity:.6}.i{font-style:italic}
.u{text-decoration:underline}.s{text-decoration:line-through}.u.s{text-decoration:underline line-through}
p b{font-weight:normal}p .b{font-weight:bold}label{color:#7d8590}
.COMPLETED{color:#3fb950}.FAILED,.CANCELLED,.SKIPPED{color:#e5534b}
body:has(#t:not(:checked)) p>a{display:none}
"""


class HtmlPage:
    """HTML page with `title` and `facts` about the job, whose state is `state`."""

    def __init__(self, title: str, state: str, facts: Sequence[tuple[str, str]]) -> None:
        self._title = title
        self._state = state
        self._facts = facts
        self._began: dict[int, int] = {}  # when each attempt's command began, by its agent's clock
        self._number = 0

    def note_start(self, event: Event) -> None:
        """Note from the next event when its attempt's command began."""
        if isinstance(event.body, ProcessStart):
            self._began[event.attempt] = event.timestamp_ms
        elif isinstance(event.body, AgentBody):
            self._began.setdefault(event.attempt, event.timestamp_ms)

    def begin(self) -> Iterator[str]:
        """Return the page up to its first line."""
        title = escape(self._title)
        yield f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>\n'
        yield f'<header><h1>{title} <span class="{escape(self._state)}">{escape(self._state)}</span></h1><dl>\n'
        yield "".join(f"<dt>{escape(name)}<dd>{escape(value)}\n" for name, value in self._facts if value)
        yield '</dl><label><input type="checkbox" id="t" checked> times</label></header>\n<main>\n'

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """Return rows of output."""
        for row in rows:
            began_ms = self._began.setdefault(row.attempt, row.timestamp_ms)
            after = f"+{max(0, row.timestamp_ms - began_ms) / 1_000:.1f}s"
            kind = ' class="e"' if row.stream is Stream.STDERR else ""
            yield self._line(kind, millisecond_text(row.timestamp_ms), after, "".join(map(_run, row.runs)))

    def message(self, text: str, timestamp_ms: int) -> str:
        """Return a message of airunner's."""
        return self._line(' class="n"', millisecond_text(timestamp_ms), "", escape(text))

    def end(self) -> str:
        """Return the end of the page."""
        return "</main></html>\n"

    def _line(self, kind: str, instant: str, after: str, content: str) -> str:
        self._number += 1
        anchor = f"L{self._number}"
        return f'<p id="{anchor}"{kind}><a href="#{anchor}" title="{instant}">{after}</a><span>{content}</span>\n'


def _run(run: Run) -> str:
    text, style = run
    shown = escape(text, quote=False)
    if style == PLAIN:
        return shown
    marks, css = style.marks.replace("r", ""), css_of(style)
    attributes = (f' class="{" ".join(marks)}"' if marks else "") + (f' style="{css}"' if css else "")
    return f"<b{attributes}>{shown}</b>"


def css_of(style: Style) -> str:
    """Return the colours of a style in CSS."""
    fg, bg = colours_of(style)
    return ";".join(each for each in (fg and f"color:{fg}", bg and f"background:{bg}") if each)


def colours_of(style: Style) -> tuple[str, str]:
    """Return the colours of a style's text and background; empty: the default."""
    fg, bg = PALETTE.get(style.fg, style.fg), PALETTE.get(style.bg, style.bg)
    return (bg or "#0d1117", fg or "#e6edf3") if "r" in style.marks else (fg, bg)
