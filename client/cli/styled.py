r"""Styled rows: what a terminal shows of a job's output, line by line, with colours. Pure.

`LineScreen` renders the output of a pipe, each line for itself and as long as it is, as a terminal does after the
filter of `terminal`: a carriage return, a backspace and movements within the line overwrite what was there, so of a
progress bar its last state is left. Output of a terminal is rendered by `emulator`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

from airunner.client.cli.terminal import TerminalFilter
from airunner.protocol.events import Stream

KNOWN_MAX: Final = 1_024  # styles and sequences whose result is remembered
KNOWN_CHARS_MAX: Final = 32  # of the parameters of such a sequence
COLUMNS_MAX: Final = 65_536  # of a line, beyond which the cursor does not move
COLOURS: Final = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_TAB: Final = 8
_TOKEN: Final = re.compile("\x1b\\[([0-9;:]*)([mKCDGPX@])|([\r\b\t])|([^\x1b\r\b\t]+)")
_LEVELS: Final = (0, 95, 135, 175, 215, 255)  # of the colour cube of xterm
_EXTENDED: Final = 8  # SGR 38 and 48: a colour of 256, or one in red, green and blue; 39 and 49 are the default
_FOREGROUNDS: Final = (3, 9)  # tens of the SGR parameters of foreground colours
_BRIGHT: Final = (9, 10)
_GROUNDS: Final = (3, 4, 9, 10)
_MARKS: Final = {1: "b", 2: "f", 3: "i", 4: "u", 7: "r", 9: "s"}  # by the SGR parameter that sets each
_UNMARKS: Final = {22: "bf", 23: "i", 24: "u", 27: "r", 29: "s"}  # and those that end them


class Style(NamedTuple):
    """Style of text; a colour is one of `COLOURS`, perhaps with `bright` before it, or `#rrggbb`; empty: the default.

    `marks` has a letter for each of bold, faint, italic, underlined, reverse and struck, in the order of the alphabet.
    """

    fg: str = ""
    bg: str = ""
    marks: str = ""


PLAIN: Final = Style()
Run = tuple[str, Style]
"""Text of one style."""


class Row(NamedTuple):
    """Row of a screen: its runs, and when it was begun, by the agent's clock."""

    runs: tuple[Run, ...]
    timestamp_ms: int
    attempt: int
    stream: Stream = Stream.STDOUT

    @property
    def text(self) -> str:
        """The text of the row, without blanks at its end."""
        return "".join(text for text, _ in self.runs).rstrip()


class LineScreen:
    """Line screen of one stream: renders its lines; a style lasts until it is changed."""

    def __init__(self) -> None:
        self._filter = TerminalFilter()
        self._style = PLAIN

    def render(self, line: bytes) -> tuple[Run, ...]:
        """Render the next line, without the newline at its end."""
        text = self._filter.feed(line).decode().rstrip("\n").removesuffix("\r")
        if not re.search("[\x1b\r\b\t]", text):
            return ((text, self._style),) if text else ()
        cells: list[Run] = []
        column = 0
        for parameters, final, control, plain in _TOKEN.findall(text):
            if plain:
                cells += [(" ", PLAIN)] * (column - len(cells))
                cells[column : column + len(plain)] = [(char, self._style) for char in plain]
                column += len(plain)
            elif final == "m":
                self._style = (_known if len(parameters) <= KNOWN_CHARS_MAX else styled)(self._style, parameters)
            elif final:
                column = _edited(cells, column, final, int(re.split("[;:]", parameters)[0] or 0))
            else:
                column = {"\r": 0, "\b": max(0, column - 1)}.get(control, column + _TAB - column % _TAB)
        return runs_of(cells)


def _edited(cells: list[Run], column: int, final: str, number: int) -> int:
    """Apply a movement or an erasure to a line; return the column of the cursor."""
    count = min(max(1, number), COLUMNS_MAX)
    match final:
        case "C":
            return min(column + count, COLUMNS_MAX)
        case "D":
            return max(0, column - count)
        case "G":
            return count - 1
        case "K":
            begin, end = ((column, len(cells)), (0, column + 1), (0, len(cells)))[min(number, 2)]
            cells[begin:end] = [(" ", PLAIN)] * (min(end, len(cells)) - begin)
        case "P":
            del cells[column : column + count]
        case "@":
            cells[column:column] = [(" ", PLAIN)] * min(count, COLUMNS_MAX - len(cells))
        case _:
            cells[column : column + count] = [(" ", PLAIN)] * len(cells[column : column + count])
    return column


def runs_of(cells: Iterable[Run]) -> tuple[Run, ...]:
    """Join adjacent cells of one style, and leave out blanks without a style at the end."""
    runs = [("".join(text for text, _ in cells), style) for style, cells in groupby(cells, key=lambda cell: cell[1])]
    if runs and runs[-1][1] == PLAIN:
        runs[-1] = (runs[-1][0].rstrip(), PLAIN)
    return tuple(run for run in runs if run[0])


def styled(style: Style, parameters: str) -> Style:
    """Apply the parameters of an SGR sequence to a style; unknown ones change nothing."""
    numbers = iter([int(word or 0) for word in re.split("[;:]", parameters)])
    for number in numbers:
        tens, colour = divmod(number, 10)
        if number == 0:
            style = PLAIN
        elif number in _MARKS:
            style = style._replace(marks="".join(sorted({*style.marks, _MARKS[number]})))
        elif number in _UNMARKS:
            style = style._replace(marks="".join(sorted({*style.marks}.difference(_UNMARKS[number]))))
        elif tens in _GROUNDS:
            bright = "bright" if tens in _BRIGHT else ""
            if colour == _EXTENDED and not bright:
                named = _extended(numbers)
            elif colour < len(COLOURS):
                named = f"{bright}{COLOURS[colour]}"
            else:
                named = ""
            style = style._replace(fg=named) if tens in _FOREGROUNDS else style._replace(bg=named)
    return style


_known: Final = lru_cache(KNOWN_MAX)(styled)  # a log has few sequences, and each many times


def _extended(numbers: Iterator[int]) -> str:
    """Read a colour of 256, or one in red, green and blue."""
    kind = next(numbers, 0)
    if kind == 5:  # noqa: PLR2004
        return indexed(next(numbers, 0))
    if kind == 2:  # noqa: PLR2004
        return "#" + "".join(f"{min(next(numbers, 0), 255):02x}" for _ in range(3))
    return ""


def indexed(number: int) -> str:
    """Return one of xterm's 256 colours."""
    if number < len(COLOURS):
        return COLOURS[number]
    if number < 2 * len(COLOURS):
        return f"bright{COLOURS[number - len(COLOURS)]}"
    if number < 232:  # noqa: PLR2004
        cube = number - 16
        return "#" + "".join(f"{_LEVELS[part]:02x}" for part in (cube // 36, cube // 6 % 6, cube % 6))
    return "#" + f"{8 + 10 * (min(number, 255) - 232):02x}" * 3
