"""Reports of browsers about the content security policy: each is a fault of ours, or an attack that had no effect."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.protocol.printable import one_line

REPORT_CHARS_MAX: Final = 400  # of a report in the log
REPORTS_MAX: Final = 100  # reports in the log of one process: any machine that reaches the server may send some
_NOTED: Final = "reports_noted"  # the attribute of the application's state


async def take_report(request: Request) -> Response:
    """Note a report in the log, if it has room."""
    report = (await request.body()).decode(errors="replace")
    state = request.app.state
    noted = getattr(state, _NOTED, 0)
    setattr(state, _NOTED, noted + 1)
    if noted < REPORTS_MAX:
        sys.stderr.write(f"airunner web: content security policy: {one_line(report[:REPORT_CHARS_MAX])}\n")
    return Response(status_code=HTTPStatus.NO_CONTENT)


ROUTES: Final[tuple[BaseRoute, ...]] = (Route("/csp-report", take_report, methods=["POST"]),)
