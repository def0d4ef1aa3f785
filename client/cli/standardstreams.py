"""Standard streams: a failed write to stdout is an error, and one to stderr is ignored.

`Console` writes to the descriptors; `print` writes to `sys.stdout` and `sys.stderr`, which `open_standard_streams`
replaces. All text of ours is UTF-8.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final

from airunner.protocol.errors import EXIT_IO, OperatorError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
SHORT_BYTES: Final = 256  # for which there is room in a pipe or a terminal that is ready (WAKEUP_CHARS of Linux)


class ReaderGone(Exception):
    """Reader of the output has closed the pipe."""


class OutputLost(OperatorError):
    """Output cannot be written; `error` says why."""

    def __init__(self, error: OSError) -> None:
        self.closed = error.errno == errno.EBADF  # the parent closed the stream: nobody wants the output
        why = "stdout is closed" if self.closed else error.strerror
        super().__init__(f"cannot write the output: {why}", exit_code=EXIT_IO)


def may_block(descriptor: int, text: bytes) -> bool:
    """Check whether a write may wait for a reader; False: the text is short, and the pipe or terminal is ready."""
    try:
        return len(text) > SHORT_BYTES or not select.select([], [descriptor], [], 0)[1]
    except OSError:  # closed
        return True


def write(descriptor: int, text: ReadableBuffer) -> None:
    """Write all of `text`, without a buffer. Raises `ReaderGone`, `OutputLost`."""
    rest = memoryview(text)
    try:
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another process that shares the pipe or terminal made it non-blocking
                _wait_writable(descriptor)
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise OutputLost(error) from error


def open_standard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr`, and a closed `sys.stdin`, for which Python has None: reading it fails.

    The three descriptors must be open: `airunner/__main__.py` has opened those that were closed.
    """
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - its type does not say so
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(STDIN, closefd=False)), "utf-8", "surrogateescape")
    out = io.BufferedWriter(_StandardStream(STDOUT))
    sys.stdout = io.TextIOWrapper(out, "utf-8", "surrogateescape", line_buffering=os.isatty(STDOUT))
    err = io.BufferedWriter(_StandardStream(STDERR))
    sys.stderr = io.TextIOWrapper(err, "utf-8", "backslashreplace", line_buffering=True)


def _wait_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


class _StandardStream(io.RawIOBase):
    """Raw stream of stdout or stderr; a failure is raised once, so that the exit of the interpreter is quiet."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failed = False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: ReadableBuffer, /) -> int:
        """Write all of `text`; its failure is an error for stdout only."""
        if not self._failed:
            try:
                write(self._descriptor, text)
            except (ReaderGone, OutputLost):
                self._failed = self._descriptor == STDOUT
                if self._failed:
                    raise
        return memoryview(text).nbytes
