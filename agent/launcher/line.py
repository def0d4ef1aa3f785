"""Line to a keeper: the agent's end of its socket, under anyio."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import Any, Final

import anyio

from airunner.agent.launcher.child.wire import Reader, ToAgent, ToKeeper, pack, receive_with
from airunner.agent.launcher.contract import LauncherDied
from airunner.agent.launcher.watchdog import KeeperProcess

_RECEIVE_BYTES: Final = 65_536


class Line:
    """Line of whole messages both ways. One task sends at a time, and one receives."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end
        self._reader = Reader()
        self._received: deque[Any] = deque()
        self.descriptors: list[int] = []  # as they came with `Started`; their taker closes them
        self.keeper: KeeperProcess | None = None  # at the other end, once it has said so

    @property
    def broken(self) -> bool:
        """Whether the keeper is known to be gone."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def send(self, message: ToKeeper) -> None:
        """Send a message. Cancelled in the middle, the line is of no more use. Raises `LauncherDied`."""
        left = memoryview(pack(message))
        while left:
            try:
                left = left[self._socket.send(left, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise LauncherDied from error

    def tell(self, message: ToKeeper) -> None:
        """Send a short message without waiting. It is lost where the keeper is gone or does not read."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            packed = pack(message)
            sent = self._socket.send(packed, socket.MSG_NOSIGNAL)
            assert sent == len(packed), "Linux takes so short a message whole or not at all"

    async def readable(self) -> None:
        """Return once `receive` need not wait; most often for a whole message."""
        if not self._received:
            await anyio.wait_readable(self._socket)

    async def receive(self) -> ToAgent:
        """Receive the next message. Cancelled, nothing is lost. Raises `LauncherDied`."""
        while not self._received:
            try:
                chunk, descriptors = receive_with(self._socket, _RECEIVE_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                continue
            except ConnectionResetError as error:
                raise LauncherDied from error
            if not chunk:
                raise LauncherDied
            self.descriptors += descriptors
            self._received.extend(self._reader.feed(chunk))
        message: ToAgent = self._received.popleft()
        return message

    def close(self) -> None:
        """Close the line: the keeper kills what it keeps and exits. May be called again."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
