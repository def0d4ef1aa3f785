"""Connection of a process of the job: its frames, one at a time, so that what is not asked for waits in its buffer."""

from __future__ import annotations

import socket
from collections import deque
from typing import Final

import anyio

from airunner.protocol.jobsocket import Frames, ToAgent, ToJob, frame, message_of_job

RECEIVE_BYTES: Final = 262_144  # read at a time: about as much as a socket's buffer has


class Hungup(Exception):
    """Process has closed its connection before its request was whole."""


class JobConnection:
    """Connection of one process; `end` is the socket, which does not block."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._frames = Frames()
        self._bodies: deque[bytes] = deque()

    async def receive(self) -> ToAgent:
        """Receive the next message. Raises `BadRequest`, `Hungup`."""
        while not self._bodies:
            await anyio.wait_readable(self._end)
            try:
                chunk = self._end.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Hungup from error
            if not chunk:
                raise Hungup
            self._bodies.extend(self._frames.feed(chunk))
        return message_of_job(self._bodies.popleft())

    async def send(self, message: ToJob) -> None:
        """Send the answer. Raises `Hungup`."""
        left = memoryview(frame(message))
        while left:
            try:
                left = left[self._end.send(left, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await anyio.wait_writable(self._end)
            except OSError as error:
                raise Hungup from error
