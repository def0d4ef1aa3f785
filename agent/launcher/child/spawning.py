"""Spawning: starts one command for the keeper, with pipes or in a terminal; reports failures as a shell does."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airunner.agent.launcher.child.otheruser import RESET, seen_as, spawn_as
from airunner.agent.launcher.child.terminal import spawn_in_terminal

if TYPE_CHECKING:
    from airunner.agent.launcher.child.terminalinput import TerminalInput
    from airunner.agent.launcher.child.wire import Start

EXIT_NOT_FOUND: Final = 127  # exit code of a shell: command not found
EXIT_NOT_EXECUTABLE: Final = 126  # exit code of a shell: command not executable

LINE_BYTES_MAX: Final = 256  # of an interpreter's line: BINPRM_BUF_SIZE of Linux
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)


class Refusal(Exception):
    """Refusal to start the command, with a shell's message and exit code."""

    def __init__(self, number: int, message: str, exit_code: int = EXIT_NOT_EXECUTABLE) -> None:
        super().__init__(message)
        self.errno = number
        self.message = message
        self.exit_code = exit_code


class Spawned(NamedTuple):
    """Spawned process. The caller closes its descriptors."""

    pid: int
    readers: list[int]  # descriptors to read its output from
    input: TerminalInput | None  # its terminal's input, which the caller feeds and, when the process has ended, closes


def spawn(start: Start) -> Spawned:
    """Start the command. Raises `Refusal`."""
    stdin = _take_stdin(start.stdin)
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
                data = stdin if start.stdin else None
                pid, master, inputs = spawn_in_terminal(start, program, start.terminal, data)
                return Spawned(pid, [master], inputs)
            pid, readers = _spawn_with_pipes(start, program, stdin)
            return Spawned(pid, readers, None)
        except OSError as error:
            # If no terminal is free, the standard library raises an error without an errno; the kernel's is ENOSPC.
            raise _refusal(start.argv[0], error.errno or errno.ENOSPC, program) from error
    finally:
        os.close(stdin)
        os.chdir("/")  # so that the keeper does not hold the job's working directory in use


def _take_stdin(path: bytes) -> int:
    """Open the file with the standard input and remove it, or open /dev/null. Raises `Refusal`.

    The command gets a file instead of a pipe: it may seek in it, map it or leave it unread, and nothing waits for it.
    """
    try:
        descriptor = os.open(path or os.devnull, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if path:
            os.unlink(path)  # noqa: PTH108 - pathlib is not imported for one call
    except OSError as error:
        raise Refusal(error.errno or 0, f"cannot read the standard input: {error.strerror}") from error
    return descriptor


def _spawn_with_pipes(start: Start, program: bytes, stdin: int) -> tuple[int, list[int]]:
    """Start a process; return its id, and the descriptors to read its output from. Raises `OSError`.

    Without another user, `posix_spawn` is used instead of forking this interpreter: the kernel copies no page tables,
    the new process runs no Python, and a failed exec is reported by its errno.
    """
    pipes = [os.pipe()]
    try:
        if not start.merged:
            pipes.append(os.pipe())
        streams = (stdin, pipes[0][1], pipes[-1][1])
        if start.user:
            pid = spawn_as(start, program, streams)
        else:
            actions: list[Any] = [(os.POSIX_SPAWN_DUP2, stream, target) for target, stream in enumerate(streams)]
            pid = os.posix_spawn(
                program,
                start.argv,
                start.environment,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=RESET,
            )
    except BaseException:
        for reader, _ in pipes:
            os.close(reader)
        raise
    finally:
        for _, writer in pipes:
            os.close(writer)
    return pid, [reader for reader, _ in pipes]


def _find(name: bytes, environment: dict[bytes, bytes]) -> bytes:
    """Find a program in the *job's* PATH; a name with a slash is returned as it is. Raises `Refusal`."""
    if b"/" in name:
        return name
    seen = False
    for folder in environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        candidate = os.path.join(folder or b".", name)  # noqa: PTH118 - Path raises for files that cannot be accessed
        if os.path.isfile(candidate):  # noqa: PTH113 - likewise
            if os.access(candidate, os.X_OK, effective_ids=True):
                return candidate
            seen = True
    raise _refusal(name, errno.EACCES if seen else errno.ENOENT, None)


def _refusal(name: bytes, number: int, program: bytes | None) -> Refusal:
    """Return the refusal of a command that could not be executed, with a shell's message."""
    text = os.fsdecode(name)
    if number in _ABSENT:
        return Refusal(number, f"{text}: {_absent(name, program)}", EXIT_NOT_FOUND)
    if program is not None and os.path.isdir(program):  # noqa: PTH112 - likewise
        return Refusal(number, f"{text}: is a directory")
    if number == errno.EACCES and not _has_execute_bit(program):
        return Refusal(number, f"{text}: not executable; run `chmod +x` on it, or name its interpreter first")
    return Refusal(number, f"{text}: {os.strerror(number)}")


def _has_execute_bit(program: bytes | None) -> bool:
    """Return whether a program has an execute bit; False for None: a file on PATH has none."""
    try:
        return program is not None and os.stat(program).st_mode & 0o111 != 0  # noqa: PTH116 - as above
    except OSError:
        return True  # a folder above it is closed


def _absent(name: bytes, program: bytes | None) -> str:
    """Say what was not found: the command, or the interpreter of a script."""
    if program is None or not os.path.exists(program):  # noqa: PTH110 - as above
        apart = len(name.split()) > 1
        hint = ": there is no shell in between, so write each word as an argument of its own, or use sh -c"
        return f"command not found{hint if apart else ''}"
    try:
        with open(program, "rb") as file:  # noqa: PTH123 - as above
            line = file.readline(LINE_BYTES_MAX).rstrip(b"\n")
    except OSError:
        line = b""
    interpreter = os.fsdecode(line.removeprefix(b"#!").strip(b" \t\r").split(b" ")[0]) if line[:2] == b"#!" else ""
    ends = ": the file has Windows line ends (CR LF); convert it, as with dos2unix" if line[-1:] == b"\r" else ""
    return f"its interpreter {interpreter}{' ' if interpreter else ''}was not found{ends}"
