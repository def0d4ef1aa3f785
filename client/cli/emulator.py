"""Terminal emulator: renders the output of a job in a terminal, row by row as they leave the screen, with pyte.

What has scrolled off the top is kept, as in the scrollback of a terminal, with the time at which each row was begun.
The alternate screen of full-screen programs leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from itertools import compress
from typing import Any, Final

import pyte
from pyte.screens import Char

from airunner.client.cli.styled import Row, Run, Style, runs_of

_ALTERNATE: Final = frozenset({47, 1_047, 1_049})  # private modes of the alternate screen
_OF_PYTE: Final = {"default": "", "brown": "yellow", "brightbrown": "brightyellow", "bfightmagenta": "brightmagenta"}


class Emulator:
    """Emulator of the terminal of one attempt, of `cols` and `rows`."""

    def __init__(self, cols: int, rows: int, attempt: int) -> None:
        self.screen = _Screen(cols, rows, attempt)
        self._stream = pyte.ByteStream(_Lenient(self.screen))

    def feed(self, data: bytes, timestamp_ms: int) -> Iterator[Row]:
        """Show output; return the rows that have left the screen."""
        self.screen.now_ms = timestamp_ms
        self._stream.feed(data)
        left, self.screen.left = self.screen.left, []
        yield from left

    def resize(self, cols: int, rows: int) -> None:
        """Give the terminal another size."""
        self.screen.resize(rows, cols)

    def rows(self) -> list[Row]:
        """Return the rows that are on the screen, without empty ones at the end."""
        rows = [self.screen.row(number) for number in range(self.screen.lines)]
        while rows and not rows[-1].runs:
            rows.pop()
        return rows


class _Lenient:
    """Screen that ignores what pyte has no form for: a sequence with other parameters than it expects raises there."""

    def __init__(self, screen: _Screen) -> None:
        self._screen = screen

    def __getattr__(self, name: str) -> Any:
        """Return a method of the screen."""
        method = getattr(self._screen, name)
        if name == "draw" or not callable(method):
            return method

        def obey(*parameters: Any, **options: Any) -> None:
            with suppress(AssertionError, TypeError, ValueError, LookupError, UnboundLocalError):
                method(*parameters, **options)

        return obey


class _Screen(pyte.Screen):
    """Screen of pyte, which keeps what leaves it at the top."""

    def __init__(self, cols: int, rows: int, attempt: int) -> None:
        self.left: list[Row] = []
        self.now_ms = 0
        self._attempt = attempt
        self._begun: dict[int, int] = {}  # when the row of each number was begun
        self._main: dict[str, Any] | None = None  # what the alternate screen hides
        super().__init__(cols, rows)

    def row(self, number: int) -> Row:
        """Return a row of the screen."""
        cells = self.buffer[number]
        last = max((x for x, cell in cells.items() if cell != self.default_char), default=-1)
        runs = runs_of(_run(cells[x]) for x in range(min(last + 1, self.columns)))
        return Row(runs, self._begun.get(number, self.now_ms), self._attempt)

    def draw(self, data: str) -> None:
        """Show text where the cursor is."""
        self._begun.setdefault(self.cursor.y, self.now_ms)
        super().draw(data)
        self._begun.setdefault(self.cursor.y, self.now_ms)

    def index(self) -> None:
        """Move the cursor down; at the bottom scroll."""
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom and top == 0:
            if self._main is None:
                self.left.append(self.row(0))
            self._begun = {y - (y <= bottom): begun for y, begun in self._begun.items() if y}
        super().index()

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        """Set modes; one begins the alternate screen."""
        super().set_mode(*modes, **kwargs)
        if kwargs.get("private") and self._main is None and not _ALTERNATE.isdisjoint(modes):
            self._main = {"buffer": self.buffer, "cursor": self.cursor, "_begun": self._begun}
            self.buffer = copy(self.buffer)
            self.buffer.clear()
            self._begun = {}
            self.save_cursor()

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        """Reset modes; one ends the alternate screen."""
        super().reset_mode(*modes, **kwargs)
        if kwargs.get("private") and self._main is not None and not _ALTERNATE.isdisjoint(modes):
            main, self._main = self._main, None
            self.__dict__.update(main)
            self.restore_cursor()


def _run(cell: Char) -> Run:
    marks = (cell.bold, cell.italics, cell.reverse, cell.strikethrough, cell.underscore)
    style = Style(_colour(cell.fg), _colour(cell.bg), "".join(compress("birsu", marks)))
    return cell.data, style


def _colour(name: str) -> str:
    if name in _OF_PYTE:
        return _OF_PYTE[name]
    return name if name.isalpha() and not _is_hex(name) else f"#{name}"


def _is_hex(name: str) -> bool:
    return len(name) == 6 and set(name) <= set("0123456789abcdef")  # noqa: PLR2004
