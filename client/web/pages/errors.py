"""Page of an error: what happened in one sentence, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from airunner.client.web.login import Login, login_of
from airunner.client.web.pages.rendering import render
from airunner.client.web.problems import Problem
from airunner.protocol.errors import Unauthenticated

HEADINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: "This address or form does not fit",
        HTTPStatus.UNAUTHORIZED: "Log in first",
        HTTPStatus.FORBIDDEN: "This is not allowed",
        HTTPStatus.NOT_FOUND: "Not found",
        HTTPStatus.CONFLICT: "This cannot be done now",
        HTTPStatus.SERVICE_UNAVAILABLE: "Not available now",
        HTTPStatus.TOO_MANY_REQUESTS: "Too much at once",
    }
)
"""Headings by status; of any other status, its own name."""


def error_page(request: Request, problem: Problem) -> Response:
    """Make the page that shows a problem, for a login or without one."""
    heading = HEADINGS.get(problem.status, problem.title)
    login: Login | None = None
    with suppress(Unauthenticated):
        login = login_of(request)
    return render(request, "error.html", login, problem.status, heading=heading, problem=problem)
