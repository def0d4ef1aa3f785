"""Spawning: starts one command, with pipes or in a terminal, or reports why not as a shell does. The child's half."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airunner.agent.launcher.child.otheruser import RESET, seen_as, spawn_as
from airunner.agent.launcher.child.terminal import spawn_in_terminal

if TYPE_CHECKING:
    from airunner.agent.launcher.child.wire import Start

EXIT_NOT_FOUND: Final = 127  # as POSIX shells say it
EXIT_NOT_EXECUTABLE: Final = 126

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)


class Refusal(Exception):
    """The command could not be started."""

    def __init__(self, number: int, message: str, exit_code: int = EXIT_NOT_EXECUTABLE) -> None:
        super().__init__(message)
        self.errno = number
        self.message = message
        self.exit_code = exit_code


class Spawned(NamedTuple):
    """Spawned process; its descriptors are the caller's to close."""

    pid: int
    readers: list[int]  # to read its output from
    held: list[int]  # to be open until it ends


def spawn(start: Start) -> Spawned:
    """Start the command. Raises `Refusal`."""
    try:
        with seen_as(start.user):
            try:
                os.chdir(start.working_directory)
            except OSError as error:
                name = os.fsdecode(start.working_directory)
                raise Refusal(error.errno or 0, f"cannot use the working directory {name}: {error.strerror}") from error
            program = _find(start.argv[0], start.environment)
        try:
            if start.terminal is not None:
                pid, master, slave = spawn_in_terminal(start, program, start.terminal)
                return Spawned(pid, [master], [slave])
            pid, readers = _spawn_with_pipes(start, program)
            return Spawned(pid, readers, [])
        except OSError as error:
            # An error without an errno is the standard library's for no terminal, which is ENOSPC in the kernel.
            raise _refusal(start.argv[0], error.errno or errno.ENOSPC, program) from error
    finally:
        os.chdir("/")  # no keeper holds a workspace's folder


def _spawn_with_pipes(start: Start, program: bytes) -> tuple[int, list[int]]:
    """Start a process, and return it with the descriptors to read its output from. Raises `OSError`.

    By `posix_spawn` and not by a fork of this interpreter: the kernel neither copies its page tables nor runs any
    Python in the new process, and a failed exec comes back as its errno.
    """
    readers: list[int] = []
    writers: list[int] = []
    with ExitStack() as on_failure, ExitStack() as always:
        for _ in ("stdout", "stderr"):
            reader, writer = os.pipe()
            on_failure.callback(os.close, reader)
            always.callback(os.close, writer)
            readers.append(reader)
            writers.append(writer)
        if start.user:
            pid = spawn_as(start, program, *writers)
        else:
            actions: list[Any] = [(os.POSIX_SPAWN_DUP2, writer, target) for target, writer in enumerate(writers, 1)]
            actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
            pid = os.posix_spawn(
                program,
                start.argv,
                start.environment,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=RESET,
            )
        on_failure.pop_all()
    return pid, readers


def _find(name: bytes, environment: dict[bytes, bytes]) -> bytes:
    """Find the program by the *job's* PATH, relative paths from the working directory. Raises `Refusal`."""
    if b"/" in name:
        return name
    seen = False
    for folder in environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        candidate = os.path.join(folder or b".", name)  # noqa: PTH118 - Path raises for what cannot be looked at
        if os.path.isfile(candidate):  # noqa: PTH113 - likewise
            if os.access(candidate, os.X_OK, effective_ids=True):
                return candidate
            seen = True
    raise _refusal(name, errno.EACCES if seen else errno.ENOENT, None)


def _refusal(name: bytes, number: int, program: bytes | None) -> Refusal:
    """Return the refusal of a command that could not be executed, in the words of a shell."""
    text = os.fsdecode(name)
    if number in _ABSENT:
        script = program is not None and os.path.exists(program)  # noqa: PTH110 - likewise
        missing = "its interpreter was not found" if script else "command not found"
        return Refusal(number, f"{text}: {missing}", EXIT_NOT_FOUND)
    if program is not None and os.path.isdir(program):  # noqa: PTH112 - likewise
        return Refusal(number, f"{text}: is a directory")
    return Refusal(number, f"{text}: {os.strerror(number)}")
