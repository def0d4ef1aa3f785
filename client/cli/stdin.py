"""Standard input of `airunner submit` and `run`: read to its end before the job is submitted, and given to the job.

A pipe, a socket (as ssh and Node.js give their children one) or a file is taken. A terminal, another character device
such as /dev/null and a closed descriptor are not: nobody has put data for the job there. Of a job file from standard
input (`-f -`) nothing is left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from select import select
from typing import Final

import typer

from airunner.client.cli.console import Console
from airunner.client.cli.interrupts import Interrupts
from airunner.client.cli.standardstreams import STDIN
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import STDIN_BYTES_MAX

NOTICE_S: Final = 1.0  # seconds until a message says that the standard input has no end yet
_PIECE_BYTES: Final = 65_536  # bytes read at a time: the default size of a pipe
_LEFT_OUT: Final = "--no-stdin leaves it out"


def stdin_for_job(console: Console, *, wanted: bool, asked: bool = False) -> bytes:
    """Read what is left of the standard input; b"" if it is not `wanted`, or is no pipe, socket or file.

    If it was `asked` for, and is a terminal, a message says that the job gets nothing of it.
    Raises `OperatorError`: it is too large, or cannot be read; `typer.Exit` after an interrupt.
    """
    if wanted and asked and os.isatty(STDIN):
        console.must_say("--stdin: the job gets no keys of this terminal; give it a pipe or a file")
    if not wanted or not _has_data():
        return b""
    with Interrupts() as interrupts:
        try:
            return _read(console)
        except OSError as error:
            raise OperatorError(f"cannot read standard input: {error.strerror}; {_LEFT_OUT}") from error
        except KeyboardInterrupt:
            console.must_say("interrupted while reading standard input: nothing was submitted")
            raise typer.Exit(interrupts.exit_code) from None


def _has_data() -> bool:
    try:
        mode = os.fstat(STDIN).st_mode
    except OSError:  # closed
        return False
    return bool(stat.S_IFMT(mode)) and not stat.S_ISCHR(mode)  # 0: an epoll or eventfd, which a parent has left open


def _read(console: Console) -> bytes:
    """Read to the end. Raises `OperatorError`: it is too large; `OSError`."""
    if fcntl.fcntl(STDIN, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # `select` would never end
    if stat.S_ISREG(os.fstat(STDIN).st_mode):
        _require_within(os.fstat(STDIN).st_size - os.lseek(STDIN, 0, os.SEEK_CUR), "")
    found = bytearray()
    notice_s: float | None = time.monotonic() + NOTICE_S
    while True:
        wait_s = None if notice_s is None else max(0.0, notice_s - time.monotonic())
        if not select([STDIN], [], [], wait_s)[0] or wait_s == 0:  # 0: a writer that never pauses needs the notice too
            notice_s = None
            console.must_say(f"reading standard input to its end, for the job; {_LEFT_OUT}")
            continue
        piece = os.read(STDIN, _PIECE_BYTES)
        if not piece:
            return bytes(found)
        found += piece
        _require_within(len(found), "at least ")


def _require_within(size_bytes: int, about: str) -> None:
    if size_bytes > STDIN_BYTES_MAX:
        raise OperatorError(
            f"standard input has {about}{size_bytes:,} bytes, and a job takes {STDIN_BYTES_MAX:,} at most: put it "
            f"into the repository, or where the job can fetch it; {_LEFT_OUT}"
        )
