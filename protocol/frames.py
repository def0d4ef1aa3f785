"""The envelopes around a body: what stands in which frame.

```
request   DEALER → ROUTER   [b"AR1", request id (16 bytes), token (may be empty), body]
reply     ROUTER → DEALER   [b"AR1", request id, body]
live      PUB → SUB         [topic (16 bytes), sealed run]      an empty second frame: you are subscribed
```

Count and sizes are checked before any frame's content is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from airunner.protocol.errors import BadRequest, Unsupported
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId

VERSION: Final = b"AR1"
TOKEN_BYTES_MAX: Final = 8_192
BODY_BYTES_MAX: Final = 2_097_152
REQUEST_FRAMES: Final = 4
REPLY_FRAMES: Final = 3
FRAMES_MAX: Final = REQUEST_FRAMES
TOPIC_BYTES: Final = 16
SUBSCRIPTION_BYTES_MAX: Final = 512  # CURVE's own INITIATE must pass too, and takes more than 256


class RequestFrames(Struct, frozen=True):
    """A request still in its envelope."""

    request_id: RequestId
    token: bytes
    body: bytes


def pack_request(request_id: RequestId, token: bytes, body: bytes) -> list[bytes]:
    """The frames of a request; the asker sees to the bounds, so here they are asserted."""
    assert len(request_id) == REQUEST_ID_BYTES
    assert len(token) <= TOKEN_BYTES_MAX
    assert len(body) <= BODY_BYTES_MAX
    return [VERSION, request_id, token, body]


def unpack_request(frames: Sequence[bytes]) -> RequestFrames:
    """The request in `frames`.

    Raises `Unsupported` for another version, `BadRequest` for anything out of bounds.
    """
    _check_version(frames)
    if len(frames) != REQUEST_FRAMES:
        raise BadRequest(f"a request has {REQUEST_FRAMES} frames, not {len(frames)}")
    _, request_id, token, body = frames
    _check_request_id(request_id)
    if len(token) > TOKEN_BYTES_MAX:
        raise BadRequest(f"the token takes {len(token)} bytes and {TOKEN_BYTES_MAX} is the most")
    _check_body(body)
    return RequestFrames(RequestId(request_id), token, body)


def pack_reply(request_id: RequestId, body: bytes) -> list[bytes]:
    """The frames of a reply."""
    assert len(request_id) == REQUEST_ID_BYTES
    assert len(body) <= BODY_BYTES_MAX, f"a reply of {len(body)} bytes"
    return [VERSION, request_id, body]


def unpack_reply(frames: Sequence[bytes]) -> tuple[RequestId, bytes]:
    """The request id and body of a reply.

    Raises `Unsupported` for another version, `BadRequest` for anything out of bounds.
    """
    _check_version(frames)
    if len(frames) != REPLY_FRAMES:
        raise BadRequest(f"a reply has {REPLY_FRAMES} frames, not {len(frames)}")
    _, request_id, body = frames
    _check_request_id(request_id)
    _check_body(body)
    return RequestId(request_id), body


def answerable(frames: Sequence[bytes]) -> RequestId | None:
    """The request id of a malformed request, where it has one that a refusal can name."""
    if len(frames) > 1 and frames[0] == VERSION and len(frames[1]) == REQUEST_ID_BYTES:
        return RequestId(frames[1])
    return None


def _check_version(frames: Sequence[bytes]) -> None:
    if not frames or frames[0] != VERSION:
        raise Unsupported(f"the first frame is not {VERSION.decode()}: another version of the protocol")


def _check_request_id(request_id: bytes) -> None:
    if len(request_id) != REQUEST_ID_BYTES:
        raise BadRequest(f"a request id has {REQUEST_ID_BYTES} bytes, not {len(request_id)}")


def _check_body(body: bytes) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise BadRequest(f"the body takes {len(body)} bytes and {BODY_BYTES_MAX} is the most")
