"""Log chain: BLAKE3 hashes that bind the events of an attempt in their order, for its agent to sign. Pure.

```
 event ──► leaf = BLAKE3(event)
 link 1: head 1 = BLAKE3(32 zeros ‖ leaf ‖ leaf ‖ …)      LOG_SIGNED of the events so far
 link 2: head 2 = BLAKE3(head 1   ‖ leaf ‖ leaf ‖ …)      the first leaf is that of the LOG_SIGNED before
```

An event is hashed as its bytes in the batch, decompressed. A head stands for every event of the attempt before it. A
link also has the **tags** of its events, the first `TAG_BYTES` of each leaf: where a head is not what it should be,
they tell which events were changed. The agent signs a `statement`, which contains the link. Docs/PROTOCOL.md, section
6, says how to verify a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from blake3 import blake3

from airunner.protocol.compression import decompressed
from airunner.protocol.events import HEAD_BYTES, TAG_BYTES, LogSigned

START: Final = bytes(HEAD_BYTES)  # the head before the first link
LABEL: Final = "airunner log 1"  # begins each statement, so that a signature of anything else is none of a log
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_encoder = msgspec.msgpack.Encoder()


class Link(NamedTuple):
    """Link of a chain: the tags of its events, and the head behind them."""

    tags: bytes
    head: bytes


class LogChain:
    """Chain of one attempt's events, from behind the link with the head `head` on."""

    def __init__(self, head: bytes = START) -> None:
        self._hasher = blake3(head)
        self._tags = bytearray()
        self.count = 0  # of events since the last link

    def add(self, leaves: Sequence[bytes]) -> None:
        """Add the next events, by their leaves."""
        self._hasher.update(b"".join(leaves))
        self._tags += b"".join([leaf[:TAG_BYTES] for leaf in leaves])
        self.count += len(leaves)

    def link(self) -> Link:
        """Close the link of the events since the last one, and begin the next."""
        link = Link(bytes(self._tags), self._hasher.digest())
        self._hasher = blake3(link.head)
        self._tags.clear()
        self.count = 0
        return link


def events_in(batch: bytes) -> list[msgspec.Raw]:
    """Return the events of a batch as bytes. Raises `BadRequest` or an error of decoding: it is none."""
    return _raw_decoder.decode(decompressed(batch))


def leaves_of(batch: bytes) -> list[bytes]:
    """Return the leaf of each event of a batch. Raises the errors of `events_in`."""
    return [blake3(event).digest() for event in events_in(batch)]


def leaf_of(event: LogSigned) -> bytes:
    """Return the leaf of an event that was just made."""
    return blake3(_encoder.encode(event)).digest()


def statement(job_id: str, attempt: int, body: LogSigned) -> bytes:
    """Return what is signed: all fields of a LOG_SIGNED but the signature, with the job and the attempt."""
    result = body.result and (body.result.exit_code, body.result.signal, body.result.reason)
    fields = (body.timestamp_ms, body.index, body.tags, body.head, result, body.signer)
    return _encoder.encode((LABEL, job_id, attempt, *fields))
