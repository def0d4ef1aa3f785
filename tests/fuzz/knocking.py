"""Sends raw byte streams over plain TCP: `python -m tests.fuzz.knocking HOME COUNT SEED ENDPOINT ENDPOINT`.

Connections overlap: each is closed when `OPEN` others have been opened behind it, and then must have been greeted or
hung up on; a broker that does neither hangs. Most are reset, some closed. They come from several loopback addresses, so
that there are always ports to come from.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import deque
from pathlib import Path
from typing import Final

from tests.fuzz.handshake import COMMAND, GREETING_BYTES, WELCOMED_BYTES, CurveClient, frame, greeting
from tests.fuzz.streams import Deep, Shallow
from tests.fuzz.tally import Teller

OPEN: Final = 48  # at once; below what libzmq lets wait to be accepted (100)
ADDRESSES: Final = 64  # 127.0.0.1 and on
GREETED_S_MAX: Final = 10.0
DEEP_EVERY: Final = 16  # streams: each takes two ways there and back, and the curve's arithmetic
CLOSED_EVERY: Final = 8  # streams: the others are reset
UNLISTED_EVERY: Final = 4  # deep ones
HEARD_BYTES_MAX: Final = 4_096
RESET: Final = struct.pack("ii", 1, 0)
KINDS: Final = (b"DEALER", b"SUB")


class Knocker:
    """All the streams of one run, to both doors in turn."""

    def __init__(self, certs: Path, seed: str, doors: list[tuple[str, int]], teller: Teller) -> None:
        self._certs = certs
        self._doors = doors
        self._teller = teller
        self._shallow = Shallow(f"{seed}-shallow", CurveClient.of_home(certs).hello())
        self._deep = Deep(f"{seed}-deep")
        self._open: deque[tuple[socket.socket, bool]] = deque()  # and whether it was greeted

    def knock(self, number: int) -> None:
        """Open one connection, and close the oldest."""
        deep, turn = number % DEEP_EVERY == 0, number // DEEP_EVERY
        door = (turn if deep else number) % len(self._doors)
        connection = self._connect(door, number)
        self._open.append((connection, deep))
        if deep:
            self._go_deep(connection, KINDS[door], listed=turn % UNLISTED_EVERY != 0)
        else:
            try:
                connection.sendall(self._shallow.next())
            except ConnectionError:
                self._teller.outcomes["hung up on while sending"] += 1
        self._teller.sent_one()
        if len(self._open) > OPEN:
            self.close_one()

    def close_one(self) -> None:
        """The oldest; it has been heard, whatever it said."""
        connection, greeted = self._open.popleft()
        try:
            heard = greeted or connection.recv(HEARD_BYTES_MAX)
        except ConnectionError:
            self._teller.outcomes["reset by the broker"] += 1
        else:
            self._teller.outcomes["greeted" if heard else "closed by the broker"] += 1
        connection.close()

    def end(self) -> None:
        """Close all that are open."""
        while self._open:
            self.close_one()

    def _connect(self, door: int, number: int) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(GREETED_S_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if number % CLOSED_EVERY:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        connection.bind((f"127.0.0.{1 + number % ADDRESSES}", 0))
        connection.connect(self._doors[door])
        return connection

    def _go_deep(self, connection: socket.socket, kind: bytes, *, listed: bool) -> None:
        client = CurveClient.of_home(self._certs, listed=listed)
        connection.sendall(greeting() + frame(client.hello(), COMMAND))
        heard = b""
        while len(heard) < WELCOMED_BYTES:
            more = connection.recv(WELCOMED_BYTES - len(heard))
            assert more, "a whole HELLO was not welcomed"
            heard += more
        client.welcome(heard[GREETING_BYTES + 2 :])
        connection.sendall(self._deep.next(client, kind))
        self._teller.outcomes["welcomed"] += 1


def main() -> None:
    """Floods, and prints tallies."""
    folder, count, seed, *endpoints = sys.argv[1:]
    teller = Teller()
    parts = (endpoint.removeprefix("tcp://").split(":") for endpoint in endpoints)
    knocker = Knocker(Path(folder) / "certs", seed, [(host, int(port)) for host, port in parts], teller)
    for number in range(int(count)):
        knocker.knock(number)
    knocker.end()
    teller.tell()


if __name__ == "__main__":
    main()
