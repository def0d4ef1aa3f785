"""Headers of every answer: what a browser may do with it, and that nobody keeps it."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders

POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "report-uri /csp-report"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that, browsers send the forms of our own pages with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # of what has none of its own: it is private
}


def guard(headers: MutableHeaders) -> None:
    """Add the headers that an answer lacks."""
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
