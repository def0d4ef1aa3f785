"""airunner runs any command in any Git repository, on any number of machines, and loses nothing.

These names are the public API: `Client` is the asynchronous client and `sync.Client` the blocking one. They are
imported when one of them is first used, so that `airunner --help` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airunner import sync as sync
    from airunner import testing as testing
    from airunner.api import *  # noqa: F403 - type checkers see the names; `__getattr__` imports them

__version__ = "0.1.0"
__all__ = [
    "AgentSummary",
    "AirunnerError",
    "Artifact",
    "ArtifactFile",
    "BadPattern",
    "BadRequest",
    "BatchIterator",
    "BrokerSummary",
    "Busy",
    "Cache",
    "CacheSummary",
    "CancelSignal",
    "Client",
    "ClientNotOpen",
    "Conflict",
    "CorruptLog",
    "Draining",
    "Event",
    "EventBody",
    "Expiry",
    "Forbidden",
    "GitCloneEnd",
    "GitCloneError",
    "GitCloneProgress",
    "GitCloneStart",
    "Heartbeat",
    "Job",
    "JobCancelRequested",
    "JobExpired",
    "JobFailed",
    "JobFields",
    "JobFinished",
    "JobLeased",
    "JobRef",
    "JobReleased",
    "JobScheduled",
    "JobSpec",
    "JobState",
    "JobSummary",
    "JobUnblocked",
    "Kept",
    "Line",
    "LogCheck",
    "LogLine",
    "LogSearched",
    "LogSigned",
    "NewJob",
    "NoSpace",
    "NotFinished",
    "NotFound",
    "OperatorError",
    "Output",
    "OutputTruncated",
    "Patience",
    "PeerError",
    "ProcessEnd",
    "ProcessError",
    "ProcessStart",
    "ProcessType",
    "QueueMode",
    "QueueSummary",
    "Quota",
    "Reason",
    "Result",
    "RetryOn",
    "RetryPolicy",
    "Returned",
    "SaveWhen",
    "SavedHead",
    "SearchPlace",
    "SecretSummary",
    "StillRunning",
    "Stream",
    "SubmittedJob",
    "TerminalResize",
    "TerminalSize",
    "Unauthenticated",
    "UnknownBody",
    "Unsupported",
    "Usage",
    "__version__",
]
_MODULES = ("sync", "testing")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"airunner.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'airunner' has no attribute {name!r}")
    return getattr(import_module("airunner.api"), name)


def __dir__() -> list[str]:
    return sorted((*__all__, *_MODULES))
