"""Refusals of the broker, worded after what was asked: the field that does not fit, the job that is not there."""

from __future__ import annotations

from msgspec import Struct

from airunner.protocol.errors import BadRequest, NotFound, PeerError
from airunner.protocol.misfits import with_field_named


def refusal_of(error: PeerError, request: Struct) -> PeerError:
    """Name the field of the request that does not fit, or the job that does not exist; keep any other error."""
    if isinstance(error, BadRequest):
        return with_field_named(error, request)
    job_id: object = getattr(request, "job_id", None)
    if isinstance(error, NotFound) and job_id is not None and error.message == NotFound().message:
        return NotFound(f"there is no job {job_id}")
    return error
