"""Rendering of pages: templates in which text of jobs can be nothing but text.

```
 {{ value }} ──► visible (control characters shown) ──► escaped ──► page
```

- Every value is escaped by Jinja, and made visible first: a name with characters that turn the direction of text, or
  hide in it, is shown with their codes. `verbatim` leaves them as they are, for what a form gives back.
- A name that a template does not know is an error, not an empty text.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from airunner import __version__
from airunner.client.web.login import Login
from airunner.client.web.pages import showing
from airunner.protocol.printable import one_line
from airunner.transport.ports import SYSTEM

FOLDER: Final = Path(__file__).parents[1]
STATIC: Final = "/static/"
DIGEST_CHARS: Final = 12  # of a file's hash, in its address
THEMES: Final = ("auto", "light", "dark")
THEME_COOKIE: Final = "airunner-theme"


def render(
    request: Request, template: str, login: Login | None = None, status: int = HTTPStatus.OK, **context: object
) -> HTMLResponse:
    """Render a page for a login, or for a browser that has none."""
    theme = request.cookies.get(THEME_COOKIE, "")
    has_code = request.url.path.startswith("/oidc/")  # of an issuer, for a login that has failed: it is on no page
    here = "/" if has_code else f"{request.url.path}?{request.url.query}".rstrip("?")
    common = {
        "login": login,
        "theme": theme if theme in THEMES else THEMES[0],
        "here": here,
        "served_ms": SYSTEM.wall_ms(),
    }
    return HTMLResponse(fragment(template, **common, **context), status)


def fragment(template: str, **context: object) -> str:
    """Render a template, or a part of a page."""
    return environment().get_template(template).render(context)


def row(template: str, *values: object) -> str:
    """Render the macro `row` of a template."""
    module: Any = environment().get_template(template).module
    return str(module.row(*values))


@cache
def environment() -> Environment:
    """Make the environment of the templates, once."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    filters: dict[str, Any] = made.filters
    filters["verbatim"] = escape
    known: dict[str, Any] = made.globals
    known |= {"static": static, "themes": THEMES, "version": __version__, **showing.FUNCTIONS}
    return made


def visible(value: object) -> object:
    """Make the text of a value one line in which every character is seen; what is HTML already stays."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def static(name: str) -> str:
    """Return the address of a static file: it changes with the content, so browsers may keep it for ever."""
    return f"{STATIC}{name}?{digest_of(name)}"


def digest_of(name: str) -> str:
    """Return the first characters of the hash of a static file."""
    return sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:DIGEST_CHARS]
