"""AnyioSocket: waits for a ZeroMQ socket in anyio's event loop, without a thread.

The file descriptor of a ZeroMQ socket is edge-triggered: it becomes readable when the socket's state *changes*
(measured), and a send may consume that edge. So `AnyioSocket` reads `EVENTS` before every wait and after every send.
If a message has arrived, it wakes the waiting task or calls the reader again: otherwise these would wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import zmq
from zmq.backend import Socket

from airunner.protocol.frames import FRAMES_MAX
from airunner.transport.ports import DRAIN_MESSAGES_MAX, Frames
from airunner.transport.reader import DescriptorReader, on_asyncio

# Plain integers, because an operation on pyzmq's enumerations takes as long as the socket call itself.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
NOBLOCK: Final = int(zmq.NOBLOCK)
NOT_LAST: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
send_frame: Final = Socket.send  # pyzmq's own wrapper takes half as long again, for arguments that are not used here


class AnyioSocket:
    """ZeroMQ socket with asynchronous receive; a send never waits."""

    def __init__(self, raw: zmq.Socket[bytes], frames_max: int = FRAMES_MAX) -> None:
        self.raw = raw
        self._frames_max = frames_max
        self._fd = raw.FD
        self._waiting: anyio.CancelScope | None = None
        self._accept: Callable[[Frames], None] | None = None
        self._reader: DescriptorReader | None = None

    def send(self, frames: Sequence[bytes]) -> None:
        """Send without waiting; raises `zmq.Again` when the queue is full."""
        try:
            for frame in frames[:-1]:
                send_frame(self.raw, frame, NOT_LAST)
            send_frame(self.raw, frames[-1], NOBLOCK)
        finally:
            self._wake()

    def set_option(self, option: int, value: bytes) -> None:
        """Set an option of a socket in use; like a send, this can consume an edge of the descriptor."""
        self.raw.setsockopt(option, value)
        self._wake()

    async def receive(self) -> list[Frames]:
        """Receive the messages that have arrived, at most `DRAIN_MESSAGES_MAX`; wait for the first."""
        await self.readable()
        batch = [self._receive_message()]
        while len(batch) < DRAIN_MESSAGES_MAX and has_message(self.raw):
            batch.append(self._receive_message())
        return batch

    async def readable(self) -> None:
        """Wait until a message can be received. If there is one already, other tasks still get a turn."""
        if has_message(self.raw):
            await anyio.lowlevel.checkpoint()
            return
        while not has_message(self.raw):
            with anyio.CancelScope() as self._waiting:
                await anyio.wait_readable(self._fd)
            self._waiting = None

    async def read(self, accept: Callable[[Frames], None]) -> None:
        """Receive messages until cancelled, and call `accept` with each; `accept` may send."""
        if not on_asyncio():
            while True:
                for frames in await self.receive():
                    accept(frames)
        self._accept = accept
        self._reader = DescriptorReader(self._fd, self._read)
        await self._reader.run()

    def _read(self) -> None:
        assert self._accept is not None
        assert self._reader is not None
        for count in range(DRAIN_MESSAGES_MAX):
            if self.raw.closed or (count and not has_message(self.raw)):  # nearly always there is a first one
                return
            try:
                frames = self._receive_message()
            except zmq.Again:
                return
            self._accept(frames)
        self._reader.read_again()  # after other tasks had a turn

    def close(self) -> None:
        """Close at once; a waiting task gets `anyio.ClosedResourceError`."""
        if not self.raw.closed:
            if self._waiting is not None:
                anyio.notify_closing(self._fd)
            self.raw.close(linger=0)

    def _receive_message(self) -> Frames:
        """Receive one message; if it is too long, return one frame more than `_frames_max`, so that it is refused.

        Raises `zmq.Again`: none has arrived.
        """
        frame = self.raw.recv(NOBLOCK, copy=False)  # says itself whether more follow
        frames = [frame.bytes]
        while frame.more:
            frame = self.raw.recv(NOBLOCK, copy=False)
            if len(frames) <= self._frames_max:
                frames.append(frame.bytes)
        return frames

    def _wake(self) -> None:
        if self._reader is not None:
            if has_message(self.raw):
                self._reader.read_again()
        elif self._waiting is not None and has_message(self.raw):
            self._waiting.cancel()


def has_message(raw: zmq.Socket[bytes]) -> bool:
    """Return whether a message can be received at once."""
    events = raw.getsockopt(_EVENTS)
    assert isinstance(events, int)
    return bool(events & _POLLIN)
