"""Messages as bodies and back: MessagePack, whose structure is checked before anything is built from it."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from airunner.protocol.bounds import REPLY_VALUES_MAX, UNDECODABLE, check_structure
from airunner.protocol.errors import BadRequest, PeerError
from airunner.protocol.messages import Refused, Reply, Request
from airunner.protocol.names import HASH_BYTES

_encoder = msgspec.msgpack.Encoder()
_sorted_encoder = msgspec.msgpack.Encoder(order="sorted")
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """`message` as a body.

    Raises `BadRequest`, where a user's words are no text or a number of his is beyond all bounds.
    """
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError as error:  # such as bytes of a command line that are not UTF-8
        raise BadRequest("what was given is not UTF-8 text, and cannot be sent") from error
    except OverflowError as error:
        raise BadRequest("a number that was given is too large to be sent") from error


def decode_request(body: bytes) -> Request:
    """The request in a body.

    Raises `BadRequest` for anything that is not one request within its bounds.
    """
    check_structure(body)
    return decode_checked(body)


def decode_checked(body: bytes) -> Request:
    """The request in a body whose structure was checked.

    Raises `BadRequest` for anything that is not one request.
    """
    try:
        return _request_decoder.decode(body)
    except UNDECODABLE as error:
        raise BadRequest(str(error)) from error


def decode_reply(body: bytes) -> Reply:
    """The reply in a body, `Refused` included.

    Raises `BadRequest` when the broker sent something else.
    """
    try:
        check_structure(body, REPLY_VALUES_MAX)
        return _reply_decoder.decode(body)
    except UNDECODABLE as error:
        raise BadRequest(f"reply: {error}") from error


def refusal(error: PeerError) -> Refused:
    """`error` as it goes on the wire."""
    return Refused(
        code=error.code,
        message=error.message[:1_000],
        expected_index=error.expected_index,
        retry_ms=error.retry_ms,
    )


def error_of(reply: Refused) -> PeerError:
    """The error that a `Refused` stands for, to be raised."""
    return PeerError.from_wire(reply.code, reply.message, reply.expected_index, reply.retry_ms)


def canonical_hash(request: Request) -> bytes:
    """The same for two encodings of one request: tells a repeat from another body under one id."""
    return blake2b(_sorted_encoder.encode(request), digest_size=HASH_BYTES).digest()
