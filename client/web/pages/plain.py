"""Plain pages, without a template: a heading, a text and perhaps a form with one button."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from starlette.responses import HTMLResponse


def plain_page(
    heading: str, text: str, status: int = HTTPStatus.OK, action: str = "", button: str = ""
) -> HTMLResponse:
    """Make a page; a form posts to `action`, if one is given."""
    form = f'<form method="post" action="{escape(action)}"><button>{escape(button)}</button></form>' if action else ""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(heading)} · airunner</title>'
        f"<h1>{escape(heading)}</h1><pre>{escape(text)}</pre>{form}</html>",
        status,
    )
