"""A link between peers and a broker: a TCP proxy on this machine that can be slow and bad, and keep a copy of all.

Its pace is what it is for; nothing is asserted of time.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from math import inf
from threading import Event, Lock, Thread
from typing import Final

PIECE_BYTES: Final = 4_096


class _Pace:
    """What one direction of the link carries, shared by all its connections."""

    def __init__(self, bytes_a_s: float) -> None:
        self._bytes_a_s = bytes_a_s
        self._free_at_s = 0.0
        self._lock = Lock()

    def take(self, size: int) -> float:
        """The time until so much more has gone over it, in s."""
        with self._lock:
            now_s = time.monotonic()
            self._free_at_s = max(now_s, self._free_at_s) + size / self._bytes_a_s
            return self._free_at_s - now_s


class SlowLink:
    """The proxy, in threads of its own; `endpoint` is where it can be reached.

    It carries `bytes_a_s` each way, and loses each connection that has carried `cut_bytes`, as a bad line does. With
    `keeps`, `streams` has what went over it, each direction of each connection by itself.
    """

    def __init__(
        self,
        target: str,
        bytes_a_s: float = inf,
        cut_bytes: float = inf,
        *,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        keeps: bool = False,
    ) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._there, self._back = _Pace(bytes_a_s), _Pace(bytes_a_s)
        self._cut_bytes = cut_bytes
        self._keeps = keeps
        self._listener = socket.create_server(listen)
        self.endpoint = "tcp://{}:{}".format(*self._listener.getsockname())
        self.streams: list[bytearray] = []
        self.lost = 0  # connections that it has cut
        self._ends: list[socket.socket] = []
        self._closed = Event()
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        _hang_up(self._listener, *self._ends)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(self._target) as far:
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends.append(end)
            carried = [0]
            backwards = Thread(target=self._pump, args=(far, near, self._back, carried), daemon=True)
            backwards.start()
            self._pump(near, far, self._there, carried)
            backwards.join()

    def _pump(self, source: socket.socket, sink: socket.socket, pace: _Pace, carried: list[int]) -> None:
        stream = bytearray()
        self.streams.append(stream)
        with suppress(OSError):
            while carried[0] <= self._cut_bytes and (piece := source.recv(PIECE_BYTES)):
                self._closed.wait(pace.take(len(piece)))
                sink.sendall(piece)
                carried[0] += len(piece)
                self.lost += carried[0] > self._cut_bytes
                if self._keeps:
                    stream += piece
        _hang_up(source, sink)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
