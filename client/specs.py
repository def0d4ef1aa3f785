"""Job specs of the SDK and the command line: made from fields, checked, and refused in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from airunner.protocol.errors import BadRequest
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.job import check_new, encode_spec
from airunner.protocol.jobfields import JobFields
from airunner.protocol.misfits import field_error


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
        raise BadRequest(f"{label(misfit.field, misfit.part)}: {misfit.problem}" if misfit else str(error)) from error
    return spec


def invalid_specs(error: ValueError, specs: Sequence[JobSpec]) -> BadRequest:
    """Word the error of a job that cannot be submitted after the first field that does not fit."""
    misfits = (field_error(error, JobSpec, msgspec.structs.asdict(spec)) for spec in specs)
    return BadRequest(str(next(filter(None, misfits), error)))
