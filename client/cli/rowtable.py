"""Table of rows of text: queues, agents, brokers, secrets, results of a job set; `columns` has the tables of jobs.

A terminal gets what fits in its width: empty columns are left out, then the least important ones, and the last column
is cut. A pipe gets every column, whole, with a dash in an empty cell: scripts that split lines at spaces count columns.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from typing import Final

from airunner.client.cli.columns import GAP, NOTHING, aligned
from airunner.client.cli.console import Console
from airunner.protocol.events import Stream
from airunner.protocol.printable import one_line

LAST_CHARS_MIN: Final = 16  # to which the last column may be cut before another one is left out


def width_of(console: Console) -> float:
    """Return the width of the terminal that stdout is; infinite for a pipe or a file."""
    return shutil.get_terminal_size().columns if console.is_terminal(Stream.STDOUT) else math.inf


def table_lines(
    headings: Sequence[str], rows: Sequence[Sequence[str]], leave: Sequence[str], width: float
) -> Iterator[str]:
    """Format a table, headings first; in a `width` the columns of `leave` are left out in turn until it fits."""
    from rich.cells import cell_len

    if math.isinf(width):
        yield from aligned([headings, *([cell or NOTHING for cell in row] for row in rows)])
        return
    cells = [headings, *([one_line(cell) for cell in row] for row in rows)]
    shown = [at for at in range(len(headings)) if at == 0 or not rows or any(row[at] for row in rows)]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(headings))]
    for at in map(headings.index, leave):
        needed = sum(widths[each] + GAP for each in shown[:-1]) + min(widths[shown[-1]], LAST_CHARS_MIN)
        if needed > width and at in shown[1:]:
            shown.remove(at)
    for row in cells:
        texts = (row[at] + " " * (widths[at] - cell_len(row[at])) for at in shown)
        yield cut((" " * GAP).join(texts).rstrip(), width)


def cut(line: str, width: float) -> str:
    """Cut a line to the width of a terminal."""
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else f"{set_cell_size(line, max(0, int(width) - 1))}…"
