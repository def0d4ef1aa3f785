"""Pages of agents, which moves by itself, and of the names of secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.cli.waiting import first_of
from airunner.client.client import Client
from airunner.client.web.login import login_of
from airunner.client.web.pages.livetable import stream_table
from airunner.client.web.pages.rendering import render, row
from airunner.client.web.services import services_of
from airunner.protocol.replies import AgentSummary
from airunner.transport.ports import SYSTEM

ROWS_MAX: Final = 1_000  # on a page: ten pages of the list
SAME_MS: Final = 2_000  # instants that differ by less are one: the broker says how long ago, and answers later


class SeenAgent(Struct, frozen=True):
    """Agent in a row: `facts` are those of the list but for times, `seen_ms` is its last sign of life, if any."""

    facts: AgentSummary
    seen_ms: int | None


class AgentRows:
    """Rows of the agents for one reader, in whose eyes an instant is the same whenever it is asked for."""

    def __init__(self) -> None:
        self._seen: Mapping[str, SeenAgent] = {}

    async def read(self, client: Client) -> Mapping[str, SeenAgent]:
        """Read the list: what each row shows, by its element's id."""
        agents = await first_of(client.agents(), ROWS_MAX)
        return self.shown(agents, SYSTEM.wall_ms())

    def shown(self, agents: Sequence[AgentSummary], now_ms: int) -> Mapping[str, SeenAgent]:
        """Return what each row shows, by its element's id, of a list that was read now."""
        self._seen = {(row := f"agent-{agent.name}"): self._row(row, agent, now_ms) for agent in agents}
        return self._seen

    def _row(self, row: str, agent: AgentSummary, now_ms: int) -> SeenAgent:
        last = self._seen.get(row)
        seen_ms = agent.seen_ms or None if agent.silent_ms is None else now_ms - agent.silent_ms
        if seen_ms is not None and last and last.seen_ms and abs(seen_ms - last.seen_ms) < SAME_MS:
            seen_ms = last.seen_ms
        return SeenAgent(replace(agent, seen_ms=0, silent_ms=None), seen_ms)


async def show_agents(request: Request) -> Response:
    """Show the agents."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        agents = await AgentRows().read(client)
    return render(request, "agents.html", login, agents=agents, most=ROWS_MAX, now_ms=SYSTEM.wall_ms())


async def stream_agents(request: Request) -> Response:
    """Stream the agents as they come, work and go."""
    return await stream_table(request, AgentRows().read, agent_row)


def agent_row(seen: SeenAgent, now_ms: int) -> str:
    """Render the row of an agent."""
    return row("agentrow.html", seen.facts, seen.seen_ms, now_ms)


async def show_secrets(request: Request) -> Response:
    """Show the names of secrets; their values are known to agents only."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        secrets = await first_of(client.secrets(), ROWS_MAX)
    return render(request, "secrets.html", login, secrets=secrets, most=ROWS_MAX, now_ms=SYSTEM.wall_ms())


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/agents", show_agents, methods=["GET"]),
    Route("/agents/live", stream_agents, methods=["GET"]),
    Route("/secrets", show_secrets, methods=["GET"]),
)
