"""Jobs: a job's state, its result, and how the broker shows it.

`JobSpec` (`fields`) has the submitted fields, which never change. `Job` and `JobSummary` are the broker's view of a job
at one moment. `Result` is the result of one attempt; `Result.state` is the job's state then, unless a retry follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Annotated, Final, NoReturn

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.errors import EXIT_JOB_FAILED, FieldError
from airunner.protocol.fields import PLAIN, JobSpec
from airunner.protocol.gitaddress import is_ref_name, split_address
from airunner.protocol.jobretry import SIGNAL_EXIT_BASE
from airunner.protocol.names import JobId, Natural
from airunner.protocol.printable import escaped, is_plain, shell_word
from airunner.protocol.redaction import without_credentials

SPEC_BYTES_MAX: Final = 65_536  # of an encoded spec; 16 leases fit in one reply
TOO_LARGE: Final = (
    f"this has {{size}} bytes, and the whole job {{total}} of at most {SPEC_BYTES_MAX}: put what is large into a file "
    "of the repository"
)
TIMEOUT_EXIT: Final = 124  # as timeout(1) of GNU coreutils does
SUMMARY_COMMAND_CHARS: Final = 200


class JobState(StrEnum):
    """State of a job; the last four are terminal and never change. A BLOCKED job waits for others to end."""

    BLOCKED = "BLOCKED"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def terminal(self) -> bool:
        """Whether the job has finished."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED)

    @property
    def waiting(self) -> bool:
        """Whether no attempt runs, and one may follow."""
        return self in (JobState.BLOCKED, JobState.SCHEDULED)


_REASON: Final = re.compile("[a-z][a-z0-9-]{0,63}")


class Reason(StrEnum):
    """Reason why an attempt is not COMPLETED, or why there was none (`expired`, `skipped`).

    `oom`: it failed, and the kernel killed a process to free memory. `artifact-missing`: files that it was to leave are
    not stored.
    """

    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    CHECKOUT_FAILED = "checkout-failed"
    COMMAND_NOT_FOUND = "command-not-found"
    NOT_EXECUTABLE = "not-executable"
    NO_WORKING_DIRECTORY = "no-working-directory"
    PROCESS_ERROR = "process-error"
    AGENT_LOST = "agent-lost"
    OUT_OF_MEMORY = "oom"
    HOOK_FAILED = "hook-failed"
    SECRET_MISSING = "secret-missing"  # noqa: S105 - a reason
    ARTIFACT_MISSING = "artifact-missing"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SKIPPED = "skipped"

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        """Accept a reason of newer software as it is: it is not one of `Reason`'s members, and compares as its text."""
        if not isinstance(value, str) or not _REASON.fullmatch(value):
            return None
        other = str.__new__(cls, value)
        other._name_ = other._value_ = value
        return other


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Resource usage of one attempt, as its agent measured it; 0 means nothing, or unknown.

    Processor time, memory and disk are those of the command and of every process that it started, as the kernel counts
    them when they end. `memory_peak_bytes` is the peak of the largest of these processes; it includes the process that
    starts them, and so is at least 12 MiB. `read_bytes` and `written_bytes` went from and to a disk. `stdout_bytes` and
    `stderr_bytes` count what was written, including what the log leaves out; a terminal has only the first. `events` is
    the number of events that the attempt has published.
    """

    stdout_bytes: Natural = 0
    stderr_bytes: Natural = 0
    events: Natural = 0
    cpu_user_ms: Natural = 0
    cpu_system_ms: Natural = 0
    memory_peak_bytes: Natural = 0
    read_bytes: Natural = 0
    written_bytes: Natural = 0
    checkout_ms: Natural = 0


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of an attempt: exit code or signal, if its command ended; a reason, if not COMPLETED; and its usage."""

    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None
    reason: Reason | None = None
    usage: Usage | None = None

    @property
    def known(self) -> bool:
        """Whether this software knows the reason; True without a reason."""
        return self.reason is None or self.reason in Reason.__members__.values()

    @property
    def state(self) -> JobState:
        """COMPLETED for exit code 0 without a reason; CANCELLED or SKIPPED for that reason; otherwise FAILED."""
        if self.reason is Reason.CANCELLED:
            return JobState.CANCELLED
        if self.reason is Reason.SKIPPED:
            return JobState.SKIPPED
        if self.exit_code == 0 and self.signal is None and self.reason is None:
            return JobState.COMPLETED
        return JobState.FAILED

    @property
    def end(self) -> int | None:
        """Number of the command's end, as shells report it: an exit code, 128 + n, or 124; None: it did not end."""
        if self.reason is Reason.TIMEOUT:
            return TIMEOUT_EXIT
        return self.exit_code if self.signal is None else SIGNAL_EXIT_BASE + self.signal

    @property
    def failures(self) -> frozenset[Reason]:
        """Reasons by which a retry policy may name this failure; a kill for lack of memory is a signal too."""
        signal = Reason.SIGNAL if self.signal is not None and self.reason is not Reason.TIMEOUT else None
        return frozenset(reason for reason in (self.reason, signal) if reason is not None)

    @property
    def exit_status(self) -> int:
        """Exit code of a client that waited for this job; 0 only if the job COMPLETED; a hook's is not the job's."""
        if self.state is JobState.COMPLETED:
            return 0
        return (None if self.reason is Reason.HOOK_FAILED else self.end) or EXIT_JOB_FAILED


