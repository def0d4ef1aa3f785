"""A network between peers and a broker that keeps a copy of every byte."""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

HOST = "127.0.0.2"  # so that ports can be those of the broker, which tells one of them itself


class Capture:
    """What went over it, each direction of each connection by itself."""

    def __init__(self) -> None:
        self.streams: list[bytearray] = []

    @property
    def content(self) -> bytes:
        return b"\n--\n".join(self.streams)


@contextmanager
def captured(endpoints: Sequence[str]) -> Generator[Capture]:
    """While the block runs, `HOST` stands before the host of these TCP endpoints."""
    capture = Capture()
    listeners: list[socket.socket] = []
    try:
        for endpoint in endpoints:
            host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
            listeners.append(socket.create_server((HOST, int(port))))
            Thread(target=_accept, args=(listeners[-1], (host, int(port)), capture), daemon=True).start()
        yield capture
    finally:
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _accept(listener: socket.socket, to: tuple[str, int], capture: Capture) -> None:
    with suppress(OSError):  # closed
        while True:
            near, _ = listener.accept()
            Thread(target=_join, args=(near, to, capture), daemon=True).start()


def _join(near: socket.socket, to: tuple[str, int], capture: Capture) -> None:
    there, back = bytearray(), bytearray()
    capture.streams += (there, back)
    with near, suppress(OSError), socket.create_connection(to) as far:
        backwards = Thread(target=_pump, args=(far, near, back), daemon=True)
        backwards.start()
        _pump(near, far, there)
        backwards.join()


def _pump(source: socket.socket, sink: socket.socket, copy: bytearray) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            copy += chunk
            sink.sendall(chunk)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
