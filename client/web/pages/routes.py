"""Routes of the pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.web.login import login_of
from airunner.client.web.pages.plain import plain_page
from airunner.client.web.services import services_of


async def jobs_page(request: Request) -> Response:
    """Show the newest jobs."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        page = await client.list_page()
    return plain_page("Jobs", "\n".join(f"{job.id} {job.state} {job.name or job.command}" for job in page.jobs))


ROUTES: Final[Sequence[BaseRoute]] = (Route("/", jobs_page, methods=["GET"]),)
