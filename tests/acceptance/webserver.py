"""A real `airunner web` beside a cluster, and requests of it as curl or a browser makes them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES, DEFAULT_TENANT
from airunner.certs.tokenkeys import load_signing_key
from airunner.certs.tokens import TokenSigner
from tests.acceptance.running import Cluster, Process
from tests.ports import free_ports


class RunningWeb:
    """A web server's process; after a `kill` or `stop`, `start` brings it back on the same port."""

    def __init__(self, cluster: Cluster, *options: str, more: Mapping[str, str] | None = None) -> None:
        self.cluster = cluster
        self.options = options
        self.more = more
        self.listen = f"127.0.0.1:{free_ports(1)[0]}"
        self._clients: list[httpx.Client] = []
        self.process = self.start()

    def start(self) -> Process:
        """Start it, and return when it is ready."""
        words = ["web", "--listen", self.listen, "--broker", self.cluster.broker.requests, *self.options]
        self.process = Process(self.cluster.home, words, self.more)
        try:
            self.url = self.process.line("airunner web: ready").split()[-1]
        except BaseException:
            self.process.kill()
            raise
        self.listen = self.url.rpartition("/")[2]
        return self.process

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self.process.stop()

    def close(self) -> None:
        """End it, and its clients."""
        for client in self._clients:
            client.close()
        self.stop()

    def token(self, *roles: str, tenant: str = DEFAULT_TENANT, ttl_s: float = 3_600, now_s: float | None = None) -> str:
        """A token with these roles, or with all."""
        signer = TokenSigner(load_signing_key({}, Home(self.cluster.home)))
        now_s = time.time() if now_s is None else now_s
        return signer.mint(subject="test", tenant=tenant, roles=roles or ALL_ROLES, ttl_s=ttl_s, now_s=now_s)

    def bearing(self, *roles: str, **claims: Any) -> httpx.Client:
        """A client with a bearer token; the claims are those of `token`."""
        return self._client(Authorization=f"Bearer {self.token(*roles, **claims)}")

    def link(self, *words: str) -> str:
        """A new login link, as `airunner login-link` prints it."""
        done = self.cluster.airunner("login-link", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def browser(self, words: Sequence[str] = ()) -> httpx.Client:
        """A client that has logged in by a link, as a browser does; its cookie is in `cookies`."""
        client = self._client(Accept="text/html")
        assert client.post(self.link(*words), headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
        return client

    def _client(self, **headers: str) -> httpx.Client:
        self._clients.append(httpx.Client(base_url=self.url, headers=headers, timeout=30))
        return self._clients[-1]
