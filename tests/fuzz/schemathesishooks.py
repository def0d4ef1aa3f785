"""Hook of schemathesis: a stream is read to what is stored, as that of a job which no agent runs has no end."""

from __future__ import annotations

from typing import Any

import schemathesis

STREAMS = ("/events", "/log")


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    if case.path.endswith(STREAMS) and str(case.query.get("follow", "true")).lower() == "true":
        case.query["follow"] = "false"
