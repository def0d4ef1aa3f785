"""The client's side of ZMTP 3.1 and CURVE, written out, so that each byte of it can be wrong.

```
client                                server
greeting (64 bytes)          ◄────►   greeting
HELLO    C', box[0…] (C'→S)   ────►
                             ◄────    WELCOME   box[S', cookie] (S→C')
INITIATE cookie, box[C, vouch, metadata] (C'→S')  ────►     here the Gatekeeper is asked
                             ◄────    READY
MESSAGE  box[flags, frame]   ◄────►   MESSAGE
```

Sources: https://rfc.zeromq.org/spec/23/ (ZMTP 3.0) and https://rfc.zeromq.org/spec/26/ (CurveZMQ).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nacl.bindings import crypto_box, crypto_box_keypair, crypto_box_open
from zmq.utils import z85

GREETING_BYTES: Final = 64
WELCOME_BYTES: Final = 168
WELCOMED_BYTES: Final = GREETING_BYTES + 2 + WELCOME_BYTES
COMMAND: Final = 0x04
LONG: Final = 0x02
SHORT_BYTES_MAX: Final = 255


def greeting(mechanism: bytes = b"CURVE", *, version: bytes = b"\x03\x01", as_server: bool = False) -> bytes:
    """The first 64 bytes of a connection."""
    return b"\xff" + bytes(8) + b"\x7f" + version + mechanism.ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def frame(content: bytes, flags: int = 0) -> bytes:
    """One ZMTP frame."""
    if len(content) > SHORT_BYTES_MAX:
        return bytes([flags | LONG]) + len(content).to_bytes(8, "big") + content
    return bytes([flags, len(content)]) + content


def command(name: bytes, content: bytes) -> bytes:
    """One ZMTP command, unframed."""
    return bytes([len(name)]) + name + content


def metadata(properties: dict[bytes, bytes]) -> bytes:
    """Properties as READY and INITIATE carry them."""
    parts = (bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in properties.items())
    return b"".join(parts)


class CurveClient:
    """One client's keys and one connection's; nonces count from 1."""

    def __init__(self, server_public: bytes, public: bytes, secret: bytes) -> None:
        self._server_public = server_public
        self._public = public
        self._secret = secret
        self._short_public, self._short_secret = crypto_box_keypair()
        self._server_short = b""
        self._cookie = b""
        self._nonce = 0

    @classmethod
    def of_home(cls, certs: Path, *, listed: bool = True) -> CurveClient:
        """One with the keys of a home; or with keys that are not on the allow-list."""
        server = z85.decode((certs / "broker.public").read_bytes().strip())
        if not listed:
            return cls(server, *crypto_box_keypair())
        public, secret = (z85.decode((certs / f"client.{kind}").read_bytes().strip()) for kind in ("public", "secret"))
        return cls(server, public, secret)

    def hello(self) -> bytes:
        """The HELLO command, unframed."""
        nonce = self._next()
        box = crypto_box(bytes(64), b"CurveZMQHELLO---" + nonce, self._server_public, self._short_secret)
        return command(b"HELLO", b"\x01\x00" + bytes(72) + self._short_public + nonce + box)

    def welcome(self, content: bytes) -> None:
        """Take in the WELCOME command, unframed."""
        assert len(content) == WELCOME_BYTES, f"a WELCOME of {len(content)} bytes"
        assert content.startswith(b"\x07WELCOME")
        opened = crypto_box_open(content[24:], b"WELCOME-" + content[8:24], self._server_public, self._short_secret)
        self._server_short, self._cookie = opened[:32], opened[32:]

    def initiate(self, properties: bytes, vouch_nonce: bytes = bytes(16)) -> bytes:
        """The INITIATE command, unframed."""
        vouched = self._short_public + self._server_public
        vouch = crypto_box(vouched, b"VOUCH---" + vouch_nonce, self._server_short, self._secret)
        nonce = self._next()
        box = self._box(b"CurveZMQINITIATE", nonce, self._public + vouch_nonce + vouch + properties)
        return command(b"INITIATE", self._cookie + nonce + box)

    def message(self, content: bytes, flags: int = 0) -> bytes:
        """A MESSAGE command, unframed, around a frame of `content`."""
        nonce = self._next()
        return command(b"MESSAGE", nonce + self._box(b"CurveZMQMESSAGEC", nonce, bytes([flags]) + content))

    def opened(self, content: bytes) -> bytes:
        """The frame in a MESSAGE command of the server's, unframed."""
        assert content.startswith(b"\x07MESSAGE")
        nonce, box = b"CurveZMQMESSAGES" + content[8:16], content[16:]
        return crypto_box_open(box, nonce, self._server_short, self._short_secret)[1:]

    def _box(self, prefix: bytes, nonce: bytes, plain: bytes) -> bytes:
        return crypto_box(plain, prefix + nonce, self._server_short, self._short_secret)

    def _next(self) -> bytes:
        self._nonce += 1
        return self._nonce.to_bytes(8, "big")
