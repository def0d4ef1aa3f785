"""Putting of files from inside a job: finds the files that paths name, and sends them to the agent of the job.

The process that calls this reads the files itself, so nothing is kept that it cannot read. What is named is looked at
before anything is sent: a path that is missing sends nothing.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from airunner.protocol.artifactpaths import link_problem, name_problem
from airunner.protocol.blobs import PIECE_BYTES_MAX
from airunner.protocol.errors import EXIT_IO, EXIT_NO_SUCH, EXIT_UNAVAILABLE, OperatorError, PeerError
from airunner.protocol.jobsocket import (
    SOCKET_VARIABLE,
    ArtifactsPut,
    Frames,
    PutArtifacts,
    PutContent,
    PutEnd,
    PutFile,
    SocketRefused,
    ToAgent,
    frame,
    message_of_agent,
)
from airunner.protocol.printable import one_line

STDIN: Final = "-"
WORKSPACE_VARIABLE: Final = "AIRUNNER_WORKSPACE"
RECEIVE_BYTES: Final = 65_536
OUTSIDE: Final = "this is no job: AIRUNNER_JOB_SOCKET is not set, or the agent is too old; run it in a job's command"
_MODE: Final = 0o777
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Named(Struct, frozen=True):
    """File, folder or link to put, and where it is; empty: standard input, or there is nothing to read."""

    file: PutFile
    place: str = ""


def named_files(
    paths: Sequence[str], called: str | None, environ: Mapping[str, str], leave_out: Callable[[str], None]
) -> list[Named]:
    """Find the files that `paths` name, with all that is in folders but names with a dot at the beginning.

    A path is kept by its place below the checkout, or as `called`. What cannot be kept is given to `leave_out`, in
    words. Raises `OperatorError`: this is no job; a path is missing, or has no name below the checkout.
    """
    _socket_of(environ)
    if called is not None and len(paths) != 1:
        raise OperatorError("--as names one path; give one, or leave --as out")
    if called is not None and (problem := name_problem(called)) is not None:
        raise OperatorError(f"--as {one_line(called)}: {problem}, such as reports/junit.xml")
    found: dict[str, Named] = {}
    for path in paths:
        for named in _named(path, called, environ, leave_out):
            found[named.file.path] = named
    return list(found.values())


def _named(
    path: str, called: str | None, environ: Mapping[str, str], leave_out: Callable[[str], None]
) -> Iterator[Named]:
    if path == STDIN:
        if called is None:
            raise OperatorError("- needs a name: `airunner artifact put - --as NAME`")
        yield Named(PutFile(path=called), STDIN)
        return
    try:
        status = os.lstat(path)
    except OSError as error:
        raise OperatorError(f"{one_line(path)}: {error.strerror}", exit_code=EXIT_NO_SUCH) from error
    name = called.removesuffix("/") if called is not None else _name_of(path, environ)
    yield from _walk(path, name, status, leave_out)


def _name_of(path: str, environ: Mapping[str, str]) -> str:
    """Return a path's place below the checkout. Raises `OperatorError`: it has none."""
    checkout = environ.get(WORKSPACE_VARIABLE, "")
    whole = os.path.normpath(Path.cwd() / path)
    for top in (checkout, os.path.realpath(checkout)) if checkout else ():
        if whole == top:
            return ""
        if whole.startswith(f"{top}/"):
            return whole.removeprefix(f"{top}/")
    raise OperatorError(f"{one_line(path)} is outside of the checkout: give its name, with --as NAME")


