"""A local issuer: a provider of OpenID Connect on a real port, with keys of its own, that lies as it is bid.

It is strict where a provider is: a code is redeemed once, by the client that it was made for, with the verifier and the
redirect that it was asked for with.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT = "airunner-web"
SECRET = "it's a secret: 100 % & more"


def new_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})


class LocalIssuer:
    """Issuer at `url`; what it says is changed by assigning to its attributes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: Counter[str] = Counter()  # requests, by path
        self.reset()

    def reset(self) -> None:
        """Be honest again."""
        self.asked.clear()
        self.key: Key = new_key(secrets.token_hex(4))  # a name of its own, as keys have
        self.published: list[Key] = [self.key]
        self.algorithm = "ES256"
        self.claims: dict[str, Any] = {}  # instead of the honest ones; None: without it
        self.discovery: dict[str, Any] = {}
        self.token_answer: Response | None = None
        self.keys_answer: Response | None = None
        self.secret = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.user = {"sub": "amelie", "groups": ["developers"]}

    def rotate(self, kid: str) -> None:
        """Sign with a new key, and publish only that."""
        self.key = new_key(kid)
        self.published = [self.key]

    def id_token(self, nonce: str) -> str:
        now_s = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now_s, "exp": now_s + 3_600, "nonce": nonce, **self.user}
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key, [self.algorithm])

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
            ]
        )

    async def _discovery(self, _: Request) -> Response:
        self.asked["discovery"] += 1
        honest = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?realm=one",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/end",
            "scopes_supported": ["openid", "groups"],
            "authorization_response_iss_parameter_supported": True,
        }
        return JSONResponse({**honest, **self.discovery})

    async def _keys(self, _: Request) -> Response:
        self.asked["keys"] += 1
        return self.keys_answer or JSONResponse(KeySet(self.published).as_dict(private=False))

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT
        assert asked["response_type"] == "code"
        assert asked["realm"] == "one"  # the address had a query of its own
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        self.asked["token"] += 1
        if self.token_answer is not None:
            return self.token_answer
        form = dict(parse_qsl((await request.body()).decode()))
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
            or form["grant_type"] != "authorization_code"
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        if _client_of(request, form) != (CLIENT, self.secret):
            return JSONResponse({"error": "invalid_client"}, 401)
        return JSONResponse({"token_type": "Bearer", "access_token": "-", "id_token": self.id_token(asked["nonce"])})


def _client_of(request: Request, form: dict[str, str]) -> tuple[str, ...]:
    """The client and its secret, as they came in the form or by HTTP Basic (RFC 6749, 2.3.1)."""
    if "authorization" not in request.headers:
        return form["client_id"], form.get("client_secret", "")
    pair = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    return tuple(unquote_plus(part) for part in pair.split(":"))


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextmanager
def local_issuer() -> Iterator[LocalIssuer]:
    """An issuer that serves from a thread until the block is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        issuer = LocalIssuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = _Server(uvicorn.Config(issuer.app(), log_config=None, access_log=False, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield issuer
        finally:
            server.should_exit = True
            thread.join()
