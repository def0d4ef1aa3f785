"""Pages of agents and of the names of secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.cli.waiting import first_of
from airunner.client.web.login import login_of
from airunner.client.web.pages.rendering import render
from airunner.client.web.services import services_of
from airunner.transport.ports import SYSTEM

ROWS_MAX: Final = 1_000  # on a page: ten pages of the list


async def show_agents(request: Request) -> Response:
    """Show the agents."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        agents = await first_of(client.agents(), ROWS_MAX)
    return render(request, "agents.html", login, agents=agents, most=ROWS_MAX, now_ms=SYSTEM.wall_ms())


async def show_secrets(request: Request) -> Response:
    """Show the names of secrets; their values are known to agents only."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        secrets = await first_of(client.secrets(), ROWS_MAX)
    return render(request, "secrets.html", login, secrets=secrets, most=ROWS_MAX, now_ms=SYSTEM.wall_ms())


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/agents", show_agents, methods=["GET"]),
    Route("/secrets", show_secrets, methods=["GET"]),
)
