"""Byte streams that are almost ZMTP: greetings, HELLOs and INITIATEs, mutated, cut short, oversized, or noise.

Pure, as `bodies` is: keys and what is made with them are handed in.
"""

from __future__ import annotations

from random import Random
from typing import Final

from tests.fuzz.asking import PING
from tests.fuzz.bodies import hurt
from tests.fuzz.handshake import COMMAND, GREETING_BYTES, LONG, CurveClient, command, frame, greeting, metadata

MECHANISMS: Final = (b"NULL", b"PLAIN", b"GSSAPI", b"curve", b"CURVE\0X", b"", b"X" * 20)
VERSIONS: Final = (b"\x00\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x03\x63", b"\xff\xff")
SIZES: Final = (255, 256, 2**20, 2**21 + 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
FLAGS_MAX: Final = 255
NOISE_BYTES_MAX: Final = 200
MORE: Final = 0x01
SUBSCRIBE: Final = b"\x01"


class Shallow:
    """Streams that need nothing of the broker's to be made: sent in one piece."""

    def __init__(self, seed: str, hello: bytes) -> None:
        self._rng = Random(seed)
        self._opening = greeting() + frame(hello, COMMAND)  # it may be said again by anybody who heard it
        self._parts = [self._opening, greeting(b"NULL"), frame(PING), command(b"READY", b"")]

    def next(self) -> bytes:
        """The next stream."""
        rng = self._rng
        match rng.randrange(10):
            case 0:
                return rng.randbytes(rng.randint(0, NOISE_BYTES_MAX))
            case 1:
                return self._opening[: rng.randint(0, len(self._opening))]
            case 2:
                return hurt(rng, greeting(), self._parts) + self._opening[GREETING_BYTES:]
            case 3:
                return self._opening
            case 4 | 5:
                hello = hurt(rng, self._opening[GREETING_BYTES:], self._parts)
                return greeting() + hello
            case 6:
                return self._older_or_other()
            case 7:
                return greeting() + self._oversized()
            case 8:
                return greeting() + b"".join(self._command() for _ in range(rng.randint(1, 4)))
            case _:
                return hurt(rng, self._opening, self._parts)

    def _older_or_other(self) -> bytes:
        """Another mechanism, or another version of ZMTP, whose greetings are shorter."""
        rng = self._rng
        match rng.randrange(4):
            case 0:
                return b"\x01\x00" + frame(PING) * 3  # ZMTP 1.0 has no signature at all
            case 1:
                return greeting()[:10] + rng.choice(VERSIONS) + rng.randbytes(rng.randint(0, 60))
            case 2:
                return greeting(version=rng.choice(VERSIONS), as_server=rng.random() < 0.5) + frame(PING)
            case _:
                ready = frame(command(b"READY", metadata({b"Socket-Type": b"DEALER"})), COMMAND)
                return greeting(rng.choice(MECHANISMS)) + ready + frame(PING)

    def _oversized(self) -> bytes:
        """A frame that claims more than it brings."""
        rng = self._rng
        flags = rng.choice((LONG, LONG | COMMAND, LONG | MORE))
        return bytes([flags]) + rng.choice(SIZES).to_bytes(8, "big") + rng.randbytes(rng.randint(0, 64))

    def _command(self) -> bytes:
        rng = self._rng
        name = rng.choice((b"HELLO", b"WELCOME", b"INITIATE", b"READY", b"MESSAGE", b"ERROR", b"PING", b"", b"X" * 255))
        content = command(name, rng.randbytes(rng.choice((0, 8, 16, 194, 249, 300))))
        return frame(content, rng.choice((COMMAND, COMMAND, 0, MORE, rng.randint(0, FLAGS_MAX))))


class Deep:
    """What follows a HELLO that was welcomed: INITIATEs, and frames behind them; of a key that is listed, or is not."""

    def __init__(self, seed: str) -> None:
        self._rng = Random(seed)

    def next(self, client: CurveClient, kind: bytes) -> bytes:
        """The second piece of a stream to a broker's socket for peers of `kind`."""
        rng = self._rng
        initiate = client.initiate(self._properties(kind), rng.randbytes(16))
        chance = rng.random()
        if chance < 0.3:
            return frame(hurt(rng, initiate, [initiate]), COMMAND)
        if chance < 0.4:
            return hurt(rng, frame(initiate, COMMAND), [initiate])
        return frame(initiate, COMMAND) + b"".join(self._frame(client) for _ in range(rng.randint(0, 6)))

    def _properties(self, kind: bytes) -> bytes:
        rng = self._rng
        chance = rng.random()
        if chance < 0.4:
            return metadata({b"Socket-Type": kind, b"Identity": b""})
        if chance < 0.6:  # whoever says who he is is not believed
            return metadata({b"Socket-Type": kind, b"User-Id": b"x" * 40, b"Identity": b"A" + rng.randbytes(3)})
        if chance < 0.7:
            return metadata({b"Socket-Type": rng.choice((b"", b"REQ", b"PUB", b"NONE", b"X" * 300))})
        return hurt(rng, metadata({b"Socket-Type": kind, b"X-Other": b"y" * 50}), [b"Socket-Type"])

    def _frame(self, client: CurveClient) -> bytes:
        """A MESSAGE in its box, or in none, or in one that was opened."""
        rng = self._rng
        contents = (PING, b"AR1", SUBSCRIBE + rng.randbytes(16), b"\x00" + bytes(16), b"", SUBSCRIBE + bytes(480))
        message = client.message(rng.choice(contents), rng.choice((0, 0, MORE, COMMAND, rng.randint(0, FLAGS_MAX))))
        chance = rng.random()
        if chance < 0.5:
            return frame(message, rng.choice((0, 0, COMMAND)))
        if chance < 0.8:
            return frame(hurt(rng, message, [message]))
        return hurt(rng, frame(message), [message])
