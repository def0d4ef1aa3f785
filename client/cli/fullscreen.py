"""Full screen of a terminal: the alternate screen, without a cursor, with keys that are read one by one.

The screen, the cursor and the terminal's mode are restored when the block ends, however it ends. Ctrl-C still
interrupts; Ctrl-Z does not stop the command, which would leave the shell on the alternate screen.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from airunner.client.cli.console import Console
from airunner.client.cli.standardstreams import STDIN

_ENTER: Final = b"\x1b[?1049h\x1b[?25l\x1b[2J"  # xterm's alternate screen; the cursor hidden; all cleared
_LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
_LFLAG, _CC = 3, 6  # indexes in what tcgetattr returns


@contextmanager
def full_screen(console: Console) -> Generator[None]:
    """Use the whole terminal while the block runs."""
    before = termios.tcgetattr(STDIN) if os.isatty(STDIN) else None
    try:
        if before is not None:
            mode = termios.tcgetattr(STDIN)
            mode[_LFLAG] &= ~(termios.ICANON | termios.ECHO)
            mode[_CC][termios.VSUSP] = b"\0"
            termios.tcsetattr(STDIN, termios.TCSADRAIN, mode)
        console.out(_ENTER)
        yield
    finally:
        if before is not None:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        console.out(_LEAVE)


def draw(console: Console, lines: Sequence[str]) -> None:
    """Draw lines over the last ones, in one piece, so that nothing flickers."""
    text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
    console.out(text.encode(errors="replace"))
