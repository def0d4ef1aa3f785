"""Connection to a keeper: the agent's end of a Unix socket, with anyio."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import Any, Final

import anyio

from airunner.agent.launcher.child.wire import Reader, ToAgent, ToKeeper, pack, receive_with
from airunner.agent.launcher.contract import LauncherDied
from airunner.agent.launcher.watchdog import KeeperProcess

_RECEIVE_BYTES: Final = 65_536  # bytes read at a time


class KeeperConnection:
    """Connection to a keeper: sends and receives whole messages. One task may send at a time, and one may receive."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end
        self._reader = Reader()
        self._received: deque[Any] = deque()
        self.descriptors: list[int] = []  # received with `Started`; the caller removes and closes them
        self.keeper: KeeperProcess | None = None  # process at the other end; None before it is `Ready`

    @property
    def broken(self) -> bool:
        """Whether the keeper has closed its end of the socket, or died."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def send(self, message: ToKeeper) -> None:
        """Send a message. After a cancellation the connection must be closed. Raises `LauncherDied`."""
        left = memoryview(pack(message))
        while left:
            try:
                left = left[self._socket.send(left, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise LauncherDied from error

    def try_send(self, message: ToKeeper) -> None:
        """Send a short message without waiting. It is lost if the keeper is gone or does not read."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            packed = pack(message)
            sent = self._socket.send(packed, socket.MSG_NOSIGNAL)
            assert sent == len(packed), "only part of a short message was sent"

    async def readable(self) -> None:
        """Wait until `receive` has something to read: a message, or the first part of one."""
        if not self._received:
            await anyio.wait_readable(self._socket)

    async def receive(self) -> ToAgent:
        """Receive the next message; a cancellation loses nothing. Raises `LauncherDied`."""
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
        """Close the connection: the keeper kills all processes of its job and exits. May be called again."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
