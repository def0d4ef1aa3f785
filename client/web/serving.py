"""Serving of the web server: listens, runs uvicorn with the application, and ends on SIGTERM or Ctrl-C.

A signal ends every stream, whose readers resume at the next server by the id that they received last; the process exits
with 0 within `GRACE_S`.
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from airunner.certs.home import Home
from airunner.certs.secretfile import replace
from airunner.client.reach import reach
from airunner.client.web.app import make_app, write_line
from airunner.client.web.clients import Clients
from airunner.client.web.connections import Connection
from airunner.client.web.cookies import Cookies, cookie_key
from airunner.client.web.endedsessions import EndedSessions
from airunner.client.web.locallogin import FOLDER, URL_FILE
from airunner.client.web.loginlinks import LoginLinks
from airunner.client.web.oidc.login import make_oidc
from airunner.client.web.oidc.settings import OidcSettings
from airunner.client.web.origins import is_loopback
from airunner.client.web.services import Services
from airunner.client.web.sessions import Sessions
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.transport.descriptors import raise_descriptors
from airunner.transport.endpoints import Address

BACKLOG: Final = 1_024  # connections that wait to be accepted
CONNECTIONS_MAX: Final = 512  # connections and requests at a time; further ones get 503
KEEP_ALIVE_S: Final = 30  # for a connection without a request; proxies keep some for their next one
HEAD_BYTES_MAX: Final = 32_768  # of the head of a request: a token and a cookie of 8 KiB each, and what browsers add
DESCRIPTORS: Final = 4_096  # for all connections and clients; a shell grants 1,024
GRACE_S: Final = 3  # for answers to end after a signal
_REACHED: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a browser here reaches all addresses


async def serve(
    home: Home, address: Address, public_url: str, broker: Sequence[str] | None, oidc: OidcSettings | None
) -> None:
    """Serve until a signal. Raises `OperatorError`: the keys or the address cannot be used."""
    raise_descriptors(DESCRIPTORS)
    folder = home.root / FOLDER
    key = cookie_key(folder)
    access = reach(list(broker) if broker else None)
    listener = _listen(address)
    with listener:
        at = Address(address.host, listener.getsockname()[1])
        url = public_url or f"http://{at._replace(host=_REACHED.get(at.host, at.host))}"
        replace(folder / URL_FILE, f"{url}\n".encode())
        secure = url.startswith("https:")
        if not secure and not is_loopback(address.host):
            write_line(
                f"warning: other machines reach {at} without TLS, so tokens and cookies can be read on the way; "
                "put a proxy with TLS before it, and name its https:// URL with --public-url"
            )
        login = None if oidc is None else make_oidc(oidc, home, key, url, write_line)
        sessions = Sessions(time.time, EndedSessions(folder))
        async with Clients(access, write_line) as clients:
            services = Services(
                clients=clients,
                cookies=Cookies(key, secure=secure),
                links=LoginLinks(folder),
                sessions=sessions,
                public_url=url,
                now_s=time.time,
                oidc=login,
            )
            app = make_app(services, (address.host,), write_line)
            server = server_of(app)
            logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of each malformed request
            async with anyio.create_task_group() as group:
                await group.start(_until_signal, server, sessions)
                write_line(f"ready: {url}")
                await server.serve([listener])
                group.cancel_scope.cancel()
    write_line("stopped")


class WebServer(uvicorn.Server):
    """Server of uvicorn, whose signals are ours: uvicorn would end the process by the signal itself."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals as they are."""
        yield


def server_of(app: ASGIApp) -> WebServer:
    """Make the server of an application."""
    return WebServer(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
    )


async def _until_signal(server: WebServer, sessions: Sessions, *, task_status: TaskStatus[None]) -> None:
    """Stop the server on the first signal; a second one ends it at once."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            sessions.stop()
            server.force_exit = server.should_exit
            server.should_exit = True


def _listen(address: Address) -> socket.socket:
    """Listen at an address. Raises `OperatorError`: it is taken, or not of this machine."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        taken = "is another server running there? " if error.errno == errno.EADDRINUSE else ""
        raise OperatorError(
            f"cannot serve HTTP on {address}: {error.strerror or error}; {taken}choose another address with --listen",
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    return listener
