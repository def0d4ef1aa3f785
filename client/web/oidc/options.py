"""Options of `airunner web` for the login by OpenID Connect. Imports nothing of the extra."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from airunner.certs.principal import DEFAULT_TENANT
from airunner.certs.secretfile import read_secret
from airunner.client.web.oidc.settings import OidcSettings, check_settings, parse_map
from airunner.protocol.errors import OperatorError

SECRET_VARIABLE: Final = "AIRUNNER_OIDC_CLIENT_SECRET"  # noqa: S105 - the variable's name
SECRET_CHARS_MAX: Final = 4_096


def oidc_settings(
    oidc_issuer: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenID Connect issuer at which users log in, such as https://id.example.org/realms/main.",
        ),
    ] = None,
    oidc_client_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Name of this server's client at the issuer.")
    ] = None,
    oidc_client_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"File (mode 0600) with the secret of this client; {SECRET_VARIABLE} may have it instead.",
            show_default="a public client",
        ),
    ] = None,
    oidc_map: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=ROLES",
            help="Roles of a group of the issuer, such as developers=read,submit. May be repeated: a user has the "
            "roles of all of their groups, and no access without one.",
        ),
    ] = None,
    oidc_tenant: Annotated[
        str, typer.Option(metavar="NAME", help="Tenant of the users who log in at the issuer.")
    ] = DEFAULT_TENANT,
    oidc_scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="Further scope to ask the issuer for. May be repeated."),
    ] = None,
    oidc_groups_claim: Annotated[
        str, typer.Option(metavar="CLAIM", help="Claim of the ID token with a user's groups.")
    ] = "groups",
    oidc_subject_claim: Annotated[
        str,
        typer.Option(
            metavar="CLAIM",
            help="Claim of the ID token that names a user in logs, such as email; an e-mail address has "
            "to be verified by the issuer.",
        ),
    ] = "sub",
) -> OidcSettings | None:
    """Make the settings of the login from the options; None: there is none. Raises `OperatorError`: they do not fit."""
    if oidc_issuer is None:
        given = {"--oidc-client-id": oidc_client_id, "--oidc-map": oidc_map, "--oidc-scope": oidc_scope}
        if lonely := [flag for flag, value in given.items() if value]:
            raise OperatorError(f"{lonely[0]}: needs --oidc-issuer, the address of the issuer")
        return None
    return check_settings(
        OidcSettings(
            issuer=oidc_issuer,
            client_id=oidc_client_id or "",
            client_secret=_secret(oidc_client_secret_file),
            roles=parse_map(oidc_map or ()),
            tenant=oidc_tenant,
            scopes=tuple(oidc_scope or ()),
            groups_claim=oidc_groups_claim,
            subject_claim=oidc_subject_claim,
        )
    )


def _secret(file: Path | None) -> str:
    """Read the client's secret, which no list of processes may show. Raises `OperatorError`: it cannot be read."""
    if file is None:
        return os.environ.pop(SECRET_VARIABLE, "").strip()
    content = read_secret(file, "the client's secret", if_missing="write the secret that the issuer shows to it")
    try:
        secret = content.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise OperatorError(f"--oidc-client-secret-file {file}: expected a line of ASCII") from error
    if not 1 <= len(secret) <= SECRET_CHARS_MAX:
        raise OperatorError(f"--oidc-client-secret-file {file}: expected 1 to {SECRET_CHARS_MAX:,} characters")
    return secret
