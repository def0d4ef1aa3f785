"""Login links for this machine's user: a token that the home's key signs, behind a link of the home's web server.

Imports nothing of the extra: `airunner up` and `airunner login-link` use it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES, DEFAULT_TENANT, Role
from airunner.client.web.origins import DEFAULT_LISTEN, is_loopback

FOLDER: Final = "web"
URL_FILE: Final = "url"  # where the server of this home was last reached, for `login-link`
ANSWER_S: Final = 1.0  # for a connection within this machine
LOGIN_S: Final = 43_200  # half a day: a login of the morning lasts through the working day


def local_link(
    home: Home,
    url: str,
    *,
    subject: str = "local",
    tenant: str = DEFAULT_TENANT,
    roles: Iterable[Role] = ALL_ROLES,
    ttl_s: float = LOGIN_S,
) -> str:
    """Make a login link at a server's URL, whose login lasts `ttl_s`. Raises `OperatorError`: no key signs it."""
    from airunner.certs.tokenkeys import load_signing_key
    from airunner.certs.tokens import TokenSigner
    from airunner.client.web.loginlinks import LoginLinks

    now_s = time.time()
    signer = TokenSigner(load_signing_key(os.environ, home))
    token = signer.mint(subject=subject, tenant=tenant, roles=roles, ttl_s=ttl_s, now_s=now_s)
    return f"{url}/login/{LoginLinks(home.root / FOLDER).make(token, now_s)}"


def is_silent(url: str) -> bool:
    """Return whether nothing listens at a URL of this machine; of another machine's it is not looked."""
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or ""):
        return False
    try:
        socket.create_connection((parts.hostname, parts.port or 80), ANSWER_S).close()
    except OSError:
        return True
    return False


def last_url(home: Home) -> str:
    """Return where the server of this home was last reached."""
    try:
        return (home.root / FOLDER / URL_FILE).read_text(encoding="utf-8").strip() or f"http://{DEFAULT_LISTEN}"
    except (OSError, ValueError):
        return f"http://{DEFAULT_LISTEN}"
