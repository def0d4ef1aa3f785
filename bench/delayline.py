"""Line with a delay: a TCP proxy that passes bytes on unchanged, each piece a fixed time after it came."""

from __future__ import annotations

import socket
import time
from queue import SimpleQueue
from threading import Thread
from typing import Final, Self

PIECE_BYTES: Final = 65_536
_Piece = tuple[float, bytes]


class DelayLine:
    """Line to a port of this machine, at `port`; `delay_s` is the delay in each direction.

    `sent_bytes` counts what was sent to that port, over all connections.
    """

    def __init__(self, target: int, delay_s: float) -> None:
        self._target = target
        self._delay_s = delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.sent_bytes = 0
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                pieces = SimpleQueue[_Piece]()
                Thread(
                    target=self._read, args=(source, pieces), kwargs={"counted": source is near}, daemon=True
                ).start()
                Thread(target=self._write, args=(sink, pieces), daemon=True).start()

    def _read(self, source: socket.socket, pieces: SimpleQueue[_Piece], *, counted: bool) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(PIECE_BYTES)
            except OSError:
                data = b""
            self.sent_bytes += len(data) if counted else 0
            pieces.put((time.monotonic() + self._delay_s, data))

    @staticmethod
    def _write(sink: socket.socket, pieces: SimpleQueue[_Piece]) -> None:
        while True:
            due_s, data = pieces.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                return
