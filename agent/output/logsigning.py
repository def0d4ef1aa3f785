"""Log signing: chains the events of one attempt as they are encoded, and signs them for `airunner verify`.

The chain grows with each batch that is written to the spool, so a batch that is sent again changes nothing. A signature
is an event of its own, LOG_SIGNED: after each `SIGN_EVENTS` events, and at the attempt's end, with its result. Only
hashes since the last signature are in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from airunner.protocol.events import SIGNATURE_BYTES, AgentBody, LogSigned, encode_bodies
from airunner.protocol.job import Result
from airunner.protocol.logchain import LogChain, leaf_of, leaves_of, statement

SIGN_EVENTS: Final = 1_024  # events after which they are signed: 64 MiB of fast output


class Signer(Protocol):
    """Signer of statements; `public` is its public key."""

    public: bytes

    def sign(self, statement: bytes) -> bytes:
        """Return the signature of a statement."""
        ...


class LogSigning:
    """Log signing of one attempt, with the key of `signer`."""

    def __init__(self, job_id: str, attempt: int, signer: Signer) -> None:
        self._job_id = job_id
        self._attempt = attempt
        self._signer = signer
        self._chain = LogChain()
        self._index = 0  # of the next event
        self._last_ms = 0

    def encoded(self, bodies: Sequence[AgentBody], result: Result | None) -> tuple[int, bytes]:
        """Encode a batch, with a signature if one is due; return its count of events too.

        `result`: the batch is the last of the attempt, and may be empty; it ends with a signature.
        """
        raw = encode_bodies(bodies)
        if bodies:
            self._chain.add(leaves_of(raw))
            self._index += len(bodies)
            self._last_ms = bodies[-1].timestamp_ms
        if result is None and self._chain.count < SIGN_EVENTS:
            return len(bodies), raw
        signed = self._signed(result)
        self._chain.add([leaf_of(signed)])
        self._index += 1
        return len(bodies) + 1, encode_bodies([*bodies, signed])

    def _signed(self, result: Result | None) -> LogSigned:
        link = self._chain.link()
        unsigned = LogSigned(
            timestamp_ms=self._last_ms,
            index=self._index,
            tags=link.tags,
            head=link.head,
            result=result and replace(result, usage=None),
            signer=self._signer.public,
            signature=bytes(SIGNATURE_BYTES),
        )
        return replace(unsigned, signature=self._signer.sign(statement(self._job_id, self._attempt, unsigned)))