class JobView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Broker's view of a job at one moment. All instants are the broker's, in ms since the epoch."""

    id: JobId
    state: JobState
    submitted_ms: Natural
    attempt: Natural = 0
    started_ms: Natural | None = None
    finished_ms: Natural | None = None
    result: Result | None = None
    due_ms: Natural | None = None  # when a waiting job may be leased, if not at once
    cancel_requested_ms: Natural | None = None
    origin: JobId | None = None  # the job that this one retries
    waited_ms: Natural | None = None  # time from when it could be leased to its first lease
    unmet: Natural = 0  # how many of the jobs that it waits for have not ended yet
    unblocked_ms: Natural | None = None  # when the last of the jobs that it waited for had ended

    @property
    def exit_status(self) -> int | None:
        """Exit code of a client that waited for this job, as `Result.exit_status`; None: the job has not ended."""
        if not self.state.terminal:
            return None
        if self.result is not None:
            return self.result.exit_status
        return 0 if self.state is JobState.COMPLETED else EXIT_JOB_FAILED


class Job(JobView, frozen=True, kw_only=True, omit_defaults=True):
    """Job in full."""

    spec: JobSpec
    last_sequence: Natural = 0
    agent: str | None = None
    retries: Natural = 0


class JobSummary(JobView, frozen=True, kw_only=True, omit_defaults=True):
    """Job in a list, with some fields of its spec; `command` is shortened by `command_summary`."""

    queue: str
    command: str
    name: str = ""
    owner: str = ""
    repository: str = ""
    priority: int = 0
    metadata: dict[str, str] = {}  # this and the next only in a list with details
    require: dict[str, str] = {}


def check_new(spec: JobSpec) -> None:
    """Check the rules for new jobs, which jobs that were stored before these rules need not obey.

    Raises `FieldError`: the repository's address is not allowed, a commit or branch is no name, or a field of `PLAIN`
    contains invisible characters, with which it could pass for another name or for a message of ours.
    """
    if spec.repository:
        try:
            split_address(spec.repository)
        except ValueError as error:
            raise FieldError("repository", str(error)) from error
    plain = _plain_of(spec)
    if not any(plain):
        return  # nor is there a commit or a branch, which are of these fields
    for field, words in zip(PLAIN, plain, strict=True):
        if words and not is_plain("".join(words)):
            _refuse_invisible(field, {None: words} if isinstance(words, str) else dict(_named(words)))
    for field, expected in (
        ("commit", "a hash, or the name of a branch or tag"),
        ("branch", "the name of a branch or tag"),
    ):
        if not is_ref_name(text := getattr(spec, field)):
            raise FieldError(field, f"expected {expected}, not {text!r}")


_plain_of: Final = attrgetter(*PLAIN)


def _named(words: Iterable[str]) -> Iterable[tuple[object, str]]:
    """Pair the items of a list with their numbers, and the names of pairs with themselves."""
    return ((word, word) for word in words) if isinstance(words, Mapping) else enumerate(words)


def _refuse_invisible(field: str, words: Mapping[object, str]) -> NoReturn:
    part, word = next(named for named in words.items() if not is_plain(named[1]))
    raise FieldError(field, f"{escaped(word)} contains a control character or an invisible one", part)


def command_summary(spec: JobSpec, hide: Callable[[str], str] = without_credentials) -> str:
    """Return the command and its arguments, quoted for a shell, as a short text; `hide` removes the spec's secrets."""
    line = ""
    for word in spec.argv:
        line += f"{' ' if line else ''}{shell_word(hide(word))}"
        if len(line) > SUMMARY_COMMAND_CHARS:
            return line[: SUMMARY_COMMAND_CHARS - 1] + "…"
    return line


_encoder = msgspec.msgpack.Encoder()


def encode_spec(spec: JobSpec) -> bytes:
    """Encode `spec` for the store. Raises `FieldError` when it is larger than `SPEC_BYTES_MAX`."""
    raw = _encoder.encode(spec)
    if len(raw) > SPEC_BYTES_MAX:
        sizes = {name: len(_encoder.encode(getattr(spec, name))) for name in spec.__struct_fields__}
        name = max(sizes, key=sizes.__getitem__)
        raise FieldError(name, TOO_LARGE.format(size=sizes[name], total=len(raw)))
    return raw


@cache
def _spec_decoder() -> msgspec.msgpack.Decoder[JobSpec]:  # made when first used: clients decode no spec alone
    return msgspec.msgpack.Decoder(JobSpec)


def decode_spec(raw: bytes) -> JobSpec:
    """Decode a spec from the store."""
    return _spec_decoder().decode(raw)
