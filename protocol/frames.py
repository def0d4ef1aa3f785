"""Frames of the messages on the wire: what each frame of an envelope contains.

```
request   DEALER → ROUTER   [b"AR3", request id (16 bytes), token (may be empty), body]
reply     ROUTER → DEALER   [b"AR3", request id, body]
live      PUB → SUB         [topic (16 bytes), sealed segment]  an empty second frame confirms the subscription
peer      PUB → SUB         [0x01 + topic, sealed segment]      the same, between the brokers of a fleet
```

The number in the first frame is the protocol's revision. A client or agent uses one, `REVISION`; a broker replies in
the request's revision if that is one of `SERVED`, and refuses any other with an explanation. Some things stay the same
in every revision, so that any two peers can find out that they do not match: the first two frames, `Refused`, and
messages under the request id of zeros (Ping, Pong, Nudge), whose revision is always `FIRST`.

The revision is checked first, then the number and sizes of frames, and only then is any other content used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from airunner.protocol.errors import BadRequest, Unsupported
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId

FIRST: Final = 1
REVISION = 3  # revision of the requests that this software sends
SERVED: tuple[int, ...] = (2, 3)  # revisions that its broker serves: two, so that brokers can be upgraded before agents
NO_REQUEST: Final = RequestId(bytes(REQUEST_ID_BYTES))  # request id of Pings, Pongs and Nudges
TOKEN_BYTES_MAX: Final = 8_192
BODY_BYTES_MAX: Final = 2_097_152
REQUEST_FRAMES: Final = 4
REPLY_FRAMES: Final = 3
FRAMES_MAX: Final = REQUEST_FRAMES
TOPIC_BYTES: Final = 16
PEER_TOPIC: Final = b"\1"  # before a topic to which another broker of the fleet subscribes
PEER_TOPIC_BYTES: Final = len(PEER_TOPIC) + TOPIC_BYTES
LIVE_BYTES_MAX: Final = 2_048  # of a segment's events; a longer segment is published without events, and replayed
SUBSCRIPTION_BYTES_MAX: Final = 512  # of a message to the XPUB socket, CURVE's INITIATE command (over 256) included
_MAGIC: Final = re.compile(rb"AR([1-9][0-9]{0,5})")


class RequestFrames(Struct, frozen=True):
    """Request in its envelope, not decoded yet."""

    request_id: RequestId
    token: bytes
    body: bytes
    revision: int = REVISION


def magic(revision: int) -> bytes:
    """Return the first frame of every message of a revision."""
    return b"AR%d" % revision


_REVISIONS: Final = {magic(revision): revision for revision in (FIRST, *SERVED)}  # of nearly all messages
_MAGICS: Final = {revision: frame for frame, revision in _REVISIONS.items()}


def pack_request(request_id: RequestId, token: bytes, body: bytes) -> list[bytes]:
    """Pack a request into frames; the caller respects the bounds, which are asserted here."""
    assert len(request_id) == REQUEST_ID_BYTES
    assert len(token) <= TOKEN_BYTES_MAX
    assert len(body) <= BODY_BYTES_MAX
    return [_MAGICS[FIRST if request_id == NO_REQUEST else REVISION], request_id, token, body]


def unpack_request(frames: Sequence[bytes]) -> RequestFrames:
    """Unpack a request. Raises `Unsupported`: its revision is not served; `BadRequest`: it is out of bounds."""
    revision = _revision(frames)
    if revision not in SERVED and not (revision == FIRST and NO_REQUEST in frames[1:2]):
        raise Unsupported(unserved(revision, SERVED))
    if len(frames) != REQUEST_FRAMES:
        raise BadRequest(f"a request has {REQUEST_FRAMES} frames, not {len(frames)}")
    _, request_id, token, body = frames
    if len(token) > TOKEN_BYTES_MAX:
        raise BadRequest(f"the token has {len(token)} bytes, at most {TOKEN_BYTES_MAX} are allowed")
    _check_sizes(request_id, body)
    return RequestFrames(RequestId(request_id), token, body, revision)


def pack_reply(request_id: RequestId, body: bytes, revision: int) -> list[bytes]:
    """Pack a reply into frames, in the revision of its request."""
    assert len(request_id) == REQUEST_ID_BYTES
    assert len(body) <= BODY_BYTES_MAX, f"a reply of {len(body)} bytes"
    return [_MAGICS.get(revision) or magic(revision), request_id, body]


def unpack_reply(frames: Sequence[bytes]) -> tuple[RequestId, bytes]:
    """Unpack the request id and body of a reply, in any revision: a refusal is the same in all of them.

    Raises `Unsupported` for another protocol, `BadRequest` for anything out of bounds.
    """
    _revision(frames)
    if len(frames) != REPLY_FRAMES:
        raise BadRequest(f"a reply has {REPLY_FRAMES} frames, not {len(frames)}")
    _, request_id, body = frames
    _check_sizes(request_id, body)
    return RequestId(request_id), body


def answerable(frames: Sequence[bytes]) -> tuple[RequestId, int] | None:
    """Return the request id and revision of a malformed request, if it has them, so that it can be refused."""
    if len(frames) > 1 and len(frames[1]) == REQUEST_ID_BYTES and (found := _MAGIC.fullmatch(frames[0])):
        return RequestId(frames[1]), int(found[1])
    return None


def unserved(asked: int, served: Sequence[int]) -> str:
    """Return the message for a client or agent that speaks another revision than those `served` by its broker."""
    old = "broker (always before clients and agents)" if asked > max(served) else "client or agent"
    several = f"revisions {' and '.join(map(str, served))}" if len(served) > 1 else f"revision {served[0]}"
    return f"the broker speaks {several} of the protocol, and this client or agent revision {asked}: upgrade the {old}"


def _revision(frames: Sequence[bytes]) -> int:
    if frames and (known := _REVISIONS.get(frames[0])) is not None:
        return known
    found = _MAGIC.fullmatch(frames[0]) if frames else None
    if found is None:
        raise Unsupported(f"the first frame is not of the form {magic(REVISION).decode()}: this is another protocol")
    return int(found[1])


def _check_sizes(request_id: bytes, body: bytes) -> None:
    if len(request_id) != REQUEST_ID_BYTES:
        raise BadRequest(f"a request id has {REQUEST_ID_BYTES} bytes, not {len(request_id)}")
    if len(body) > BODY_BYTES_MAX:
        raise BadRequest(f"the body has {len(body)} bytes, at most {BODY_BYTES_MAX} are allowed")
