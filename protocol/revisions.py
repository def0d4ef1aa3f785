"""Older revisions of the protocol: converts their requests to the current revision. See docs/PROTOCOL.md, section 9."""

from __future__ import annotations

from typing import Final, cast

import msgspec

from airunner.protocol.bounds import UNDECODABLE, check_structure
from airunner.protocol.errors import BadRequest
from airunner.protocol.frames import REVISION

LEASE_FIELDS: Final = ("job_id", "attempt", "task_token")  # revision 2 has these fields instead of `lease`
_Map = dict[object, object]
_LEASED: Final = ("CompleteJob", "ReleaseJob")  # requests that name one lease
_LISTS: Final = ("batches", "completions")  # fields of a PublishJobEvents: each of their entries names a lease


def upgraded(body: bytes, revision: int) -> bytes:
    """Convert a request from `revision` to `REVISION`, after a check of its structure. Raises `BadRequest`."""
    if revision == REVISION:
        return body
    check_structure(body)
    try:
        request = cast("_Map", msgspec.msgpack.decode(body))  # a checked body is a map
        _upgrade(request)
        return msgspec.msgpack.encode(request)
    except UNDECODABLE as error:
        raise BadRequest(str(error)) from error


def _upgrade(request: _Map) -> None:
    parts: list[object] = [request] if request.get("type") in _LEASED else []
    if request.get("type") == "PublishJobEvents":
        lists = [cast("list[object]", found) for name in _LISTS if isinstance(found := request.get(name), list)]
        parts = [part for found in lists for part in found]
    for part in parts:
        if isinstance(part, dict):
            fields = cast("_Map", part)
            fields["lease"] = {name: fields.pop(name) for name in LEASE_FIELDS if name in fields}
