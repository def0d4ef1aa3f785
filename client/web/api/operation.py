"""Operation of the API: one row of its table, from which the route and its description in OpenAPI are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from airunner.client.client import Client
from airunner.client.web.api.parameters import NoParameters, parameters_of
from airunner.client.web.login import Login, login_of
from airunner.client.web.problems import bad_field
from airunner.client.web.services import Services, services_of
from airunner.protocol.names import JobId
from airunner.protocol.printable import json_line

JSON: Final = "application/json"
YAML: Final = "application/yaml"  # RFC 9512
EMPTY_BODIES: Final = (b"", b"{}")  # of an operation without a body
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

_Query_co = TypeVar("_Query_co", covariant=True)


class Call(Struct, Generic[_Query_co], frozen=True):
    """Call of an operation: the request, its login, and its query, which is read and checked."""

    request: Request
    services: Services
    login: Login
    query: _Query_co

    @property
    def job_id(self) -> JobId:
        """Id of the job in the path."""
        return JobId(self.request.path_params["job_id"])

    def asking(self) -> AbstractAsyncContextManager[Client]:
        """Use the client of this login, for requests that are answered soon."""
        return self.services.clients.asking(self.login.token)

    def next_page(self, **changed: str) -> str:
        """Return the address of this request with other parameters."""
        from urllib.parse import urlencode

        kept = [(name, text) for name, text in self.request.query_params.multi_items() if name not in changed]
        return f"{self.request.url.path}?{urlencode([*kept, *changed.items()])}"


class Answer(Struct, frozen=True):
    """Answer of an operation: its status, its form by media type (`bytes`: any), and what it means."""

    meaning: str
    forms: Mapping[str, Any] = {}
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = {}  # what each says


class Operation(Struct, frozen=True, kw_only=True):
    """Operation: `run` answers calls of `method` and `path`, for tokens of `role`.

    `bodies` are the forms of the body by media type; without them a body is refused. `headers` are those of the request
    that it reads, with the schema of each. `problems` are the statuses of its errors beside those of all operations.
    """

    name: str
    method: str
    path: str
    summary: str
    role: str
    run: Callable[[Call[Any]], Awaitable[Response]]
    answers: tuple[Answer, ...]
    query: type[Struct] = NoParameters
    bodies: Mapping[str, Any] = {}
    headers: Mapping[str, Mapping[str, object]] = {}
    problems: tuple[HTTPStatus, ...] = ()

    async def answer(self, request: Request) -> Response:
        """Answer a request of this method and path. Raises `AirunnerError`."""
        login = login_of(request)
        await services_of(request).clients.prove(login.token)  # before anything of it is read
        query = parameters_of(self.query, request.query_params.multi_items())
        if self.method == "POST" and not self.bodies and (await request.body()).strip() not in EMPTY_BODIES:
            raise bad_field("body", "this operation has none")
        return await self.run(Call(request, services_of(request), login, query))


def json_answer(form: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Make an answer of one line of JSON."""
    return Response(f"{json_line(form)}\n".encode(), status, headers, JSON)
