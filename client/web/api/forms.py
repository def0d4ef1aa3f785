"""Forms of the API's answers: the JSON objects that the command line prints with `--json`, and pages of them."""

from __future__ import annotations

from msgspec import Struct

from airunner.client.artifactfiles import ArtifactForm
from airunner.client.cli.waiting import ListedJob
from airunner.protocol.events import Stream
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId, Natural, Positive
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary


class JobsPage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Page of jobs, newest first. `next` is the address of the next page, if there is one.

    With `count`, `total` is the number of all matching jobs; `beyond` says that there are more.
    """

    jobs: tuple[ListedJob, ...]
    next: str | None = None
    total: Natural | None = None
    beyond: bool = False


class SubmittedForm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Submitted job: its id. It is on the broker's disk. A `hint` says what will probably fail."""

    job_id: JobId
    hint: str | None = None


class NamedForm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Submitted job of several: its id and its name. A `hint` says what will probably fail."""

    job_id: JobId
    name: str
    hint: str | None = None


class SubmittedPage(Struct, frozen=True, kw_only=True):
    """Submitted jobs, in the order of the request."""

    jobs: tuple[NamedForm, ...]


class CancelledForm(Struct, frozen=True, kw_only=True):
    """Cancelled job and its state: CANCELLED; RUNNING until its agent has ended it; or in which it had ended before."""

    job_id: JobId
    state: JobState


class RetriedForm(Struct, frozen=True, kw_only=True):
    """New job that runs an ended one again, its `origin`."""

    job_id: JobId
    origin: JobId


class EndForm(Struct, frozen=True, kw_only=True):
    """Ended job, as `airunner wait` prints it; `exit_code` is that of the command which waited."""

    job_id: JobId
    state: JobState
    exit_code: int | None


class ArtifactsForm(Struct, frozen=True, kw_only=True):
    """Files that a job has left so far, by path."""

    artifacts: tuple[ArtifactForm, ...]


class QueuesPage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Page of queues, by name."""

    queues: tuple[QueueSummary, ...]
    next: str | None = None


class QueueForm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Queue and its new mode. `new` says that it had no jobs and no agent: perhaps its name is mistyped."""

    queue: str
    mode: QueueMode
    new: bool = False


class AgentsPage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Page of agents, by name."""

    agents: tuple[AgentSummary, ...]
    next: str | None = None


class FoundForm(Struct, frozen=True, kw_only=True):
    """Line of a log, as `airunner logs --json` prints it, and where it is.

    `number` counts the lines of the whole log from 1. `offset` is the byte of its event's output at which it begins.
    `size_bytes` is the size of the line, of which a long one is cut here. `match` is false for a line around a match.
    """

    job_id: JobId
    sequence: Positive
    attempt: Natural
    timestamp_ms: Natural
    stream: Stream
    line: str
    encoding: str
    number: Positive
    offset: Natural
    size_bytes: Natural
    match: bool


class SearchedForm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of a search: the lines found, and how many `lines` were searched so far.

    `cursor` goes on with the search, in a request with the same parameters; without it, the end of the log is reached.
    `finished` says that nothing will follow that end.
    """

    hits: tuple[FoundForm, ...]
    lines: Natural
    finished: bool
    cursor: str | None = None
