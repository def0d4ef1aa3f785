"""What a job is: what its submitter asked for, how it stands, and how it ended.

`JobSpec` is what was asked and never changes. `Job` is the broker's view of it at one moment. `Result`
is what an agent says of one attempt; the state that follows from it is decided here, once.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.gitaddress import split_address
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.names import (
    ARGUMENTS_MAX,
    NAME_CHARS_MAX,
    TAGS_MAX,
    VARIABLES_MAX,
    Argument,
    JobId,
    Label,
    Name,
    Natural,
    Positive,
    TagValue,
    Text,
    Variable,
)
from airunner.protocol.printable import escaped, is_plain
from airunner.protocol.redaction import without_credentials
from airunner.protocol.usage import Usage

DEFAULT_QUEUE: Final = "default"
SPEC_BYTES_MAX: Final = 65_536  # 16 granted leases still fit one reply
SIGNAL_EXIT_BASE: Final = 128  # POSIX shells report death by signal n as 128 + n
TIMEOUT_EXIT: Final = 124  # as timeout(1) of GNU coreutils does
SUMMARY_COMMAND_CHARS: Final = 200
PRIORITY_MAX: Final = 100  # and its negative is the least
MAX_ATTEMPTS_DEFAULT: Final = 3
ATTEMPTS_MAX: Final = 100
SECRETS_MAX: Final = 64
METADATA_MAX: Final = 64  # of what is submitted; a job of before there was this bound may have more
TERMINAL_SIDE_MAX: Final = 10_000
DEPTH_MAX: Final = 1_000_000


class JobState(StrEnum):
    """Where a job stands; the last three are terminal and never change."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class ProcessType(StrEnum):
    """What the command's standard streams are."""

    PIPE = "pipe"
    PTY = "pty"


_REASON: Final = re.compile("[a-z][a-z0-9-]{0,63}")


class Reason(StrEnum):
    """Why an attempt did not complete. `oom`: the kernel killed something of it for want of memory."""

    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    CHECKOUT_FAILED = "checkout-failed"
    COMMAND_NOT_FOUND = "command-not-found"
    PROCESS_ERROR = "process-error"
    AGENT_LOST = "agent-lost"
    OUT_OF_MEMORY = "oom"
    HOOK_FAILED = "hook-failed"
    SECRET_MISSING = "secret-missing"  # noqa: S105 - a reason
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        """A reason that newer software gives, as it is; it is none of `Reason`'s members, and compares as its text."""
        if not isinstance(value, str) or not _REASON.fullmatch(value):
            return None
        other = str.__new__(cls, value)
        other._name_ = other._value_ = value
        return other


Tags = Annotated[dict[Name, TagValue], Meta(max_length=TAGS_MAX)]
"""What an agent has, or a job needs: every name with its value, such as `{os: linux}`."""

Variables = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)], Argument], Meta(max_length=VARIABLES_MAX)
]


TerminalSide = Annotated[int, Meta(ge=1, le=TERMINAL_SIDE_MAX)]


