"""Page of an error."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from airunner.client.web.pages.plain import plain_page
from airunner.client.web.problems import Problem


def error_page(_request: Request, problem: Problem) -> Response:
    """Make the page that shows a problem."""
    return plain_page(problem.title, problem.detail, problem.status)
