"""Answers of the API, held to what `/openapi.json` says of them: statuses, media types, schemas, events included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec
from starlette.routing import Match, Route

from airunner.client.web.api.openapi import described
from airunner.client.web.api.routes import OPERATIONS, ROUTES

DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(described(OPERATIONS)))


def violations(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> list[str]:
    """What an answer has that is not described; a path that is not of the API has nothing to keep to."""
    scope = {"type": "http", "method": method, "path": path.partition("?")[0], "root_path": "", "headers": []}
    found = (route.path for route in ROUTES if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL)
    known = DOCUMENT["paths"].get(next(found, "").replace(":path", ""), {}).get(method.lower(), {}).get("responses")
    if known is None:
        return []
    if str(status) not in known:
        return [f"{method} {path}: {status} is not described"]
    answer = known[str(status)]
    if "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    kinds = answer.get("content", {})
    if not kinds:
        return [f"{method} {path}: {status} has a body"] if body else []
    kind = next((kind for kind in kinds if headers.get("content-type", "").startswith(kind)), None)
    if kind is None:
        return [f"{method} {path}: {headers.get('content-type')} is not described"]
    missing = [name for name in answer.get("headers", ()) if name not in ("Location", "Link")]
    parts = ((_schema(kinds[kind]["schema"]), part) for part in _parts(kind, body))
    if kind == "text/event-stream":
        parts = ((validator, part) for part in _events(body) for validator in [_schema(_of(part))] if _of(part))
        parts = ((validator, json.loads(part["data"])) for validator, part in parts)
    errors = [
        f"{method} {path}: {error.message[:300]}" for validator, part in parts for error in validator.iter_errors(part)
    ]
    return [*missing, *errors]


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for({**json.loads(schema), "components": DOCUMENT["components"]})


def _schema(schema: Mapping[str, Any]) -> Any:
    return _validator(json.dumps(schema))


def _parts(kind: str, body: bytes) -> Iterator[Any]:
    if kind == "application/x-ndjson":
        yield from map(json.loads, body.splitlines())
    elif kind.endswith("json"):
        yield json.loads(body)


def _events(body: bytes) -> Iterator[dict[str, str]]:
    """The whole events of a stream, also of one that was cut off."""
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if "data" in fields:
            assert not _errors(fields), fields
            yield fields


def _errors(fields: dict[str, str]) -> list[str]:
    stream = DOCUMENT["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    return [error.message for error in _schema(stream["schema"]).iter_errors({"event": "message", **fields})]


def _of(event: Mapping[str, str]) -> dict[str, str]:
    """The schema of an event's data: `over` has a word instead."""
    name = {"message": "Event", "end": "EndForm", "problem": "Problem"}.get(event.get("event", "message"))
    return {"$ref": f"#/components/schemas/{name}"} if name else {}