def _walk(path: str, name: str, status: os.stat_result, leave_out: Callable[[str], None]) -> Iterator[Named]:
    """Yield what is at a path and below it; no link is followed, and an empty folder is kept as one."""
    waiting = [(path, name, status)]
    while waiting:
        place, name, status = waiting.pop()
        mode = stat.S_IMODE(status.st_mode) & _MODE
        problem = name_problem(name) if name else None
        try:
            if problem is None and stat.S_ISDIR(status.st_mode):
                inner = sorted(_inside(place, name), reverse=True)
                waiting += inner
                if not inner and name:
                    yield Named(PutFile(path=f"{name}/", mode=mode))
            elif problem is None and stat.S_ISLNK(status.st_mode):
                target = os.readlink(place)  # noqa: PTH115 - the target as it is
                problem = link_problem(name, target)
                if problem is None:
                    yield Named(PutFile(path=name, mode=mode, target=target))
            elif problem is None and stat.S_ISREG(status.st_mode):
                yield Named(PutFile(path=name, mode=mode), place)
            else:
                problem = problem or "it is no file"
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
        if problem is not None:
            leave_out(f"{one_line(place)}: {problem}")


def _inside(folder: str, name: str) -> Iterator[tuple[str, str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                below = f"{name}/{entry.name}" if name else entry.name
                yield entry.path, below, entry.stat(follow_symlinks=False)


def put_files(files: Sequence[Named], environ: Mapping[str, str], leave_out: Callable[[str], None]) -> ArtifactsPut:
    """Send files to the agent of this job, and return what it has stored.

    Raises `OperatorError`: this is no job, or its agent does not answer; `PeerError`: it refuses.
    """
    with _connected(environ) as connection:
        try:
            for message in _messages(files, leave_out):
                connection.sendall(frame(message))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent has refused, and says why
        return _answer(connection)


def _socket_of(environ: Mapping[str, str]) -> str:
    """Return the path of the job's socket. Raises `OperatorError`: there is none."""
    path = environ.get(SOCKET_VARIABLE, "")
    if not path:
        raise OperatorError(OUTSIDE)
    return path


@contextmanager
def _connected(environ: Mapping[str, str]) -> Generator[socket.socket]:
    path = _socket_of(environ)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            folder = os.open(Path(path).parent, _FOLDER)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{Path(path).name}")  # the path may be too long
            finally:
                os.close(folder)
        except OSError as error:
            message = f"the agent of this job does not listen at {one_line(path)}: {error.strerror}"
            raise OperatorError(message, exit_code=EXIT_UNAVAILABLE) from error
        yield connection


def _messages(files: Sequence[Named], leave_out: Callable[[str], None]) -> Iterator[ToAgent]:
    yield PutArtifacts()
    for named in files:
        try:
            opened = _opened(named.place) if named.place else None
        except OSError as error:
            leave_out(f"{one_line(named.place)}: it cannot be read: {error.strerror}")
            continue
        yield named.file
        if opened is not None:
            with opened:
                yield from _contents(opened, named.place)
    yield PutEnd()


def _opened(place: str) -> IO[bytes]:
    """Open a file. Raises `OSError`: it cannot be read, or is no file any more."""
    if place == STDIN:
        return open(0, "rb", closefd=False)
    descriptor = os.open(place, _OPEN)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(0, "it is not a file any more")
    return os.fdopen(descriptor, "rb")


def _contents(opened: IO[bytes], place: str) -> Iterator[PutContent]:
    """Read a file piece by piece; only the last is shorter. Raises `OperatorError`: it cannot be read to its end."""
    try:
        while data := opened.read(PIECE_BYTES_MAX):
            yield PutContent(data=data)
    except OSError as error:
        message = f"{one_line(place)} cannot be read to its end, and is not kept: {error.strerror}"
        raise OperatorError(message, exit_code=EXIT_IO) from error


def _answer(connection: socket.socket) -> ArtifactsPut:
    frames = Frames()
    bodies: list[bytes] = []
    while not bodies:
        try:
            chunk = connection.recv(RECEIVE_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            message = "the agent has closed the connection: the job is ending, or its agent; not all files are kept"
            raise OperatorError(message, exit_code=EXIT_UNAVAILABLE)
        bodies += frames.feed(chunk)
    match message_of_agent(bodies[0]):
        case ArtifactsPut() as put:
            return put
        case SocketRefused(code=code, message=message):
            raise PeerError.from_wire(code, message)
