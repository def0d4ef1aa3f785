"""Wire format between agent and keeper: MessagePack arrays `[kind, field, …]` on a stream socket.

Descriptors travel beside them (SCM_RIGHTS, unix(7)). Standard library and msgpack only, as the child imports this.
"""

from __future__ import annotations

import array
import math
import socket
from typing import Any, Final, NamedTuple

import msgpack

MESSAGE_BYTES_MAX: Final = 16 * 1_048_576  # a job's spec takes 64 KiB; its environment and the agent's come on top
DESCRIPTORS_MAX: Final = 2  # of one message: stdout and stderr


class Start(NamedTuple):
    """Agent → keeper: start this command, answered by `Started` or `Failed`. Text is bytes, as the kernel has it."""

    argv: list[bytes]
    environment: dict[bytes, bytes]
    working_directory: bytes
    terminal: list[int] | None  # rows, columns
    deadline_ms: int | None  # as in KeepUntil
    user: list[int]  # as LaunchSpec has it


class KeepUntil(NamedTuple):
    """Agent → keeper: at `deadline_ms` of CLOCK_BOOTTIME kill all of the job; None is never. No answer."""

    deadline_ms: int | None


class End(NamedTuple):
    """Agent → keeper: SIGTERM to all, SIGKILL after the grace, which another End may shorten. Each gets one `Ended`."""

    grace_ms: int


class Started(NamedTuple):
    """Keeper → agent, with the reading ends: stdout and stderr, or the one terminal. `keeper` is its own process."""

    pid: int
    keeper: int


class Failed(NamedTuple):
    """Keeper → agent: there is no process, and why."""

    errno: int
    message: str
    exit_code: int


class Exited(NamedTuple):
    """Keeper → agent: the command has ended; `alone`: and nothing else of the job is left.

    `oom`: it failed, and meanwhile the kernel has killed something of the job for want of memory. `spent` is what the
    job's processes that are gone have used, as `Spending.figures`.
    """

    exit_code: int | None
    signal: int | None
    alone: bool
    oom: bool
    spent: list[int]


class Ended(NamedTuple):
    """Keeper → agent: the job is over. Each survivor is `[pid, command, left]`; `spent` as in Exited."""

    survivors: list[list[Any]]
    spent: list[int]


class Expired(NamedTuple):
    """Keeper → agent, its last word of a job: the deadline came, and nothing is left. Answers whatever is owed."""


ToKeeper = Start | KeepUntil | End
ToAgent = Started | Failed | Exited | Ended | Expired

_KINDS: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (Start, KeepUntil, End, Started, Failed, Exited, Ended, Expired)
}


def deadline_ms(instant_s: float) -> int | None:
    """Convert a deadline to the wire's unit, rounded down; None for one that never comes."""
    return None if instant_s == math.inf else math.floor(instant_s * 1_000)


def pack(message: ToKeeper | ToAgent) -> bytes:
    """Return `message` as it goes onto the socket."""
    packed: bytes = msgpack.packb([type(message).__name__, *message])
    return packed


class Reader:
    """Reader that cuts a stream of bytes into messages. Both ends are ours: anything malformed is a bug."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=MESSAGE_BYTES_MAX)

    def feed(self, chunk: bytes) -> list[Any]:
        """Feed a chunk in, and return the messages that are complete."""
        self._unpacker.feed(chunk)
        return [_KINDS[kind](*fields) for kind, *fields in self._unpacker]


def send_with(line: socket.socket, chunk: bytes, descriptors: list[int]) -> None:
    """Send `chunk`, and copies of `descriptors` with its first byte; unlike `socket.send_fds`, with MSG_NOSIGNAL."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    line.sendmsg([chunk], rights, socket.MSG_NOSIGNAL)


def receive_with(line: socket.socket, bytes_max: int) -> tuple[bytes, list[int]]:
    """Receive bytes, with the descriptors that came beside them, which no child of ours inherits."""
    descriptors = array.array("i")
    space = socket.CMSG_LEN(DESCRIPTORS_MAX * descriptors.itemsize)
    chunk, beside, _, _ = line.recvmsg(bytes_max, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return chunk, descriptors.tolist()
