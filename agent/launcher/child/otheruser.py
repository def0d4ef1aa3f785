"""Other user: starts a command for the keeper as another user, when the agent runs as root.

Between fork and exec the new process gives up root for good: supplementary groups, group ids and user ids (real,
effective and saved). That user owns the pipes, so that the command may open /dev/stdout again. Working directory and
program are looked up with that user's rights, so that a symbolic link of the job cannot lead to other files.

`posix_spawn` cannot change the user, so the keeper forks, which is safe and cheap: it has one thread and is small.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from airunner.agent.launcher.child.wire import Start

RESET: Final = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})  # signals that are reset
_NUMBER_BYTES: Final = 4  # size of an errno in the pipe
_NOT_EXECUTED: Final = 127  # exit code of a new process that could not execute the program


def spawn_as(start: Start, program: bytes, streams: tuple[int, ...]) -> int:
    """Start a process as the user `start.user`, with these three standard streams.

    Raises `OSError`: the program cannot be executed.
    """
    uid, gid, *_ = start.user
    for descriptor in streams[1:]:
        os.fchown(descriptor, uid, gid)
    reader, writer = os.pipe()  # a successful exec closes `writer`
    with ExitStack() as always:
        always.callback(os.close, reader)
        try:
            pid = os.fork()
            if pid == 0:
                _execute(start, program, streams, writer)
        finally:
            os.close(writer)
        failed = os.read(reader, _NUMBER_BYTES)
    if failed:
        os.waitpid(pid, 0)
        number = int.from_bytes(failed, "little")
        raise OSError(number, os.strerror(number))
    return pid


def reset_signals() -> None:
    """Reset the signals of a new process: default dispositions, none blocked."""
    for number in RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become(user: Sequence[int]) -> None:
    """Become `user` for good, in a process between fork and exec."""
    uid, gid, *groups = user
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


@contextmanager
def seen_as(user: Sequence[int]) -> Generator[None]:
    """Use the rights of `user` for the file system within the block; if `user` is empty, our own."""
    if not user:
        yield
        return
    uid, gid, *groups = user
    before, our_uid, our_gid = os.getgroups(), os.geteuid(), os.getegid()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(our_uid)
        os.setegid(our_gid)
        os.setgroups(before)


def _execute(start: Start, program: bytes, streams: tuple[int, ...], failure: int) -> NoReturn:
    """Execute the command in the new process, or write the errno to the pipe `failure`."""
    try:
        os.setsid()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        reset_signals()
        become(start.user)
        os.execve(program, start.argv, start.environment)  # noqa: S606 - to run the submitter's program is the purpose
    except OSError as error:
        os.write(failure, (error.errno or errno.EINVAL).to_bytes(_NUMBER_BYTES, "little"))
    finally:
        os._exit(_NOT_EXECUTED)
