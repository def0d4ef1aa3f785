"""The web server's application on a real socket of the test's own event loop, beside a real broker and agent.

`web` serves it; `web.bearing("read")` is an HTTP client with such a token, `web.browser()` one with a login cookie. The
cluster is started once in a session: a test gives its jobs a queue or name of its own, or a tenant of its own.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES, DEFAULT_TENANT
from airunner.certs.tokenkeys import load_signing_key
from airunner.certs.tokens import TokenSigner
from airunner.client.client import Client
from airunner.client.reach import reach
from airunner.client.web.app import make_app
from airunner.client.web.clients import Clients
from airunner.client.web.cookies import Cookies
from airunner.client.web.endedsessions import EndedSessions
from airunner.client.web.loginlinks import LoginLinks
from airunner.client.web.services import Services
from airunner.client.web.serving import server_of
from airunner.client.web.sessions import Sessions
from airunner.testing import Cluster

KEY = bytes(32)
TIMEOUT_S = 60  # of a test: the first one starts the cluster
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Context of clients whose servers have no TLS: without it each client would load all authorities, for 0.04 s."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


class Web:
    """The application that is served, its services, and the lines of its log."""

    def __init__(self, app: Starlette, services: Services, home: Path, broker: str, log: list[str]) -> None:
        self.app = app
        self.services = services
        self.url = services.public_url
        self.home = home
        self.broker = broker
        self.log = log
        self._signer = TokenSigner(load_signing_key({}, Home(home)))
        self._clients: list[httpx.AsyncClient] = []

    def token(self, *roles: str, tenant: str = DEFAULT_TENANT, ttl_s: float = 3_600, **more: Any) -> str:
        """A token with these roles, or with all."""
        roles_or_all: Any = roles or ALL_ROLES
        now_s = self.services.now_s()
        return self._signer.mint(subject="test", tenant=tenant, roles=roles_or_all, ttl_s=ttl_s, now_s=now_s, **more)

    def anonymous(self, **headers: str) -> httpx.AsyncClient:
        """An HTTP client without a token."""
        self._clients.append(httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, verify=NO_TLS))
        return self._clients[-1]

    def bearing(self, *roles: str, **claims: Any) -> httpx.AsyncClient:
        """An HTTP client with a bearer token; the claims are those of `token`."""
        return self.anonymous(Authorization=f"Bearer {self.token(*roles, **claims)}")

    def browser(self, *roles: str, **claims: Any) -> httpx.AsyncClient:
        """An HTTP client with the cookie and the headers of a browser that has logged in."""
        client = self.anonymous(Accept="text/html", **{"Sec-Fetch-Site": "same-origin"})
        client.cookies.set(self.services.cookies.name, self.services.cookies.seal(self.token(*roles, **claims)))
        return client

    def client(self, *roles: str, **claims: Any) -> Client:
        """An SDK client, which submits what the pages then show."""
        return Client(self.broker, home=self.home, token=self.token(*roles, **claims))

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


@asynccontextmanager
async def served(cluster: Cluster, folder: Path, now_s: Callable[[], float] = time.time) -> AsyncIterator[Web]:
    """Serve the application on a free port; `folder` has the login links."""
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Clients(reach(cluster.broker, home=cluster.home), lines.append) as clients:
            services = Services(
                clients=clients,
                cookies=Cookies(KEY, secure=False),
                links=LoginLinks(folder),
                sessions=Sessions(now_s, EndedSessions(folder)),
                public_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                now_s=now_s,
            )
            app = make_app(services, log=lines.append)
            server = server_of(app)
            async with anyio.create_task_group() as group:
                group.start_soon(server.serve, [listener])
                web = Web(app, services, cluster.home, cluster.broker, lines)
                yield web
                await web.close()
                services.sessions.stop()
                for serving in server.servers:  # uvicorn's own end takes 0.2 s
                    serving.close()
                group.cancel_scope.cancel()


@pytest.fixture
def anyio_backend() -> str:
    """Real time, on asyncio: that is where uvicorn runs."""
    return "asyncio"


@pytest.fixture
async def web(airunner_session_cluster: Cluster, tmp_path: Path) -> AsyncIterator[Web]:
    async with served(airunner_session_cluster, tmp_path) as running:
        yield running
