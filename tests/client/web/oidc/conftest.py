"""One issuer for all tests, and a login at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from airunner.certs.tokenkeys import new_signing_pem, parse_signing_key
from airunner.certs.tokens import TokenSigner
from airunner.certs.tokenverifier import TokenVerifier
from airunner.client.web.oidc.attempt import Attempts
from airunner.client.web.oidc.issuer import Issuer
from airunner.client.web.oidc.login import Oidc
from airunner.client.web.oidc.settings import OidcSettings, check_settings, parse_map
from tests.client.web.conftest import NO_TLS
from tests.client.web.oidc.localissuer import CLIENT, LocalIssuer, local_issuer


@pytest.fixture(scope="session")
def serving_issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(serving_issuer: LocalIssuer) -> LocalIssuer:
    serving_issuer.reset()
    return serving_issuer


class Desk:
    """A login at the issuer, the clocks that it reads, what it reports, and who accepts its tokens."""

    def __init__(self, settings: OidcSettings) -> None:
        key = parse_signing_key(new_signing_pem(), "test")
        self.verifier = TokenVerifier([key.public_key()])
        self.reports: list[str] = []
        self.now_s = time.time()
        self.steady_s = 0.0
        self.issuer = Issuer(check_settings(settings), lambda: self.steady_s, self.reports.append)
        self.oidc = Oidc(
            self.issuer, TokenSigner(key), Attempts(b"k" * 32), "http://127.0.0.1:8090", lambda: self.now_s
        )

    async def answered(self, next_path: str = "/") -> tuple[dict[str, str], str]:
        """Begin a login, and let the user log in: what the issuer answers, and the cookie of the attempt."""
        address, sealed = await self.oidc.begin(next_path)
        async with httpx2.AsyncClient(trust_env=False, verify=NO_TLS) as browser:
            answer = await browser.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("http://127.0.0.1:8090/oidc/callback?")
        return dict(httpx2.URL(answer.headers["location"]).params), sealed

    async def login(self, next_path: str = "/") -> tuple[str, str]:
        return await self.oidc.finish(*await self.answered(next_path))


@pytest.fixture
def desk(issuer: LocalIssuer) -> Callable[..., Desk]:
    def make(**changes: Any) -> Desk:
        roles = parse_map(["developers=read,submit", "operators=admin", "cn=ops,dc=example=admin"])
        return Desk(OidcSettings(**{"issuer": issuer.url, "client_id": CLIENT, "roles": roles, **changes}))

    return make
