"""Description of the API in OpenAPI 3.1: made from the operations, and from the types of their parameters and answers.

The schemas are those of the Structs (`msgspec.json`), so what is described is what is checked; the help of a job's
fields is that of `protocol.fields`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from types import UnionType
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta, structs

from airunner import __version__
from airunner.client.cli.jobset import JOBS_MAX
from airunner.client.web.api.eventforms import event_forms
from airunner.client.web.api.forms import EndForm
from airunner.client.web.api.newjobs import is_array, is_object
from airunner.client.web.api.operation import Answer, Operation
from airunner.client.web.cookies import NAME as COOKIE
from airunner.client.web.problems import KIND, Problem
from airunner.protocol.events import ARTIFACT_PATH_CHARS_MAX, EVENT_KINDS, KIND_CHARS_MAX
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.names import NAME_CHARS_MAX, JobName, Name

Json = dict[str, Any]

SCHEMAS: Final = "#/components/schemas/"
NEW_JOB: Final = "NewJob"
EVENT: Final = "Event"
PROBLEM: Final = "Problem"
ALWAYS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
"""Statuses of errors that every operation may have."""
CLOSED: Final = ("RetryPolicy", "RetryOn", "TerminalSize", "Expiry")
"""Parts of a job's spec in which an unknown field is refused."""
PATHS: Final[Mapping[str, Any]] = {
    "job_id": JobName,
    "queue": Name,
    "path": Annotated[str, Meta(min_length=1, max_length=ARTIFACT_PATH_CHARS_MAX)],
}
"""Types of what paths contain."""
_NULL: Final = {"type": "null"}
PAIR: Final = f"^[^=]{{1,{NAME_CHARS_MAX}}}="
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")


def described(operations: Sequence[Operation]) -> Json:
    """Describe the API."""
    paths: dict[str, Json] = {}
    for operation in operations:
        path = _PATH_PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "airunner",
            "version": __version__,
            "description": "Jobs, their events and output, queues and agents of an airunner broker.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(operations),
            "responses": {PROBLEM: _content("Problem details (RFC 9457).", {KIND: _ref(PROBLEM)})},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
        "security": [{"bearer": []}, {"cookie": []}],
    }
    found: Json = _in_ecma(document)
    return found


def _operation(operation: Operation) -> Json:
    found: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the role `{operation.role}`.",
        "parameters": [*_parameters(operation)],
        "responses": {str(int(answer.status)): _response(answer) for answer in operation.answers},
    }
    if operation.bodies:
        content = {
            kind: {"schema": _new_jobs() if form is None else {"type": "string"}}
            for kind, form in operation.bodies.items()
        }
        found["requestBody"] = {"required": True, "content": content}
    for status in (*ALWAYS, *operation.problems):
        found["responses"][str(int(status))] = {"$ref": f"#/components/responses/{PROBLEM}"}
    return found


def _parameters(operation: Operation) -> Iterable[Json]:
    for name in _PATH_PARAMETER.findall(operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(PATHS[name])}
    for field in structs.fields(operation.query):
        schema = _parameter(field.type)
        meant = schema.pop("description", "")
        if field.default not in (None, "", (), msgspec.NODEFAULT):
            schema["default"] = field.default
        yield {"name": field.encode_name, "in": "query", "description": meant, "schema": schema}
    for name, described_as in operation.headers.items():
        schema = dict(described_as)
        yield {"name": name, "in": "header", "description": schema.pop("description"), "schema": schema}


def _parameter(type_: Any) -> Json:  # noqa: ANN401 - an annotation is anything
    """Describe what is given as a parameter: nothing is not given, and pairs are given one by one as NAME=VALUE."""
    schema: Json = _resolved(msgspec.json.schema(type_))
    if schema.get("anyOf", [None])[-1] == _NULL:
        value: Json = schema.pop("anyOf")[0]
        schema = {**value, **schema}
    if schema.get("type") != "object":
        return schema
    pairs = {"type": "array", "items": {"type": "string", "pattern": PAIR}, "maxItems": schema["maxProperties"]}
    return {**pairs, "description": schema["description"]}


