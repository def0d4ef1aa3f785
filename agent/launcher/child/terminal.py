"""Terminals: starts one command in a terminal of its own, with ptyprocess. The child's half.

ptyprocess opens the pair, makes the slave the new session's controlling terminal, sets its size, closes every other
descriptor, and reports a failed exec through a pipe. It forks this interpreter for that, which is safe here: a
keeper has one thread. Its reading, signalling and waiting are not used.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from ptyprocess import PtyProcess  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from airunner.agent.launcher.child.otheruser import become, reset_signals, seen_as

if TYPE_CHECKING:
    from airunner.agent.launcher.child.wire import Start

_TIOCGPTPEER: Final = 0x5441  # ioctl_tty(2): open the slave of this master, wherever it is mounted


# Ignored: ptyprocess brings no types, as where it is imported.
class _Spawned(PtyProcess):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Spawned process whose terminal's size is set once: ptyprocess sets it again when the command already runs."""

    def setwinsize(self, rows: int = 0, cols: int = 0) -> None:
        """Not once more."""


def spawn_in_terminal(start: Start, program: bytes, size: Sequence[int]) -> tuple[int, int, int]:
    """Start a process in a terminal, and return it with the terminal's master and slave, for the caller to close.

    `size` is rows and columns. The slave is to be held for as long as the command runs: a command that closes all of
    its own would otherwise end the terminal, and be sent SIGHUP for it. Raises `OSError`.
    """
    with seen_as(start.user):
        _check(program)
    kept = cast("Any", _Spawned).spawn(
        [os.fsdecode(word) for word in (program, *start.argv[1:])],
        env={os.fsdecode(name): os.fsdecode(value) for name, value in start.environment.items()},
        preexec_fn=partial(_as_after_a_login, start.user),
        dimensions=tuple(size),
    )
    master = os.dup(kept.fd)
    kept.fileobj.close()
    kept.closed = True  # its finaliser would end the command
    return kept.pid, master, fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _check(program: bytes) -> None:
    """Raise the `OSError` of a program that cannot be executed: ptyprocess gives no errno for it."""
    mode = os.stat(program).st_mode  # noqa: PTH116 - no other module for one call
    if not stat.S_ISREG(mode) or not os.access(program, os.X_OK, effective_ids=True):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _as_after_a_login(user: Sequence[int]) -> None:
    """Reset the new process's signals, and give the terminal to its user, as `login` does."""
    reset_signals()
    if user:
        os.fchown(0, user[0], -1)
        become(user)
