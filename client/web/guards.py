"""Guards of the web server: refuse what no route should see, and give every answer its headers.

```
 request ─► host known? ─► not from another site? ─► body small and quick? ─► routes
 answer ◄── Content-Security-Policy, nosniff, Referrer-Policy, … ◄───────────┘
```

- Host: an attacker's name that leads to this machine (DNS rebinding) is refused; an address is nobody's name.
- Another site: a browser says where a request is from (`Sec-Fetch-Site`, or else `Origin`). With a method that changes
  something it has to be this site; with a bearer token nothing is checked, as no browser adds one by itself.
- Body: at most `BODY_BYTES_MAX`, and received within `BODY_S`; those of all requests together have `BODIES_BYTES_MAX`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airunner.client.web.guardheaders import guard
from airunner.client.web.problems import WebError, answer, problem_of

BODY_BYTES_MAX: Final = 2 << 20  # a submission of jobs fits: the broker takes 1 MiB at a time
BODIES_BYTES_MAX: Final = 64 << 20  # of memory: as many bodies as there are connections would need 1 GiB
BODY_S: Final = 30.0  # for a body to arrive
SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))


class Guards:
    """Guards around the routes: `hosts` are the names of this server, beside addresses and localhost."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], origin: str) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origin = origin
        self._bodies: set[_Body] = set()  # of the requests that are being served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                guard(MutableHeaders(scope=message))
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal is not None:
            await answer(Request(scope), problem_of(refusal))(scope, receive, send_guarded)
            return
        body = _Body(receive)
        self._bodies.add(body)
        try:
            await self._app(scope, partial(self._receive, body), send_guarded)
        finally:
            self._bodies.remove(body)

    async def _receive(self, body: _Body) -> Message:
        """Receive a part of a body, if there is room for it. Raises `WebError` in the route that reads it."""
        message = await body.receive()
        if body.received_bytes and sum(each.received_bytes for each in self._bodies) > BODIES_BYTES_MAX:
            raise WebError(HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests come at once: try again soon")
        return message

    def _refusal(self, headers: Headers, method: str) -> WebError | None:
        """Return why a request is refused by its head, or None."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return WebError(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this server is not called {host!r}: `airunner web --public-url` says how it is",
            )
        if method not in SAFE and "authorization" not in headers and self._is_foreign(headers, host):
            return WebError(HTTPStatus.FORBIDDEN, "this request comes from another site")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > BODY_BYTES_MAX:
            return _too_large()
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name == "localhost" or name in self._hosts:
                return True
            ip_address(name)
        except ValueError:
            return False
        return True

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        """Return whether a browser says that another site makes this request; others than browsers say nothing."""
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        origin = headers.get("origin")
        return origin is not None and origin not in (self._origin, f"http://{host}", f"https://{host}")


class _Body:
    """Body of a request, bounded in bytes and in the time in which it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._deadline_s = anyio.current_time() + BODY_S
        self._whole = False
        self.received_bytes = 0

    async def receive(self) -> Message:
        """Receive a part. Raises `WebError`."""
        if self._whole:
            return await self._receive()  # waits for the client to disconnect
        try:
            with anyio.fail_after(max(0.0, self._deadline_s - anyio.current_time())):
                message = await self._receive()
        except TimeoutError as error:
            raise WebError(
                HTTPStatus.REQUEST_TIMEOUT, f"the body of the request has not come within {BODY_S:.0f} s"
            ) from error
        if message["type"] != "http.request":
            self._whole = True
            return message
        self.received_bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self.received_bytes > BODY_BYTES_MAX:
            raise _too_large()
        return message


def _too_large() -> WebError:
    return WebError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX >> 20} MiB")
