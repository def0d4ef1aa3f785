"""Tables of docs/reference/http-api.md: the operations with their parameters, and the statuses of errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from airunner.client.web.api.openapi import described
from airunner.client.web.api.routes import OPERATIONS
from airunner.client.web.problems import STATUSES

WORDS_MAX: Final = 6  # of an enumeration that is shown whole; OpenAPI has all of them


def operations() -> str:
    """Write each operation, with its parameters and headers."""
    return "\n\n".join("\n".join(_operation(*found)) for found in _described())


def _described() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    document: Mapping[str, Any] = msgspec.to_builtins(described(OPERATIONS))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield ""
    yield f"{operation['summary']}. {operation['description']}"
    parameters = [each for each in operation["parameters"] if each["in"] != "path"]
    if parameters:
        yield ""
        yield "| parameter | values | default | |"
        yield "|---|---|---|---|"
        yield from map(_row, parameters)
    yield ""
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            yield f"- {status}: {answer['description']}"


def _row(parameter: Mapping[str, Any]) -> str:
    name = f"`{parameter['name']}`" + (", a header" if parameter["in"] == "header" else "")
    schema = parameter["schema"]
    default = schema.get("default")
    shown = "" if default is None else f"`{default}`".lower()
    return f"| {name} | {_values(schema)} | {shown} | {parameter['description']} |".replace("|  |", "| |")


def _values(schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "array":
        return f"{_values(schema['items'])}; repeated"
    if "enum" in schema:
        words = schema["enum"]
        return ", ".join(words if len(words) <= WORDS_MAX else (*words[:2], "…"))
    if schema.get("type") == "boolean":
        return "true, false"
    if schema.get("type") == "integer":
        most = schema["maximum"]
        return f"{schema['minimum']} to {most:,}" if most < 2**53 - 1 else f"a number from {schema['minimum']}"
    return "NAME=VALUE" if schema.get("pattern", "").endswith("=") else "text"


def statuses() -> str:
    """Write the status of each code of an error."""
    rows = [f"| `{code}` | {status} {HTTPStatus(status).phrase} |" for code, status in STATUSES.items()]
    return "\n".join(("| code | status |", "|---|---|", *rows))
