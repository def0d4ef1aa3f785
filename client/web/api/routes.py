"""Routes of the HTTP API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.web.login import login_of
from airunner.client.web.services import services_of

JSON: Final = "application/json"


async def list_jobs(request: Request) -> Response:
    """List the newest jobs."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        page = await client.list_page()
    return Response(msgspec.json.encode({"jobs": page.jobs, "more": page.more}), media_type=JSON)


ROUTES: Final[Sequence[BaseRoute]] = (Route("/v1/jobs", list_jobs, methods=["GET"]),)
