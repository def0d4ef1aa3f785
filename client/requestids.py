"""Request ids: each submission has one, so that it can be sent again without being submitted twice."""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

from airunner.protocol.errors import BadRequest
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId


def request_id_of(given: str | RequestId | None) -> RequestId | None:
    """Make a request id: 16 bytes as they are, those of a UUID in any spelling, or a BLAKE2b hash of any other text.

    Raises `BadRequest` for an empty text, for bytes of another length, and for zeros, which are reserved for Pings.
    """
    if given is None:
        return None
    if not given:
        raise BadRequest("the request id is empty; give a UUID or any text of your own")
    name: bytes
    if isinstance(given, bytes):
        name = given
    else:
        try:
            name = UUID(given).bytes
        except ValueError:
            name = _hash(given.encode(errors="surrogateescape"))
    if len(name) != REQUEST_ID_BYTES:
        raise BadRequest(f"a request id has {REQUEST_ID_BYTES} bytes, not {len(name)}")
    if not any(name):
        raise BadRequest("a request id of zeros is reserved by the protocol; give a random UUID")
    return RequestId(name)


def batch_id(request_id: RequestId | None, number: int) -> RequestId | None:
    """Return the request id of batch `number` of a submission in several requests; the first has the given one."""
    if request_id is None or not number:
        return request_id
    return RequestId(_hash(request_id + number.to_bytes(8)))


def _hash(text: bytes) -> bytes:
    return blake2b(text, digest_size=REQUEST_ID_BYTES).digest()
