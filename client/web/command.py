"""Commands `airunner web` and `airunner login-link`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from inspect import signature
from typing import Annotated, Any

import typer

from airunner.certs.principal import DEFAULT_TENANT
from airunner.client.cli.clientcommand import BrokerOption
from airunner.client.cli.options import with_parameters
from airunner.client.web.oidc.options import oidc_settings
from airunner.client.web.origins import DEFAULT_LISTEN, EXTRA, listened, public
from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.errors import OperatorError


def _with_oidc_options(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a command the options of `oidc_settings`, in place of its `**oidc`."""
    own = list(signature(command, eval_str=True).parameters.values())[:-1]
    return with_parameters(command, [*own, *signature(oidc_settings, eval_str=True).parameters.values()])


@_with_oidc_options
def web_command(
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", envvar="AIRUNNER_WEB_LISTEN", help="Address to listen at; port 0 picks a free one."
        ),
    ] = DEFAULT_LISTEN,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="URL at which browsers reach the server, as of a proxy before it that ends TLS.",
            show_default="http:// and the address",
        ),
    ] = None,
    broker: BrokerOption = None,
    **oidc: Any,  # noqa: ANN401 - the options of `oidc_settings`
) -> None:
    """Serve pages for browsers and an HTTP API for curl: a client of the broker, with this home's key.

    Each request presents its own token to the broker: that of `Authorization: Bearer`, or of the login of a browser.
    The server may be killed at any time: it keeps nothing but the key of its cookies. `airunner login-link` prints a
    link that logs a browser in.
    """
    import anyio

    from airunner.certs.ownership import own_home

    settings = oidc_settings(**oidc)
    address = listened(listen)
    home = own_home(os.environ)
    serve = _loaded()
    anyio.run(serve, home, address, public(public_url), broker, settings)


def login_link_command(
    ttl: Annotated[str, typer.Option(help="Lifetime of the login, such as 30m, 8h or 7d.")] = "12h",
    subject: Annotated[str, typer.Option(help="Name of the person who logs in.")] = "local",
    tenant: Annotated[
        str, typer.Option(help="Tenant whose jobs and queues the login gives access to.")
    ] = DEFAULT_TENANT,
    role: Annotated[
        list[str] | None,
        typer.Option(help="Role: submit, read, work, admin; separate with commas, or repeat.", show_default="all"),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="URL at which browsers reach the server.",
            show_default="where this home's server was last reached",
        ),
    ] = None,
) -> None:
    """Print a link that logs in one browser, once, within five minutes, at the `airunner web` of this home."""
    from airunner.certs.ownership import own_home
    from airunner.certs.principal import ALL_ROLES, parse_roles
    from airunner.client.web.locallogin import is_silent, last_url, local_link

    home = own_home(os.environ)
    url = public(public_url) or last_url(home)
    ttl_s = of_flag("--ttl", duration_ms, ttl) / 1_000
    roles = ALL_ROLES if role is None else parse_roles(",".join(role))
    sys.stdout.write(f"{local_link(home, url, subject=subject, tenant=tenant, roles=roles, ttl_s=ttl_s)}\n")
    if is_silent(url):
        sys.stderr.write(f"airunner: nothing listens at {url} yet: `airunner web` of this home starts the server\n")


def _loaded() -> Callable[..., Any]:
    """Import what serves. Raises `OperatorError`: the extra is not installed."""
    try:
        from airunner.client.web.serving import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("airunner"):
            raise
        raise OperatorError(EXTRA) from error
    return serve
