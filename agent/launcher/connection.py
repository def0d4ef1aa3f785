"""Connection to a keeper: the agent's end of a Unix socket, which the event loop watches as long as it is open."""

from __future__ import annotations

import os
import socket
from collections import deque
from contextlib import suppress
from typing import Any, Final

import anyio

from airunner.agent.launcher.child.wire import DESCRIPTORS_MAX, Reader, ToAgent, ToKeeper, pack, receive_with
from airunner.agent.launcher.contract import LauncherDied
from airunner.agent.launcher.watchdog import KeeperProcess
from airunner.transport.bell import Bell
from airunner.transport.reader import watch

_RECEIVE_BYTES: Final = 65_536  # bytes read at a time


class KeeperConnection:
    """Connection to a keeper: sends and receives whole messages. One task may send at a time, and one may receive."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end
        self._reader = Reader()
        self._received: deque[Any] = deque()
        self._arrived = Bell()  # rings when a message has arrived, or none will any more
        self._reserved: list[int] = []
        self._over: type[Exception] | None = None  # what `receive` raises after the last message
        self._descriptors: list[int] = []  # received with messages, and not taken
        self.keeper: KeeperProcess | None = None  # process at the other end; None before it is `Ready`
        self._unwatch = watch(end.fileno(), self._read)

    @property
    def broken(self) -> bool:
        """Whether the keeper has closed its end of the socket, or died."""
        if self._over is None:
            self._read()  # the event loop has perhaps not looked yet
        return self._over is not None

    def reserve(self) -> None:
        """Reserve descriptors for the output of the command that is started next. Raises `OSError`.

        The kernel silently drops descriptors that it cannot pass on: the command would run, and its output be lost.
        """
        while len(self._reserved) < DESCRIPTORS_MAX:
            self._reserved.append(os.dup(self._socket.fileno()))

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
        """Wait until `receive` does not wait: there is a message, or there will be none."""
        while not self._received and self._over is None:
            await self._arrived.wait()

    async def receive(self) -> ToAgent:
        """Receive the next message; a cancellation loses nothing. Raises `LauncherDied`."""
        await self.readable()
        if not self._received:
            assert self._over is not None
            raise self._over
        message: ToAgent = self._received.popleft()
        return message

    def take_descriptors(self) -> list[int]:
        """Take the descriptors that came with `Started`: from now on it is the caller who closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        """Close the connection: the keeper kills all processes of its job and exits. May be called again."""
        if self._socket.fileno() >= 0:
            self._end(anyio.ClosedResourceError)
            self._socket.close()
            _close_all(self._descriptors)

    def _read(self) -> None:
        """Receive what has arrived. The reserved descriptors are closed first, so that those that come with it fit."""
        _close_all(self._reserved)
        try:
            chunk, descriptors = receive_with(self._socket, _RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk, descriptors = b"", []
        if not chunk:
            self._end(LauncherDied)
            return
        self._descriptors += descriptors
        self._received.extend(self._reader.feed(chunk))
        self._arrived.ring()

    def _end(self, over: type[Exception]) -> None:
        """End the reading: `receive` raises `over` after the messages that have arrived."""
        _close_all(self._reserved)
        if self._over is None:
            self._unwatch()
        self._over = over
        self._arrived.ring()


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
