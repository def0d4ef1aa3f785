"""Addresses of the web server: where it listens, and the URL at which browsers reach it."""

from __future__ import annotations

from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from airunner.protocol.errors import OperatorError
from airunner.transport.endpoints import Address, split_address

DEFAULT_LISTEN: Final = "127.0.0.1:8090"
EXTRA: Final = "this needs libraries of its own: run pip install 'airunner-jobs[web]'"
LIBRARIES: Final = ("httpx2", "jinja2", "joserfc", "sse_starlette", "starlette", "uvicorn")
EXAMPLE: Final = "HOST:PORT, such as 127.0.0.1:8090 or [::1]:8090"
_ANY: Final = {"*": "0.0.0.0", "": "0.0.0.0"}  # noqa: S104 - as for the broker's --listen


def is_installed() -> bool:
    """Return whether the libraries of the extra are installed; none of them is imported."""
    return all(find_spec(name) is not None for name in LIBRARIES)


def listened(text: str, flag: str = "--listen") -> Address:
    """Parse the address of an option. Raises `OperatorError`, which says what is wrong."""
    try:
        address = split_address(text)
    except ValueError as error:
        raise OperatorError(f"{flag} {text!r} is not an address: {error}; write {EXAMPLE}") from None
    return address._replace(host=_ANY.get(address.host, address.host))


def public(url: str | None) -> str:
    """Parse --public-url, and return it without a slash at its end; empty: none. Raises `OperatorError`."""
    if url is None:
        return ""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and not parts.username and parts.port != 0
    except ValueError:
        fits = False
        parts = urlsplit("")
    if not fits or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise OperatorError(f"--public-url {url!r}: expected a URL such as https://ci.example.org, without a path")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
