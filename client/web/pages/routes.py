"""Routes of the pages, of their static files, and of the theme that a browser has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from airunner.client.web.localpath import local_path
from airunner.client.web.pages import jobpage, jobspage, listpages, queuespage, submitpage
from airunner.client.web.pages.forms import form_of, see, value_of
from airunner.client.web.pages.rendering import FOLDER, STATIC, THEME_COOKIE, THEMES, digest_of
from airunner.client.web.problems import bad_field

THEME_S: Final = 31_536_000  # a year
_FOR_EVER: Final = "public, max-age=31536000, immutable"  # of files whose address has their hash
_CHECKED: Final = "no-cache"


class Static(StaticFiles):
    """Static files, which browsers keep for ever under an address with a hash."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file."""
        response = await super().get_response(path, scope)
        asked: str = scope["query_string"].decode("ascii", "replace")
        response.headers["Cache-Control"] = _FOR_EVER if asked and asked == digest_of(path) else _CHECKED
        return response


async def set_theme(request: Request) -> Response:
    """Set the theme of this browser, and show the page again."""
    form = await form_of(request, ("theme", "next"))
    theme = value_of(form, "theme")
    if theme not in THEMES:
        raise bad_field("theme", f"expected {' or '.join(THEMES)}")
    response = see(local_path(value_of(form, "next")))
    response.set_cookie(THEME_COOKIE, theme, max_age=THEME_S, httponly=True, samesite="lax")
    return response


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/", jobspage.show_jobs, methods=["GET"]),
    Route("/theme", set_theme, methods=["POST"]),
    Mount(STATIC.rstrip("/"), Static(directory=FOLDER / "static")),
    *jobspage.ROUTES,
    *jobpage.ROUTES,
    *queuespage.ROUTES,
    *listpages.ROUTES,
    *submitpage.ROUTES,
)
