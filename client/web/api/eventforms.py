"""Forms of events for OpenAPI: each kind as `event_object` converts it, one Struct for each kind.

They describe what `airunner monitor --json` and `/events` send, and are made from `protocol.events`: a new kind of
event needs nothing here.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import NODEFAULT, Struct, structs

from airunner.protocol.events import EventBody, Output
from airunner.protocol.names import JobId, Natural, Positive

_NUMBERED: Final = (("job_id", JobId), ("sequence", Positive), ("attempt", Natural))
Encoding = Literal["utf-8", "base64"]


@cache
def event_forms() -> tuple[type[Struct], ...]:
    """Make a Struct for each kind of event."""
    return tuple(_form(body) for body in get_args(EventBody))


def _form(body: type[Struct]) -> type[Struct]:
    config = body.__struct_config__
    fields: list[Any] = list(_NUMBERED)
    for field in structs.fields(body):
        kind: Any = str if body is Output and field.name == "data" else field.type
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        fields.append((field.name, kind) if default is NODEFAULT else (field.name, kind, default))
    if body is Output:
        fields.append(("encoding", Encoding))
    return msgspec.defstruct(
        f"{body.__name__}Event",
        fields,
        tag=config.tag,
        tag_field="kind",
        kw_only=True,
        namespace={"__doc__": body.__doc__},
    )
