"""Request id from a text, as `--request-id` gives it.

A script that submits a job and is run again gives the same `--request-id` and gets the same job, not another.
"""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

from airunner.protocol.errors import OperatorError
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId


def request_id_of(text: str) -> RequestId:
    """Convert a UUID in any of its spellings to its 16 bytes; any other text to its BLAKE2b-128 hash.

    Raises `OperatorError` for an empty text, and for the nil UUID, which is the heartbeat's.
    """
    if not text:
        raise OperatorError("--request-id is empty; give a UUID or any text of your own")
    try:
        request_id = UUID(text).bytes
    except ValueError:
        request_id = blake2b(text.encode(errors="surrogateescape"), digest_size=REQUEST_ID_BYTES).digest()
    if not any(request_id):
        raise OperatorError("--request-id must not be the nil UUID")
    return RequestId(request_id)
