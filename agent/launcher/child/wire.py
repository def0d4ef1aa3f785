"""Wire format between agent and keeper: MessagePack arrays `[kind, field, …]` on a stream socket.

Descriptors are sent with a message (SCM_RIGHTS, unix(7)). Only msgpack and the standard library are imported.
"""

from __future__ import annotations

import array
import math
import socket
from typing import Any, Final, NamedTuple

import msgpack

MESSAGE_BYTES_MAX: Final = 16 * 1_048_576  # ample for a Start: a job spec of at most 64 KiB and an environment
DESCRIPTORS_MAX: Final = 2  # sent with one message: stdout and stderr


class Start(NamedTuple):
    """Agent → keeper: start this command; answered by `Started`, `Ran`, `Failed` or `Expired`.

    Texts need not be UTF-8.
    """

    argv: list[bytes]
    environment: dict[bytes, bytes]
    working_directory: bytes
    terminal: list[int] | None  # rows, columns
    deadline_ms: int | None  # as in KeepUntil
    user: list[int]  # as in LaunchSpec
    merged: bool = False  # as in LaunchSpec
    stdin: bytes = b""  # path of the file with the standard input, which the keeper removes; empty: none
    short_ms: int = 0  # as in LaunchSpec: after this time at the latest, `Started` answers


class KeepUntil(NamedTuple):
    """Agent → keeper: kill the whole job at `deadline_ms` of CLOCK_BOOTTIME; None: never. It has no answer."""

    deadline_ms: int | None


class End(NamedTuple):
    """Agent → keeper: `signal` to all, SIGKILL after the grace (another End may shorten it). `Ended` answers each."""

    grace_ms: int  # 0: SIGKILL at once, without `signal`
    signal: int  # asks the processes to end, usually SIGTERM; a process that ignores it gets SIGTERM


class Ready(NamedTuple):
    """Keeper → agent, first of all: the keeper runs as process `keeper`. `Failed` instead: there is no keeper."""

    keeper: int


class Started(NamedTuple):
    """Keeper → agent: the command runs as process `pid`. Sent with the output's descriptors."""

    pid: int


class Ran(NamedTuple):
    """Keeper → agent, instead of `Started` and `Exited`: the command has ended, and no process of the job is left.

    `output` is all that it has written to each pipe.
    """

    pid: int
    ran_us: int  # microseconds since it was started
    output: list[bytes]
    exit_code: int | None
    signal: int | None
    oom: bool
    spent: list[int]


class Failed(NamedTuple):
    """Keeper → agent: the command was not started, and why."""

    errno: int
    message: str
    exit_code: int


class Exited(NamedTuple):
    """Keeper → agent: the command has ended; `alone`: no other process of the job is left.

    `oom`: the command has failed, and the kernel has killed a process of the job for lack of memory. `spent`: resources
    used by the job's processes that have ended, as in `Spending.figures`.
    """

    exit_code: int | None
    signal: int | None
    alone: bool
    oom: bool
    spent: list[int]


class Ended(NamedTuple):
    """Keeper → agent: End was carried out. Each survivor is `[pid, command, left]`; `spent` is as in Exited."""

    survivors: list[list[Any]]
    spent: list[int]


class Expired(NamedTuple):
    """Keeper → agent: the deadline passed; the job was killed, or not started, and no message about it follows."""


ToKeeper = Start | KeepUntil | End
ToAgent = Ready | Started | Ran | Failed | Exited | Ended | Expired

_KINDS: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (Start, KeepUntil, End, Ready, Started, Ran, Failed, Exited, Ended, Expired)
}


def deadline_ms(instant_s: float) -> int | None:
    """Convert a deadline to the wire's unit, rounded down; an infinite deadline becomes None."""
    return None if instant_s == math.inf else math.floor(instant_s * 1_000)


def pack(message: ToKeeper | ToAgent) -> bytes:
    """Encode `message` for the socket."""
    packed: bytes = msgpack.packb([type(message).__name__, *message])
    return packed


class Reader:
    """Reader that decodes a byte stream into messages. Both ends are ours, so a malformed message is a bug."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=MESSAGE_BYTES_MAX)

    def feed(self, chunk: bytes) -> list[Any]:
        """Add a chunk of the stream, and return the messages that are complete."""
        self._unpacker.feed(chunk)
        return [_KINDS[kind](*fields) for kind, *fields in self._unpacker]


def send_with(connection: socket.socket, chunk: bytes, descriptors: list[int]) -> None:
    """Send `chunk`, and copies of `descriptors` with its first byte; unlike `socket.send_fds`, with MSG_NOSIGNAL."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([chunk], rights, socket.MSG_NOSIGNAL)


def receive_with(connection: socket.socket, bytes_max: int) -> tuple[bytes, list[int]]:
    """Receive bytes, and the descriptors sent with them, which programs that we start do not inherit."""
    descriptors = array.array("i")
    space = socket.CMSG_LEN(DESCRIPTORS_MAX * descriptors.itemsize)
    chunk, beside, _, _ = connection.recvmsg(bytes_max, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return chunk, descriptors.tolist()
