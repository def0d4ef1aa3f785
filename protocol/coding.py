"""Encoding of messages as MessagePack bodies, and decoding with a check of the body's structure."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from airunner.protocol.bounds import REPLY_VALUES_MAX, UNDECODABLE, VALUES_MAX, check_structure
from airunner.protocol.errors import BadRequest, PeerError
from airunner.protocol.message import Message
from airunner.protocol.names import HASH_BYTES
from airunner.protocol.replies import Nudge, Pong, Refused, Reply
from airunner.protocol.requests import Request

_encoder = msgspec.msgpack.Encoder()
_sorted_encoder = msgspec.msgpack.Encoder(order="sorted")


@cache
def _any_request() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


@cache
def _decoder_of(asked: type[Message] | None) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of replies of a class, and of what may come in their place; None: of all replies.

    A decoder takes a client the longer to build the more classes it knows: of all replies 10 ms.
    """
    return msgspec.msgpack.Decoder(Reply if asked is None else asked | Refused | Pong | Nudge)


def encode(message: Message) -> bytes:
    """Encode `message` as a body. Raises `BadRequest`: a text in it is not Unicode, or a number is too large."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError as error:  # for example, bytes of a command line that are not UTF-8
        raise BadRequest("a text is not UTF-8 and cannot be sent") from error
    except OverflowError as error:
        raise BadRequest("a number is too large to be sent") from error


def decode_request(body: bytes, decoder: msgspec.msgpack.Decoder[Request] | None = None) -> Request:
    """Decode the request in a body. Raises `BadRequest` for anything that is not one request within its bounds."""
    return decode_counted(body, decoder or _any_request())[0]


def decode_counted(body: bytes, decoder: msgspec.msgpack.Decoder[Request]) -> tuple[Request, int]:
    """Decode the request in a body as `decode_request` does; return also how many values were counted in it.

    No value is counted in a short body that is just what `encode` makes of its request, which takes a fifth of the time
    of `check_structure`: such a body has no unknown field, and all others are bounded by their types.
    """
    try:
        request = decoder.decode(body)
    except UNDECODABLE as error:
        raise BadRequest(str(error)) from error
    if len(body) <= VALUES_MAX and _encoder.encode(request) == body:
        return request, 0
    return request, check_structure(body)


def decode_reply(body: bytes, asked: type[Message] | None = None) -> Reply:
    """Decode a reply of the class `asked` (None: any), or a `Refused`, `Pong` or `Nudge`.

    Raises `BadRequest`: the broker sent something else.
    """
    try:
        check_structure(body, REPLY_VALUES_MAX)
        reply: Reply = _decoder_of(asked).decode(body)
    except UNDECODABLE as error:
        raise BadRequest(f"reply: {error}") from error
    return reply


def refusal(error: PeerError) -> Refused:
    """Convert an error to the `Refused` reply that is sent for it."""
    return Refused(
        code=error.code, message=error.message[:1_000], expected_index=error.expected_index, retry_ms=error.retry_ms
    )


def error_of(reply: Refused) -> PeerError:
    """Convert a `Refused` reply to the error that it was made from."""
    return PeerError.from_wire(reply.code, reply.message, reply.expected_index, reply.retry_ms)


def canonical_hash(request: Request) -> bytes:
    """Return a hash that is the same for every encoding of one request, to compare a repeat with the original."""
    return blake2b(_sorted_encoder.encode(request), digest_size=HASH_BYTES).digest()
