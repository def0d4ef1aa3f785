"""Forms of pages: the fields that a browser posts, and where it goes afterwards.

Only `application/x-www-form-urlencoded` is read, which the standard library parses; the guards have bounded the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse

from airunner.client.web.problems import WebError, bad_field

FIELDS_MAX: Final = 200  # in one form: the largest has some 40
_KIND: Final = "application/x-www-form-urlencoded"

Form = Mapping[str, Sequence[str]]
"""Fields of a form, by name; newlines are those of a file."""


async def form_of(request: Request, known: Sequence[str]) -> Form:
    """Read the fields of a form. Raises `BadRequest`, which names an unknown field; `WebError`: it is no form."""
    body = await request.body()
    if body and request.headers.get("content-type", "").partition(";")[0].strip().lower() != _KIND:
        raise WebError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"a form is sent as {_KIND}")
    try:
        text = body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise WebError(HTTPStatus.BAD_REQUEST, "the form cannot be read") from error
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise bad_field(name, "the form has no such field")
        form.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return form


def value_of(form: Form, name: str) -> str:
    """Return the value of a field that has one. Raises `BadRequest`: it is missing, or given twice."""
    values = form.get(name, ())
    if len(values) != 1:
        raise bad_field(name, "this is given twice" if values else "this is missing")
    return values[0]


def see(path: str) -> RedirectResponse:
    """Lead the browser to a page after a form: going back or reloading sends nothing again."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)
