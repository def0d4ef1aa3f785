"""Public names of airunner, which `airunner` imports when one of them is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airunner.client.artifactfiles import ArtifactFile as ArtifactFile
from airunner.client.batches import BatchIterator as BatchIterator
from airunner.client.client import Client as Client
from airunner.client.ends import JobFailed as JobFailed
from airunner.client.ends import StillRunning as StillRunning
from airunner.client.jobref import JobRef as JobRef
from airunner.client.jobref import SubmittedJob as SubmittedJob
from airunner.client.loglines import Line as Line
from airunner.client.specs import NewJob as NewJob
from airunner.protocol.caches import Cache as Cache
from airunner.protocol.caches import CacheSummary as CacheSummary
from airunner.protocol.caches import SaveWhen as SaveWhen
from airunner.protocol.errors import AirunnerError as AirunnerError
from airunner.protocol.errors import BadPattern as BadPattern
from airunner.protocol.errors import BadRequest as BadRequest
from airunner.protocol.errors import Busy as Busy
from airunner.protocol.errors import ClientNotOpen as ClientNotOpen
from airunner.protocol.errors import Conflict as Conflict
from airunner.protocol.errors import CorruptLog as CorruptLog
from airunner.protocol.errors import Draining as Draining
from airunner.protocol.errors import Forbidden as Forbidden
from airunner.protocol.errors import NoSpace as NoSpace
from airunner.protocol.errors import NotFinished as NotFinished
from airunner.protocol.errors import NotFound as NotFound
from airunner.protocol.errors import OperatorError as OperatorError
from airunner.protocol.errors import PeerError as PeerError
from airunner.protocol.errors import Quota as Quota
from airunner.protocol.errors import Unauthenticated as Unauthenticated
from airunner.protocol.errors import Unsupported as Unsupported
from airunner.protocol.events import Artifact as Artifact
from airunner.protocol.events import Event as Event
from airunner.protocol.events import EventBody as EventBody
from airunner.protocol.events import GitCloneEnd as GitCloneEnd
from airunner.protocol.events import GitCloneError as GitCloneError
from airunner.protocol.events import GitCloneProgress as GitCloneProgress
from airunner.protocol.events import GitCloneStart as GitCloneStart
from airunner.protocol.events import Heartbeat as Heartbeat
from airunner.protocol.events import JobCancelRequested as JobCancelRequested
from airunner.protocol.events import JobExpired as JobExpired
from airunner.protocol.events import JobFinished as JobFinished
from airunner.protocol.events import JobLeased as JobLeased
from airunner.protocol.events import JobReleased as JobReleased
from airunner.protocol.events import JobScheduled as JobScheduled
from airunner.protocol.events import JobUnblocked as JobUnblocked
from airunner.protocol.events import Kept as Kept
from airunner.protocol.events import LogSigned as LogSigned
from airunner.protocol.events import Output as Output
from airunner.protocol.events import OutputTruncated as OutputTruncated
from airunner.protocol.events import ProcessEnd as ProcessEnd
from airunner.protocol.events import ProcessError as ProcessError
from airunner.protocol.events import ProcessStart as ProcessStart
from airunner.protocol.events import Returned as Returned
from airunner.protocol.events import Stream as Stream
from airunner.protocol.events import TerminalResize as TerminalResize
from airunner.protocol.events import UnknownBody as UnknownBody
from airunner.protocol.expiry import Expiry as Expiry
from airunner.protocol.fields import CancelSignal as CancelSignal
from airunner.protocol.fields import JobSpec as JobSpec
from airunner.protocol.fields import ProcessType as ProcessType
from airunner.protocol.fields import TerminalSize as TerminalSize
from airunner.protocol.job import Job as Job
from airunner.protocol.job import JobState as JobState
from airunner.protocol.job import JobSummary as JobSummary
from airunner.protocol.job import Reason as Reason
from airunner.protocol.job import Result as Result
from airunner.protocol.job import Usage as Usage
from airunner.protocol.jobfields import JobFields as JobFields
from airunner.protocol.jobretry import RetryOn as RetryOn
from airunner.protocol.jobretry import RetryPolicy as RetryPolicy
from airunner.protocol.logsearch import LogLine as LogLine
from airunner.protocol.logsearch import SearchPlace as SearchPlace
from airunner.protocol.replies import AgentSummary as AgentSummary
from airunner.protocol.replies import BrokerSummary as BrokerSummary
from airunner.protocol.replies import LogSearched as LogSearched
from airunner.protocol.replies import QueueMode as QueueMode
from airunner.protocol.replies import QueueSummary as QueueSummary
from airunner.protocol.replies import SecretSummary as SecretSummary
from airunner.transport.patience import Patience as Patience

if TYPE_CHECKING:
    from airunner.client.logcheck import LogCheck as LogCheck
    from airunner.client.logcheck import SavedHead as SavedHead


def __getattr__(name: str) -> object:
    from airunner.client import logcheck  # takes longer than all the others together, and few need it

    return getattr(logcheck, name)
