"""Terminals: starts one command for the keeper in a terminal of its own, with ptyprocess.

ptyprocess opens the terminal's master and slave, makes the slave the new session's controlling terminal, sets its
size, closes all other descriptors, and reports a failed exec through a pipe. It forks this interpreter for that, which
is safe because a keeper has one thread. The methods of ptyprocess to read, signal and wait are not used.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from ptyprocess import PtyProcess  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from airunner.agent.launcher.child.otheruser import become, reset_signals, seen_as
from airunner.agent.launcher.child.terminalinput import TerminalInput

if TYPE_CHECKING:
    from airunner.agent.launcher.child.wire import Start

_TIOCGPTPEER: Final = 0x5441  # ioctl_tty(2): open the slave of this master, wherever it is mounted


# The checkers' complaints are ignored here and at the import, because ptyprocess has no types.
class _Spawned(PtyProcess):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Spawned process whose terminal's size is set once: ptyprocess would set it again while the command runs."""

    def setwinsize(self, rows: int = 0, cols: int = 0) -> None:
        """Do nothing: the size was set before the command was executed."""


def spawn_in_terminal(
    start: Start, program: bytes, size: Sequence[int], stdin: int | None = None
) -> tuple[int, int, TerminalInput]:
    """Start a process in a terminal; return its id, the terminal's master, and its input. The caller closes both.

    `size` is rows and columns. If `stdin` is given, the process reads it instead of the terminal. The slave must stay
    open while the command runs: otherwise a command that closes its own descriptors of the terminal would end it, and
    get SIGHUP. Raises `OSError`.
    """
    with seen_as(start.user):
        _check(program)
    with ExitStack() as on_failure:
        epoll = on_failure.enter_context(select.epoll())
        kept = cast("Any", _Spawned).spawn(
            [os.fsdecode(word) for word in (program, *start.argv[1:])],
            env={os.fsdecode(name): os.fsdecode(value) for name, value in start.environment.items()},
            preexec_fn=partial(_as_after_a_login, start.user, stdin),
            dimensions=tuple(size),
            pass_fds=() if stdin is None else (stdin,),
        )
        on_failure.callback(kept.close)  # ends the command
        slave = fcntl.ioctl(kept.fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        on_failure.callback(os.close, slave)
        master = os.dup(kept.fd)
        on_failure.callback(os.close, master)
        inputs = os.dup(kept.fd)
        on_failure.callback(os.close, inputs)
        terminal = TerminalInput(epoll, inputs, slave)
        on_failure.pop_all()
    kept.fileobj.close()
    kept.closed = True  # otherwise its finaliser would end the command
    return kept.pid, master, terminal


def _check(program: bytes) -> None:
    """Raise `OSError` if the program is missing or not executable: ptyprocess would raise it without an errno."""
    mode = os.stat(program).st_mode  # noqa: PTH116 - pathlib is not imported for one call
    if not stat.S_ISREG(mode) or not os.access(program, os.X_OK, effective_ids=True):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _as_after_a_login(user: Sequence[int], stdin: int | None) -> None:
    """Reset the new process's signals; if it runs as another user, give that user the terminal, as `login` does."""
    reset_signals()
    if user:
        os.fchown(0, user[0], -1)
    if stdin is not None:
        os.dup2(stdin, 0)
    if user:
        become(user)
