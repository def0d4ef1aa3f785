"""New jobs in the body of a request: as JSON with the fields of `JobSpec`, or as the job file of `airunner submit`.

JSON is typed, as the answers are: the `spec` of a job that was read can be submitted again. A file, of the media type
application/yaml, is read as the command line reads it, matrix included. Reading YAML takes a thousand times longer than
JSON: so a file is small, and is read in a thread, one at a time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, NamedTuple, TypeGuard

import msgspec
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from msgspec import Struct, inspect
from starlette.requests import Request

from airunner.client.cli.jobfile import fields_in, job_file_in
from airunner.client.cli.jobset import JOBS_MAX
from airunner.client.cli.sources import Sources
from airunner.client.specs import spec_of
from airunner.client.web.api.operation import IDEMPOTENCY_KEY, JSON, YAML
from airunner.client.web.api.parameters import fields_of, unknown
from airunner.client.web.clients import BrokerAway
from airunner.client.web.problems import WebError, bad_field
from airunner.protocol.errors import BadRequest, Conflict
from airunner.protocol.fields import FIELDS, JobSpec

JOBS: Final = "jobs"
ADVICE: Final = f"With {IDEMPOTENCY_KEY} it can be sent again as it is"
KEY_CHARS_MAX: Final = 255  # of an Idempotency-Key: a UUID has 36
FILE_BYTES_MAX: Final = 65_536  # of a job file: a job has this at the most; more of them are sent as JSON
FILE: Final = "the job file"
_limiter: RunVar[CapacityLimiter] = RunVar("job_file_readers")
_KINDS: Final = {JSON: JSON, YAML: YAML, "application/x-yaml": YAML, "text/yaml": YAML}


class NewJobs(NamedTuple):
    """Jobs to submit, and whether they are several by their form, even if they are one."""

    specs: list[JobSpec]
    several: bool


async def new_jobs(request: Request, now_ms: int) -> NewJobs:
    """Read the jobs to submit. Raises `BadRequest`, `OperatorError`, and `WebError` for another media type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        wanted = f'send {JSON} (curl --json \'{{"command": "true"}}\') or {YAML}, not {kind or "a body without a type"}'
        raise WebError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, wanted)
    raw = await request.body()
    if _KINDS[kind] == JSON:
        return jobs_in_json(raw)
    if len(raw) > FILE_BYTES_MAX:
        raise WebError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{FILE} has {len(raw):,} bytes, at most {FILE_BYTES_MAX:,} are read here; send {JSON} for more",
        )
    return await to_thread.run_sync(jobs_in_file, raw, now_ms, limiter=_readers())


def _readers() -> CapacityLimiter:
    """Return the limiter of threads that read files, one of each event loop."""
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(CapacityLimiter(1))
        return _limiter.get()


def jobs_in_file(raw: bytes, now_ms: int) -> NewJobs:
    """Read the jobs of a job file. Raises `BadRequest`, `OperatorError`."""
    file = job_file_in(raw, FILE)
    return NewJobs([spec_of(fields_in(job, now_ms, Sources())) for job in file.documents], file.is_set)


def idempotency_key(request: Request) -> str | None:
    """Read the key of a submission; quotes, which the draft of the header asks for, are no part of it."""
    given = request.headers.get(IDEMPOTENCY_KEY)
    if given is None:
        return None
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not key or len(key) > KEY_CHARS_MAX:
        raise bad_field(IDEMPOTENCY_KEY, f"expected 1 to {KEY_CHARS_MAX} characters, such as a UUID")
    return key


@asynccontextmanager
async def naming_the_key(key: str | None) -> AsyncGenerator[None]:
    """Name the header, which the broker does not know, in errors: a key was used before, or is missing."""
    try:
        yield
    except BrokerAway as away:
        if key is not None:
            raise
        raise BrokerAway(f"it may submit the job nevertheless: look before you send it again. {ADVICE}") from away
    except Conflict as error:
        if key is None:
            raise
        said = error.message.replace("the request id", f"this {IDEMPOTENCY_KEY}", 1)
        raise Conflict(said.replace("another request id", f"another {IDEMPOTENCY_KEY}")) from error


def jobs_in_json(raw: bytes) -> NewJobs:
    """Read the jobs of a body in JSON. Raises `BadRequest`, with the field that does not fit."""
    try:
        given: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body has too many lists and objects in each other") from error
    if not is_object(given):
        raise BadRequest("expected an object with the fields of a job, or with a list of jobs")
    if JOBS not in given:
        return NewJobs([_spec(given, "")], several=False)
    if others := [name for name in given if name != JOBS]:
        raise bad_field(others[0], f"beside {JOBS} there is nothing else")
    listed = given[JOBS]
    if not is_array(listed) or not 1 <= len(listed) <= JOBS_MAX:
        raise bad_field(JOBS, f"expected a list of 1 to {JOBS_MAX:,} jobs")
    return NewJobs([_spec(job, f"{JOBS}[{number}]") for number, job in enumerate(listed)], several=True)


def _spec(given: object, place: str) -> JobSpec:
    """Make the spec of a job in JSON. Raises `BadRequest`, whose field begins with `place`."""
    dot = f"{place}." if place else ""
    if not is_object(given):
        raise bad_field(place, "expected an object with the fields of a job")
    for name in given:
        if name not in FIELDS:
            raise bad_field(f"{dot}{name}", unknown(name, FIELDS, "field of a job"))
    if not given.get("command"):
        raise bad_field(f"{dot}command", "this is missing")
    for name in _unknown_in(inspect.type_info(JobSpec), given):
        raise bad_field(f"{dot}{name}", "there is no such field")
    try:
        return spec_of(given)
    except BadRequest as error:
        if error.misfit is None:
            raise
        raise bad_field(f"{dot}{error.misfit.field}", error.misfit.problem) from error


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Check for an object of JSON."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Check for an array of JSON."""
    return isinstance(value, list)


def _unknown_in(type_: inspect.Type, value: object) -> Iterator[str]:
    """Yield the fields, in structs within a value, that are not of their type."""
    if isinstance(type_, inspect.UnionType):
        for part in type_.types:
            yield from _unknown_in(part, value)
    if not isinstance(type_, inspect.StructType) or not is_object(value):
        return
    kind: type[Struct] = type_.cls
    fields = fields_of(kind)
    for name, inner in value.items():
        if name not in fields:
            yield name
        else:
            yield from (f"{name}.{deeper}" for deeper in _unknown_in(fields[name].type, inner))
