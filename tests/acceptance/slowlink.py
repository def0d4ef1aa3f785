"""A slow link: a TCP proxy on this machine that carries so many bytes a second each way, shared by all its connections.

Its pace is what it is for; nothing is asserted of time. `cut_bytes` makes it lose each connection that has carried as
much, as a bad line does.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Final

PIECE_BYTES: Final = 4_096
HELD_BYTES_MAX: Final = 65_536  # that were taken from one end and not yet given to the other
LOOK_S: Final = 0.02  # the pace's grain, where something waits for its turn


class _Way:
    """One direction of one connection."""

    def __init__(self, origin: socket.socket, target: socket.socket, bucket: _Bucket) -> None:
        self.origin = origin
        self.target = target
        self.bucket = bucket
        self.held = bytearray()


class _Bucket:
    """What one direction of the link may carry just now, in bytes."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._at_s = time.monotonic()
        self.bytes = 0.0

    def fill(self) -> None:
        now_s = time.monotonic()
        self.bytes = min(self._rate / 4, self.bytes + (now_s - self._at_s) * self._rate)
        self._at_s = now_s


class SlowLink:
    """The proxy, in a thread of its own; `endpoint` is where it can be reached."""

    def __init__(self, target: str, bytes_a_s: float, cut_bytes: int | None = None) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._cut_bytes = cut_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._up, self._down = _Bucket(bytes_a_s), _Bucket(bytes_a_s)
        self._ways: list[_Way] = []
        self._carried: dict[frozenset[socket.socket], int] = {}
        self.lost = 0  # connections that it has cut
        self._told, self._tell = os.pipe()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._tell)
        self._thread.join()
        os.close(self._told)
        self._listener.close()
        for way in self._ways:
            way.origin.close()

    def _run(self) -> None:
        while True:
            for bucket in (self._up, self._down):
                bucket.fill()
            wanting = [way for way in self._ways if len(way.held) < HELD_BYTES_MAX]
            held = [way for way in self._ways if way.held and way.bucket.bytes >= 1]
            waits = any(way.held for way in self._ways)
            reading = [self._listener, self._told, *(way.origin for way in wanting)]
            readable, writable, _ = select.select(
                reading, [way.target for way in held], [], LOOK_S if waits and not held else None
            )
            if self._told in readable:
                return
            if self._listener in readable:
                self._accept()
            for way in wanting:
                if way.origin in readable:
                    self._take(way)
            for way in held:
                if way.target in writable and way in self._ways:
                    self._give(way)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            broker = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        for end in (client, broker):
            end.settimeout(0.0)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways += [_Way(client, broker, self._up), _Way(broker, client, self._down)]
        self._carried[frozenset((client, broker))] = 0

    def _take(self, way: _Way) -> None:
        try:
            piece = way.origin.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._end(way)
        way.held += piece

    def _give(self, way: _Way) -> None:
        try:
            sent = way.target.send(way.held[: min(PIECE_BYTES, int(way.bucket.bytes))])
        except BlockingIOError:
            return
        except OSError:
            self._end(way)
            return
        del way.held[:sent]
        way.bucket.bytes -= sent
        both = frozenset((way.origin, way.target))
        self._carried[both] += sent
        if self._cut_bytes is not None and self._carried[both] > self._cut_bytes:
            self.lost += 1
            self._end(way)

    def _end(self, way: _Way) -> None:
        """Both directions of this connection."""
        ends = {way.origin, way.target}
        self._ways = [other for other in self._ways if other.origin not in ends]
        for end in ends:
            with suppress(OSError):
                end.close()


@contextmanager
def slow_link(target: str, bytes_a_s: float, cut_bytes: int | None = None) -> Iterator[SlowLink]:
    """A slow way to `target` while the block runs."""
    link = SlowLink(target, bytes_a_s, cut_bytes)
    try:
        yield link
    finally:
        link.close()
