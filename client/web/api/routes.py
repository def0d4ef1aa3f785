"""Routes of the API, and of its description: made from the table of operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.web.api import artifacts, events, job, jobs, log, queues, search
from airunner.client.web.api.openapi import described
from airunner.client.web.api.operation import JSON, Operation

OPERATIONS: Final[Sequence[Operation]] = (
    *jobs.OPERATIONS,
    *job.OPERATIONS,
    *events.OPERATIONS,
    *log.OPERATIONS,
    *search.OPERATIONS,
    *artifacts.OPERATIONS,
    *queues.OPERATIONS,
)


async def openapi(_request: Request) -> Response:
    """Send the description of the API; it is no secret, and needs no login."""
    return Response(_document(), media_type=JSON)


@cache
def _document() -> bytes:
    return msgspec.json.encode(described(OPERATIONS))


def _route(path: str) -> Route:
    """Make the route of a path, for all operations on it: so `Allow` names every method."""
    found = {operation.method: operation for operation in OPERATIONS if operation.path == path}

    async def endpoint(request: Request) -> Response:
        return await found["GET" if request.method == "HEAD" else request.method].answer(request)

    return Route(path, endpoint, methods=[*found])


ROUTES: Final[Sequence[BaseRoute]] = (
    *map(_route, dict.fromkeys(operation.path for operation in OPERATIONS)),
    Route("/openapi.json", openapi, methods=["GET"]),
)
