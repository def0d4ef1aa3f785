"""Settings of the login by OpenID Connect: the issuer, this server's client there, and the roles of groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from airunner.certs.principal import DEFAULT_TENANT, Role, parse_roles
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name
from airunner.protocol.printable import escaped, is_plain

MAPPED_MAX: Final = 1_000  # groups: each login looks through its own ones only, so this bounds the command line
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+\Z")  # RFC 6749, 3.3


class OidcSettings(Struct, frozen=True):
    """Settings of one issuer.

    `roles` has the roles of each group that the map names. `client_secret` is empty for a public client. `scopes` are
    asked for beyond `openid`. The claims named here hold a user's groups, and the subject of the user's tokens.
    """

    issuer: str
    client_id: str
    roles: Mapping[str, frozenset[Role]]
    client_secret: str = ""
    tenant: str = DEFAULT_TENANT
    scopes: tuple[str, ...] = ()
    groups_claim: str = "groups"
    subject_claim: str = "sub"

    def roles_of(self, groups: Iterable[str]) -> frozenset[Role]:
        """Return the roles that the groups of a user give together."""
        return frozenset[Role]().union(*(self.roles.get(group, ()) for group in groups))


def check_settings(settings: OidcSettings) -> OidcSettings:
    """Check settings, and return them. Raises `OperatorError`: no login could succeed with these."""
    if not is_safe_address(settings.issuer) or "?" in settings.issuer or "#" in settings.issuer:
        raise OperatorError(
            f"--oidc-issuer {escaped(settings.issuer)}: expected an https:// address (http:// on this machine only)"
        )
    if not settings.client_id or not is_plain(settings.client_id):
        raise OperatorError("--oidc-client-id: name this server's client at the issuer")
    if not settings.roles:
        raise OperatorError("--oidc-map: map a group to roles, such as developers=read,submit; else nobody can log in")
    if not fits_name(settings.tenant):
        raise OperatorError(f"--oidc-tenant {settings.tenant!r}: expected {NAME_EXPECTED}")
    if wrong := [scope for scope in settings.scopes if not _SCOPE.match(scope)]:
        raise OperatorError(f"--oidc-scope {escaped(wrong[0])!r}: expected one scope, such as groups")
    return settings


def parse_map(entries: Iterable[str]) -> dict[str, frozenset[Role]]:
    """Parse entries of the map, `GROUP=ROLES`. Raises `OperatorError`: an entry is malformed, or a group comes twice.

    >>> {group: sorted(roles) for group, roles in parse_map(["developers=read,submit"]).items()}
    {'developers': [<Role.READ: 'read'>, <Role.SUBMIT: 'submit'>]}
    """
    roles: dict[str, frozenset[Role]] = {}
    for entry in entries:
        group, equals, names = entry.rpartition("=")  # a name of LDAP has equals signs itself
        if not equals or not group or not is_plain(group):
            raise OperatorError(f"--oidc-map {escaped(entry)}: expected GROUP=ROLES, such as developers=read,submit")
        if group in roles:
            raise OperatorError(f"--oidc-map: the group {group} comes twice; give all of its roles at once")
        try:
            roles[group] = parse_roles(names)
        except OperatorError as error:
            raise OperatorError(f"--oidc-map {escaped(entry)}: use one or more of {','.join(Role)}") from error
    if len(roles) > MAPPED_MAX:
        raise OperatorError(f"--oidc-map: {len(roles):,} groups are mapped, at most {MAPPED_MAX:,} can be")
    return roles


def is_safe_address(address: str) -> bool:
    """Return whether an address of the issuer is reached by TLS, or on this machine."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # which raises for a malformed one
    except ValueError:
        return False
    if not parts.hostname or parts.username is not None or not is_plain(address) or " " in address:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Return whether a host of an address is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
