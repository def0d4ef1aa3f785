"""Problem details (RFC 9457): the answer that each error becomes, as JSON, or as a page for a browser.

`STATUSES` is the one table of HTTP statuses by error code. A `detail` is the error's own line, which names the field
that does not fit, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from airunner.client.web.guardheaders import guard
from airunner.protocol.errors import (
    EXIT_NO_PERMISSION,
    EXIT_NO_SUCH,
    EXIT_UNAVAILABLE,
    AirunnerError,
    BadRequest,
    FieldError,
    OperatorError,
)
from airunner.protocol.printable import one_line
from airunner.transport.http import prefers_json

KIND: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:airunner:error:"  # then the code: a name, which leads nowhere
FIELD_CHARS_MAX: Final = 100  # of a field's name in an error
RETRY_S: Final = 2  # after an answer that says so; a broker starts in less
ERROR_PAGE: Final = "error_page"  # the attribute of the application's state: an `ErrorPage`
STATUSES: Final[Mapping[str, int]] = {
    "bad-request": HTTPStatus.BAD_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not-found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "not-finished": HTTPStatus.CONFLICT,
    "queue-draining": HTTPStatus.CONFLICT,
    "quota": HTTPStatus.TOO_MANY_REQUESTS,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "unsupported": HTTPStatus.SERVICE_UNAVAILABLE,
    "bad-pattern": HTTPStatus.UNPROCESSABLE_ENTITY,
    "no-space": HTTPStatus.INSUFFICIENT_STORAGE,
}
"""Statuses by code; another code of the broker's is a fault behind this server, 502."""
_EXITS: Final = {EXIT_NO_SUCH: "not-found", EXIT_NO_PERMISSION: "unavailable", EXIT_UNAVAILABLE: "unavailable"}
"""Codes of operator errors of the client: that the broker refuses this server's key is no fault of the browser's."""


class Problem(Struct, frozen=True, omit_defaults=True):
    """Problem details: `field` is the field or parameter that does not fit."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str = ""


ErrorPage = Callable[[Request, Problem], Response]
"""Page of an error, for a browser."""


class WebError(AirunnerError):
    """Error of a request that has a status of its own."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = status.phrase.lower().replace(" ", "-")


def bad_field(field: str, problem: str) -> BadRequest:
    """Make the error for a field or parameter that does not fit, or is not known."""
    if len(field) > FIELD_CHARS_MAX:
        field = f"{field[:FIELD_CHARS_MAX]}…"
    error = BadRequest(f"{field}: {problem}")
    error.misfit = FieldError(field, problem)
    return error


def problem_of(error: AirunnerError) -> Problem:
    """Make the problem details of an error."""
    code = _EXITS.get(error.exit_code, "bad-request") if isinstance(error, OperatorError) else error.code
    status = error.status if isinstance(error, WebError) else STATUSES.get(code, HTTPStatus.BAD_GATEWAY)
    misfit = error.misfit if isinstance(error, BadRequest) else None
    detail = one_line(error.message)
    return Problem(
        type=f"{TYPE_PREFIX}{code}",
        title=HTTPStatus(status).phrase,
        status=int(status),
        detail=detail,
        code=code,
        field="" if misfit is None else misfit.field,
    )


def answer(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Make the answer: a page for a browser, problem details for everything else."""
    given = dict(headers or {})
    if problem.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        given.setdefault("Retry-After", str(RETRY_S))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        given.setdefault("WWW-Authenticate", "Bearer")
    if problem.status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT):
        given["Connection"] = "close"  # the rest of the body is not read
    if not wants_page(request):
        return Response(msgspec.json.encode(problem), problem.status, given, KIND)
    if problem.status == HTTPStatus.UNAUTHORIZED and request.method == "GET":
        return RedirectResponse(_login_address(request), HTTPStatus.SEE_OTHER)
    make_page: ErrorPage = getattr(request.app.state, ERROR_PAGE)
    page = make_page(request, problem)
    page.headers.update(given)
    return page


def _login_address(request: Request) -> str:
    """Return the address of the login, which leads back to the page that needs it."""
    wanted = f"{request.url.path}?{request.url.query}".rstrip("?")
    return "/login" if wanted == "/" else f"/login?{urlencode({'next': wanted})}"


def wants_page(request: Request) -> bool:
    """Return whether a browser shows the answer as a page: it is no part of the API, and HTML is accepted."""
    accept = request.headers.get("accept", "")
    return not request.url.path.startswith("/v1/") and "text/html" in accept and not prefers_json(accept)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error of airunner."""
    assert isinstance(error, AirunnerError)
    retry_ms: Any = getattr(error, "retry_ms", None)
    headers = None if retry_ms is None else {"Retry-After": str(math.ceil(retry_ms / 1_000))}
    return answer(request, problem_of(error), headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer an error of the router, such as that there is no such page."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    said = {
        HTTPStatus.NOT_FOUND: "there is no such page",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not for this page",
    }.get(status, error.detail)
    return answer(request, problem_of(WebError(status, said)), error.headers)


async def answer_bug(request: Request, _error: Exception) -> Response:
    """Answer an error of ours, outside of the guards; the traceback is in the server's log."""
    bug = answer(request, problem_of(WebError(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a bug of the server")))
    guard(bug.headers)
    return bug
