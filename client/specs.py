"""Job specs of the SDK and the command line: made from fields, checked, refused in words, and batched for requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from airunner.protocol.errors import BadRequest
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.job import check_new, encode_spec
from airunner.protocol.jobfields import JobFields
from airunner.protocol.misfits import field_error
from airunner.protocol.requests import AWAITED_MAX, ENQUEUE_MAX

BATCH_BYTES_MAX: Final = 262_144  # of the specs in one request: an eighth of what a broker accepts

NewJob = JobSpec | JobFields
"""Job to submit: a spec, or its fields, as in `{"command": "make", "args": ["test"]}`."""


def spec_from(job: NewJob) -> JobSpec:
    """Make a spec, if only its fields are given. Raises `BadRequest`."""
    if isinstance(job, JobSpec):
        return job
    given = cast("object", job)  # what an untyped program has given
    if not isinstance(given, Mapping):
        raise BadRequest(f"a job is a JobSpec, or a dictionary of fields such as {{'command': 'make'}}, not {given!r}")
    return spec_of(job)


def batches(specs: Iterable[JobSpec]) -> Iterator[list[JobSpec]]:
    """Yield the jobs of each request: as many as it may have and wait for, and up to `BATCH_BYTES_MAX`."""
    batch: list[JobSpec] = []
    size_bytes = awaited = 0
    for spec in specs:
        try:
            spec_bytes = len(encode_spec(spec))
        except ValueError as error:
            raise invalid_specs(error, [spec]) from error
        awaited += len(spec.after)
        if batch and (len(batch) == ENQUEUE_MAX or size_bytes + spec_bytes > BATCH_BYTES_MAX or awaited > AWAITED_MAX):
            yield batch
            batch, size_bytes, awaited = [], 0, len(spec.after)
        batch.append(spec)
        size_bytes += spec_bytes
    if batch:
        yield batch


def spec_of(
    fields: Mapping[str, Any] | JobFields, label: Callable[[str, object], str] = lambda name, _part: name
) -> JobSpec:
    """Make a job spec from its fields. Raises `BadRequest` for a field that is missing, unknown or not valid.

    Errors call the field, or a part of it, by its `label`.
    """
    known = tuple(FIELDS)
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise BadRequest(f"a job has no field {unknown[0]!r}; it has {', '.join(known)}")
    if not fields.get("command"):
        raise BadRequest("the job has no command")
    try:
        spec = msgspec.convert(dict(fields), JobSpec)
        encode_spec(spec)
        check_new(spec)
    except ValueError as error:
        misfit = field_error(error, JobSpec, fields)
        refused = BadRequest(f"{label(misfit.field, misfit.part)}: {misfit.problem}" if misfit else str(error))
        refused.misfit = misfit
        raise refused from error
    return spec


def invalid_specs(error: ValueError, specs: Sequence[JobSpec]) -> BadRequest:
    """Word the error of a job that cannot be submitted after the first field that does not fit."""
    misfits = (field_error(error, JobSpec, msgspec.structs.asdict(spec)) for spec in specs)
    return BadRequest(str(next(filter(None, misfits), error)))
