"""Sends mutated requests over real CURVE sockets: `python -m tests.fuzz.dealing ENDPOINT HOME COUNT SEED TOKEN…`.

Several DEALERs take turns. Each sends a burst, closed by a whole Ping; its Pong, which has to come, says that
everything before it was judged, since a peer's requests are taken in their order. What the queue is asked may be
answered later, and only so much of that is on its way at once. What has a request id is owed an answer: all of them
are counted, and none may be left over at the end but what may wait for a job.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

from airunner.protocol.coding import decode_request
from airunner.protocol.errors import BadRequest
from airunner.protocol.frames import REPLY_FRAMES, answerable, pack_request
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId
from airunner.protocol.requests import DequeueJob
from tests.acceptance.test_plain_msgpack import ANSWER_MS_MAX, Plain
from tests.fuzz.asking import PING, Asking, Frames, Tokens
from tests.fuzz.tally import Teller

DEALERS: Final = 4
BURST: Final = 48  # requests between two Pings: far below what any queue on the way holds
OVERSIZED_EVERY: Final = 5_000  # requests of one DEALER
OWED_MAX: Final = 256  # answers to one DEALER; those to all, and to one that was cut off, fit a tenant's lane
NOBODYS: Final = bytes(REQUEST_ID_BYTES)  # what a Nudge comes under


class Door(NamedTuple):
    """Where the broker listens, and the home of the machine that floods it."""

    requests: str
    home: Path


class Dealer:
    """One connection, its supply of requests, and what it is owed."""

    def __init__(self, door: Door, asking: Asking, teller: Teller) -> None:
        self._asking = asking
        self._teller = teller
        self._owed: dict[bytes, bytes] = {}
        self._pings = 0
        self._plain = Plain(door, "")
        self._raw = self._plain.dealer
        self._raw.sndtimeo = ANSWER_MS_MAX
        self._monitor = self._raw.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._monitor.rcvtimeo = ANSWER_MS_MAX

    def burst(self, count: int) -> None:
        """Send so many."""
        for _ in range(count):
            frames = self._asking.next()
            self._send(frames)
            if (named := answerable(frames)) is not None:
                self._owed[named[0]] = frames[-1]
            self._teller.sent_one()
        self._pings += 1
        self._send(pack_request(self._ping_id, b"", PING))

    def catch_up(self) -> None:
        """Hear everything up to the last burst's Pong, and until not too much is owed."""
        while self._hear() != self._ping_id:
            pass
        while len(self._owed) > OWED_MAX:
            self._hear()

    def overdo(self) -> None:
        """Send a frame that is too large: that ends this connection, and what was owed on it."""
        self._send(self._asking.oversized())
        recv_monitor_message(self._monitor)
        self._teller.outcomes["connection ended"] += 1
        self._owed.clear()

    def settle(self) -> None:
        """Hear what is still owed, except to those who wait for jobs."""
        self._owed = {name: body for name, body in self._owed.items() if not _waits(body)}
        while self._owed:
            self._hear()
        self._plain.context.destroy(linger=0)

    @property
    def _ping_id(self) -> RequestId:
        return RequestId(b"ping" + self._pings.to_bytes(REQUEST_ID_BYTES - 4, "big"))

    def _send(self, frames: Frames) -> None:
        self._raw.send_multipart(frames)

    def _hear(self) -> bytes:
        """The request id of the next reply, which is a whole one."""
        frames = self._raw.recv_multipart()
        assert len(frames) == REPLY_FRAMES, f"a reply of {len(frames)} frames"
        version, request_id, body = frames
        assert version.startswith(b"AR"), "in the revision of its request"
        reply: dict[str, Any] = msgpack.unpackb(body)
        self._owed.pop(request_id, None)
        if request_id not in (NOBODYS, self._ping_id):
            self._teller.outcomes[str(reply.get("code", reply["type"]))] += 1
            self._asking.aims.learn(reply)
        return request_id


def _waits(body: bytes) -> bool:
    """Whether this may be answered as late as half a minute from now."""
    try:
        request = decode_request(body)
    except BadRequest:
        return False
    return isinstance(request, DequeueJob) and request.wait_ms > 0


def main() -> None:
    """Floods, and prints tallies."""
    endpoint, folder, count, seed, *tokens = sys.argv[1:]
    whole, *lesser = (token.encode() for token in tokens)
    teller = Teller()
    door = Door(endpoint, Path(folder))
    dealers = [Dealer(door, Asking(f"{seed}-{number}", Tokens(whole, lesser)), teller) for number in range(DEALERS)]
    rounds = 0
    while teller.sent < int(count):
        rounds += 1
        for dealer in dealers:
            dealer.burst(min(BURST, int(count) - teller.sent))
        for number, dealer in enumerate(dealers):
            dealer.catch_up()
            if rounds % (OVERSIZED_EVERY // BURST) == number:
                dealer.overdo()
    for dealer in dealers:
        dealer.settle()
    teller.tell()


if __name__ == "__main__":
    main()
