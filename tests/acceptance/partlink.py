"""Links that can be parted: TCP proxies on this machine, one of which knows PostgreSQL's COMMIT and can cut there.

A parted link is silent, as a network is that delivers nothing: connections stay, and what was sent waits. It may be
parted for one process of those that use it. One that is parted for `GIVEN_UP_S` is lost at the near end, as its kernel
would have it; the far end hears of that when the link is joined again.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from functools import cache
from threading import Event, Thread
from typing import Final

PIECE_BYTES: Final = 65_536
GIVEN_UP_S: Final = 11.0  # TCP keepalives and user timeout of a broker's connection to its store
HEADER_BYTES: Final = 5  # of a message of PostgreSQL: its type and its length
COMMIT: Final = b"COMMIT"
PARSE, BIND, SYNC, QUERY = b"PBSQ"
COMMITTED: Final = b"Z\0\0\0\5I"  # the server is ready, and in no transaction


class Cut(StrEnum):
    """Where a connection is cut."""

    BEFORE = "before COMMIT"  # the server never gets it
    AFTER = "after COMMIT"  # the server has done it, and nobody is told


class PartLink:
    """Proxy to `target`, in threads of its own; `address` is where it can be reached."""

    def __init__(self, target: tuple[str, int], listen: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._target = target
        self._listener = socket.create_server(listen)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._whole = Event()
        self._whole.set()
        self._of: Callable[[int], bool] | None = None
        self._closed = False
        self._ends: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def part(self, of: Callable[[int], bool] | None = None) -> None:
        """Deliver nothing from now on; `of`: nothing of connections from such ports."""
        self._of = None if of is None else cache(of)
        self._whole.clear()

    def join(self) -> None:
        """Deliver again, also what has waited."""
        self._whole.set()

    def close(self) -> None:
        self._closed = True
        hang_up(self._listener, *self._ends)
        self._listener.close()
        self.join()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            if not self._waited(near):
                return
            with socket.create_connection(self._target) as far:
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends += [near, far]
                self._join_ends(near, far)
                self._ends = [end for end in self._ends if end not in (near, far)]

    def _join_ends(self, near: socket.socket, far: socket.socket) -> None:
        back = Thread(target=self._pump, args=(far, near, near), daemon=True)
        back.start()
        self._pump(near, far, near)
        back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                if not self._delivers(near):
                    break
                sink.sendall(piece)
        hang_up(source, sink)

    def _delivers(self, near: socket.socket) -> bool:
        """Wait while the link is parted; False: the near end has given up meanwhile."""
        if not self._waited(near):
            hang_up(near)
            self._whole.wait()
            return False
        return not self._closed

    def _waited(self, near: socket.socket) -> bool:
        """Wait while the link is parted for a connection; False: it has been for too long."""
        parted = not self._whole.is_set() and (self._of is None or self._of(near.getpeername()[1]))
        return not parted or self._whole.wait(GIVEN_UP_S)


class StoreLink(PartLink):
    """Proxy between one broker and PostgreSQL, without TLS; `cuts` counts where connections were cut."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.cuts: Counter[Cut] = Counter()
        self._next: Cut | None = None

    def cut(self, where: Cut) -> None:
        """Cut the next connection over which a COMMIT goes."""
        self._next = where

    def _join_ends(self, near: socket.socket, far: socket.socket) -> None:
        swallows = Event()
        back = Thread(target=self._pump_back, args=(far, near, swallows), daemon=True)
        back.start()
        with suppress(OSError):
            self._pump_there(near, far, swallows)
        if not swallows.is_set():
            hang_up(near, far)
        back.join()

    def _pump_there(self, near: socket.socket, far: socket.socket, swallows: Event) -> None:
        """Forward message by message until one is a COMMIT after or before which the connection is to be cut."""
        statements: dict[bytes, bytes] = {}
        ending = False
        for message in messages(near):
            if not self._delivers(near):
                return
            if _commits(message, statements) and self._next is not None and not ending:
                where, self._next = self._next, None
                self.cuts[where] += 1
                if where is Cut.BEFORE:
                    return
                swallows.set()
                ending = True
            far.sendall(message)
            if ending and message[0] in (SYNC, QUERY):
                return

    def _pump_back(self, far: socket.socket, near: socket.socket, swallows: Event) -> None:
        """Forward what the server says; `swallows`: only hear it, until it has committed, and hang up."""
        heard = b""
        with suppress(OSError):
            while piece := far.recv(PIECE_BYTES):
                if not self._delivers(near):
                    break
                if swallows.is_set():
                    heard = (heard + piece)[-len(piece) - len(COMMITTED) :]
                    if COMMITTED in heard:
                        break
                else:
                    near.sendall(piece)
        hang_up(far, near)


def messages(source: socket.socket) -> Iterator[bytes]:
    """Read the messages of a client of PostgreSQL, the first of which has no type."""
    held = bytearray()
    typed = 0
    while piece := source.recv(PIECE_BYTES):
        held += piece
        while len(held) >= typed + 4:
            size = typed + int.from_bytes(held[typed : typed + 4])
            if len(held) < size:
                break
            yield bytes(held[:size])
            del held[:size]
            typed = 1


def _commits(message: bytes, statements: dict[bytes, bytes]) -> bool:
    """Check whether a message makes the server commit; `statements` has the prepared ones, by name."""
    if message[0] == PARSE:
        name, query, *_ = message[HEADER_BYTES:].split(b"\0", 2)
        statements[name] = query
    elif message[0] == BIND:
        _, name, *_ = message[HEADER_BYTES:].split(b"\0", 2)
        return statements.get(name) == COMMIT
    return message[0] == QUERY and message[HEADER_BYTES:].rstrip(b"\0") == COMMIT


def hang_up(*ends: socket.socket) -> None:
    """End connections at both sides."""
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