class TerminalSize(Struct, frozen=True, omit_defaults=True):
    """In characters."""

    cols: TerminalSide = 80
    rows: TerminalSide = 24


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a submitter asks for.

    Raises `ValueError` for what no process can be given: a NUL anywhere, `=` in a variable's name, an
    absolute working directory or one that climbs out of the checkout.

    In a queue a higher `priority` goes first. Before the instant `not_before_ms`, by the broker's clock, the
    job is not leased. `max_attempts` is how often its agent may be lost before it fails; `retry` says what
    is done about a command that fails. The two are counted apart.

    Only an agent that has each tag in `require` may lease it. `secrets` names variables: of `environment`, or else
    of the queue's sealed secrets, or else of those that the agent offers; their values are kept out of the log.
    `secret_files` names more such: each of these variables holds the path of a file with the value. `terminal` is
    the size of a PTY's. `depth` is how many commits of history to check out, all by default.
    """

    command: Annotated[Argument, Meta(min_length=1)]
    args: Annotated[tuple[Argument, ...], Meta(max_length=ARGUMENTS_MAX)] = ()
    queue: Name = DEFAULT_QUEUE
    process_type: ProcessType = ProcessType.PIPE
    timeout_seconds: Positive | None = None
    working_directory: Text = ""
    environment: Variables = {}
    metadata: Variables = {}
    repository: Text = ""
    commit: Text = ""
    branch: Text = ""
    owner: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""  # a page of jobs must fit one reply
    priority: Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)] = 0
    not_before_ms: Natural | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)] = MAX_ATTEMPTS_DEFAULT
    retry: RetryPolicy | None = None
    require: Tags = {}
    secrets: Annotated[tuple[Label, ...], Meta(max_length=SECRETS_MAX)] = ()
    secret_files: Annotated[tuple[Variable, ...], Meta(max_length=SECRETS_MAX)] = ()
    terminal: TerminalSize = TerminalSize()
    depth: Annotated[int, Meta(ge=1, le=DEPTH_MAX)] | None = None
    submodules: bool = False

    def __post_init__(self) -> None:
        for field in ("command", "working_directory", "repository", "commit", "branch", "owner"):
            if "\0" in getattr(self, field):
                raise ValueError(f"{field} contains a NUL character")
        if any("\0" in argument for argument in self.args):
            raise ValueError("args contains a NUL character")
        for field in ("environment", "metadata"):
            for name, value in getattr(self, field).items():
                if "=" in name or "\0" in name or "\0" in value:
                    raise ValueError(f"{field}: {name!r} is not a name and value that a process can be given")
        if self.working_directory.startswith("/") or ".." in self.working_directory.split("/"):
            raise ValueError("working_directory must be a path inside the checkout")
        if any("=" in name or "\0" in name for name in self.secrets):
            raise ValueError("secrets: expected the names of variables")
        if both := set(self.secrets) & set(self.secret_files):
            raise ValueError(f"{min(both)} is named in secrets and in secret_files; which one is it to be?")
        if (self.commit or self.branch) and not self.repository:
            raise ValueError("commit and branch need a repository")

    @property
    def argv(self) -> tuple[str, ...]:
        """The command and its arguments."""
        return (self.command, *self.args)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The variables whose values are secret, or are files with them."""
        return (*self.secrets, *self.secret_files)


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an attempt ended: an exit code, or a signal, or neither and a reason; and what it used, where it ran."""

    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None
    reason: Reason | None = None
    usage: Usage | None = None

    @property
    def known(self) -> bool:
        """Whether the reason, if there is one, is one of ours."""
        return self.reason is None or self.reason in Reason.__members__.values()

    @property
    def state(self) -> JobState:
        """Exit code 0 without a reason is COMPLETED; CANCELLED is said, everything else FAILED."""
        if self.reason is Reason.CANCELLED:
            return JobState.CANCELLED
        if self.exit_code == 0 and self.signal is None and self.reason is None:
            return JobState.COMPLETED
        return JobState.FAILED

    @property
    def exit_status(self) -> int:
        """What a command that waited for this job exits with; never 0 unless the job COMPLETED."""
        if self.reason is Reason.TIMEOUT:
            return TIMEOUT_EXIT
        if self.signal is not None:
            return SIGNAL_EXIT_BASE + self.signal
        if self.state is JobState.COMPLETED:
            return 0
        return self.exit_code or 1


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job as the broker sees it now. All instants are the broker's, in ms since the epoch.

    `due_ms` is when a job that waits may be leased, if not at once; `origin` is the job that this one retries;
    `waited_ms` is how long it could have been leased before it first was.
    """

    id: JobId
    state: JobState
    spec: JobSpec
    submitted_ms: Natural
    attempt: Natural = 0
    last_sequence: Natural = 0
    agent: str | None = None
    started_ms: Natural | None = None
    finished_ms: Natural | None = None
    result: Result | None = None
    due_ms: Natural | None = None
    retries: Natural = 0
    cancel_requested_ms: Natural | None = None
    origin: JobId | None = None
    waited_ms: Natural | None = None


class JobSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a list of jobs."""

    id: JobId
    state: JobState
    queue: str
    command: str
    submitted_ms: Natural
    attempt: Natural = 0
    owner: str = ""
    repository: str = ""
    started_ms: Natural | None = None
    finished_ms: Natural | None = None
    result: Result | None = None
    priority: int = 0
    due_ms: Natural | None = None
    cancel_requested_ms: Natural | None = None
    origin: JobId | None = None
    waited_ms: Natural | None = None


def check_new(spec: JobSpec) -> None:
    """What is asked of a job that is submitted, and was not of those that were stored before there was the rule.

    Raises `ValueError`: the repository's credentials cannot be told from the rest of it, or a name holds what is not
    seen, so that it could pass for another or for words of ours.
    """
    if spec.repository:
        split_address(spec.repository)
    names = {
        "owner": (spec.owner,),
        "commit": (spec.commit,),
        "branch": (spec.branch,),
        "metadata": spec.metadata,
        "environment": spec.environment,
        "secrets": spec.secrets,
    }
    for field, words in names.items():
        if bad := [word for word in words if not is_plain(word)]:
            raise ValueError(f"{field}: {escaped(bad[0])} contains a control character or an invisible one")


def command_summary(spec: JobSpec) -> str:
    """The command on one short line, for people."""
    line = without_credentials(" ".join(spec.argv))
    return line if len(line) <= SUMMARY_COMMAND_CHARS else line[: SUMMARY_COMMAND_CHARS - 1] + "…"


_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)


def encode_spec(spec: JobSpec) -> bytes:
    """`spec` as it is stored.

    Raises `ValueError` when it is larger than `SPEC_BYTES_MAX`.
    """
    raw = _encoder.encode(spec)
    if len(raw) > SPEC_BYTES_MAX:
        raise ValueError(f"the job takes {len(raw)} bytes and {SPEC_BYTES_MAX} is the most")
    return raw


def decode_spec(raw: bytes) -> JobSpec:
    """The opposite of `encode_spec`."""
    return _spec_decoder.decode(raw)
