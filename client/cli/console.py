"""Console of the command line: writes a job's output as raw bytes, and airunner's own messages on stderr.

A job's output is written byte for byte, at once, without a buffer; a terminal gets only what is fit for it, unless
`--raw` asks for all. A reader that goes away (`| head`) ends the command quietly, as it would end `cat`.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from airunner.client.cli.terminal import RESET, TerminalFilter
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import Stream
from airunner.protocol.printable import json_line, own_lines

STDOUT: Final = 1
STDERR: Final = 2
DUMB: Final = "dumb"
STATUS_CHARS_MIN: Final = 20  # a narrower terminal shows no status
SAVE, RESTORE = "\x1b7", "\x1b8"  # of the cursor and its colours, as ECMA-48 terminals since the VT100 have them
PLAIN, DIM, CLEAR = "\x1b[0m", "\x1b[0;2m", "\x1b[K"


class ReaderGone(Exception):
    """Reader of the output has gone."""


class Console:
    """Console of two descriptors; remembers whether a terminal is in the middle of a line."""

    def __init__(self, *, quiet: bool = False, raw: bool = False, stdout: int = STDOUT, stderr: int = STDERR) -> None:
        self._descriptors = (stdout, stderr)
        self._filters = tuple(
            TerminalFilter() if os.isatty(descriptor) and not raw else None for descriptor in self._descriptors
        )
        self.job_id = ""  # of the job that is shown
        self._quiet = quiet
        self._terminals = os.isatty(stdout) and os.isatty(stderr)
        self._mid_line = False
        self._status = False  # whether one is shown; the cursor stays before it

    @property
    def has_status(self) -> bool:
        """Permission to show a status line: on a terminal with cursor control, unless quiet or raw."""
        obeys = os.environ.get("TERM", DUMB) != DUMB
        return obeys and not self._quiet and None not in self._filters

    def show_status(self, text: str) -> None:
        """Show a status line until something else is written; not behind an unfinished line of the job's."""
        if not self.has_status or self._mid_line:
            return
        width = os.get_terminal_size(self._descriptors[1]).columns - 1  # a full line would go on in the next
        if width >= STATUS_CHARS_MIN:
            self._status = True
            shown = f"{SAVE}{DIM}{text[:width]}{PLAIN}{CLEAR}{RESTORE}"
            self._put(self._descriptors[1], shown.encode())

    def _clear_status(self) -> None:
        if self._status:
            self._status = False
            self._put(self._descriptors[1], f"{SAVE}{PLAIN}{CLEAR}{RESTORE}".encode())

    def job_output(self, stream: Stream, data: bytes) -> None:
        """Write a job's output."""
        at = 0 if stream is Stream.STDOUT else 1
        fit_for_it = self._filters[at]
        self._write(self._descriptors[at], data if fit_for_it is None else fit_for_it.feed(data))

    def job_over(self) -> None:
        """End the output of a job, or of an attempt."""
        self._clear_status()
        for descriptor, fit_for_it in zip(self._descriptors, self._filters, strict=True):
            if fit_for_it is not None:
                self._write(descriptor, fit_for_it.finish())

    def out(self, text: bytes) -> None:
        """Write to stdout."""
        self._write(self._descriptors[0], text)

    def out_line(self, text: str) -> None:
        """Write a line to stdout."""
        self.out(text.encode(errors="replace") + b"\n")

    def out_json(self, shown: object) -> None:
        """Write an object to stdout, as one line of JSON."""
        self.out_line(json_line(shown))

    def say(self, text: str) -> None:
        """Print a message of airunner's own on stderr, unless quiet."""
        if not self._quiet:
            self.must_say(text)

    def must_say(self, text: str) -> None:
        """Print a message of airunner's own on stderr, quiet or not; never in a job's colours."""
        for descriptor, fit_for_it in zip(self._descriptors, self._filters, strict=True):
            if fit_for_it is not None:
                self._write(descriptor, fit_for_it.plain())
        start = "\n" if self._mid_line and self._terminals else ""
        self._write(self._descriptors[1], f"{start}airunner: {own_lines(text)}\n".encode(errors="replace"))

    def _write(self, descriptor: int, text: bytes) -> None:
        if text:
            self._clear_status()
        self._put(descriptor, text)
        if shown := text.removesuffix(RESET):
            self._mid_line = not shown.endswith(b"\n")

    @staticmethod
    def _put(descriptor: int, text: bytes) -> None:
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise OperatorError(f"cannot write the output: {error.strerror}", exit_code=1) from error


def silence_stdout() -> None:
    """Silence stdout, so that buffered output raises no error when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
