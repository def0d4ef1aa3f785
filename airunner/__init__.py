"""airunner runs any command in any Git repository, on any number of machines, and loses nothing.

These names are the public API. Each is imported when it is first used, so that `airunner --help` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airunner.client.client import Client as Client
    from airunner.client.jobref import SubmittedJob as SubmittedJob
    from airunner.protocol.errors import BadRequest as BadRequest
    from airunner.protocol.errors import Conflict as Conflict
    from airunner.protocol.errors import Forbidden as Forbidden
    from airunner.protocol.errors import NotFound as NotFound
    from airunner.protocol.errors import OperatorError as OperatorError
    from airunner.protocol.errors import PeerError as PeerError
    from airunner.protocol.errors import Unauthenticated as Unauthenticated
    from airunner.protocol.events import Event as Event
    from airunner.protocol.events import Stream as Stream
    from airunner.protocol.fields import JobSpec as JobSpec
    from airunner.protocol.fields import ProcessType as ProcessType
    from airunner.protocol.job import Job as Job
    from airunner.protocol.job import JobState as JobState
    from airunner.protocol.job import JobSummary as JobSummary
    from airunner.protocol.job import Reason as Reason
    from airunner.protocol.job import Result as Result
    from airunner.transport.patience import Patience as Patience

__version__ = "0.1.0"

_NAMES = {
    "airunner.client.client": "Client",
    "airunner.client.jobref": "SubmittedJob",
    "airunner.protocol.errors": "BadRequest Conflict Forbidden NotFound OperatorError PeerError Unauthenticated",
    "airunner.protocol.events": "Event Stream",
    "airunner.protocol.fields": "JobSpec ProcessType",
    "airunner.protocol.job": "Job JobState JobSummary Reason Result",
    "airunner.transport.patience": "Patience",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'airunner' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