def _response(answer: Answer) -> Json:
    forms = {kind: _form(form) for kind, form in answer.forms.items()}
    found = _content(answer.meaning, forms)
    if answer.headers:
        found["headers"] = {
            name: {"description": meant, "schema": {"type": "string"}} for name, meant in answer.headers.items()
        }
    return found


def _content(meaning: str, forms: Mapping[str, Json]) -> Json:
    content = {kind: {"schema": schema} for kind, schema in forms.items()}
    return {"description": meaning, **({"content": content} if content else {})}


def _form(form: Any) -> Json:  # noqa: ANN401 - a type, or a union of types
    """Refer to the schema of a form, which may be written out; text and bytes have none."""
    if form in (str, bytes):
        return {"type": "string"}
    if is_object(form):
        return form
    if len(forms := _forms(form)) > 1:
        return {"anyOf": [_form(each) for each in forms]}
    (schema,), _ = msgspec.json.schema_components(forms, ref_template=f"{SCHEMAS}{{name}}")
    return schema


def _forms(form: Any) -> Sequence[Any]:  # noqa: ANN401 - a type, or a union of types
    """Return the forms of which an answer has one: those of a union, which need not be tagged."""
    return get_args(form) if isinstance(form, UnionType) else (form,)


def _new_jobs() -> Json:
    several = {
        "type": "object",
        "properties": {"jobs": {"type": "array", "items": _ref(NEW_JOB), "minItems": 1, "maxItems": JOBS_MAX}},
        "required": ["jobs"],
        "additionalProperties": False,
    }
    return {"anyOf": [_ref(NEW_JOB), several]}


def _schemas(operations: Sequence[Operation]) -> dict[str, Json]:
    """Describe every form, the events, new jobs and problems."""
    answers = [form for operation in operations for answer in operation.answers for form in answer.forms.values()]
    types = [each for form in answers for each in _forms(form) if isinstance(each, type) and each not in (str, bytes)]
    events = event_forms()
    _, found = msgspec.json.schema_components([*types, *events, EndForm, Problem], ref_template=f"{SCHEMAS}{{name}}")
    for name in CLOSED:
        found[name]["additionalProperties"] = False
    found["Reason"] = {"type": "string", "description": "Why an attempt failed; newer agents may know others."}
    found[NEW_JOB] = _new_job(found[JobSpec.__name__])
    other = {"type": "string", "maxLength": KIND_CHARS_MAX, "not": {"enum": list(EVENT_KINDS)}}
    unknown = {"type": "object", "properties": {"kind": other}, "required": ["kind"]}
    found[EVENT] = {
        "description": "Event of a job, as `airunner monitor --json` prints it. Newer software may send other kinds.",
        "anyOf": [*(_ref(event.__name__) for event in events), unknown],
    }
    return found


def _new_job(spec: Json) -> Json:
    """Describe a job to submit: the fields that people give, with their help."""
    properties = {
        name: {**schema, "description": FIELDS[name].help}
        for name, schema in spec["properties"].items()
        if name in FIELDS
    }
    return {
        "title": NEW_JOB,
        "description": "Job to submit: its fields are those of the `spec` of a job that is read.",
        "type": "object",
        "properties": properties,
        "required": spec["required"],
        "additionalProperties": False,
    }


def _ref(name: str) -> Json:
    return {"$ref": f"{SCHEMAS}{name}"}


def _resolved(schema: Json) -> Json:
    """Put definitions, such as an enumeration, where they are referred to; a query has no structs."""
    definitions = schema.pop("$defs", {})

    def resolve(part: object) -> Any:  # noqa: ANN401 - JSON is anything
        if is_object(part):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name in definitions:
                return resolve(definitions[name])
            return {key: resolve(each) for key, each in part.items()}
        return [resolve(each) for each in part] if is_array(part) else part

    found: Json = resolve(schema)
    return found


def _in_ecma(part: object) -> Any:  # noqa: ANN401 - JSON is anything
    r"""Write patterns as JSON Schema has them: the end of a text is `$`, where Python has `\Z`."""
    if is_object(part):
        return {
            key: each.replace(r"\Z", "$") if key == "pattern" and isinstance(each, str) else _in_ecma(each)
            for key, each in part.items()
        }
    return [_in_ecma(each) for each in part] if is_array(part) else part
