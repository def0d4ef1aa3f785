"""Table of job fields: `JobSpec`, in which each field of a job is written once.

Each field has a type, a default, and a `Field`: its help text, its option of `submit` and `run`, its key in a job file,
its variable in the job's environment and its line in `show`; by default they follow from the field's name.
Options, the reader of job files and `show` are made from this table; `make docs` writes the tables in README.md and
docs/PROTOCOL.md from it, and `jobfields`, for type checkers. A new field is an entry in `JobSpec`, and nothing else.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Final, get_args

from msgspec import NODEFAULT, Meta, Struct, structs

from airunner.protocol.blobs import SavedWorkspace, TreeBundle
from airunner.protocol.caches import check_caches
from airunner.protocol.dependencies import Dependencies, check_dependencies
from airunner.protocol.errors import FieldError
from airunner.protocol.expiry import Expiry
from airunner.protocol.fieldtypes import (
    Arguments,
    Attempts,
    Command,
    Depth,
    JobTitle,
    Metadata,
    Owner,
    Priority,
    SecretFiles,
    Secrets,
    Tags,
    TerminalSide,
    Variables,
    check_folder,
    check_secrets,
)
from airunner.protocol.filefields import (
    ArtifactRequired,
    Artifacts,
    Caches,
    Keep,
    KeepEvery,
    Returns,
    check_globs,
    check_kept,
)
from airunner.protocol.form import Field, Form
from airunner.protocol.gitaddress import is_ref_name
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.names import Name, Natural, Positive, Text
from airunner.protocol.printable import shell_line

DEFAULT_QUEUE: Final = "default"
MAX_ATTEMPTS_DEFAULT: Final = 3
NUL: Final = "no process can be given a NUL character"
STDIN_BYTES_MAX: Final = 1_048_576  # of a standard input: half of a request's body, and a page of a reply at most


class ProcessType(StrEnum):
    """Type of the command's standard streams."""

    PIPE = "pipe"
    PTY = "pty"


class CancelSignal(StrEnum):
    """Signal that asks a command to end. SIGKILL and SIGSTOP are none: no process can handle them."""

    TERM = "TERM"
    INT = "INT"
    HUP = "HUP"
    QUIT = "QUIT"
    ABRT = "ABRT"
    USR1 = "USR1"
    USR2 = "USR2"
    WINCH = "WINCH"


StdinBytes = Annotated[int, Meta(ge=1, le=STDIN_BYTES_MAX)]


class TerminalSize(Struct, frozen=True, omit_defaults=True):
    """Size of a terminal, in characters."""

    cols: TerminalSide = 80
    rows: TerminalSide = 24

    def __str__(self) -> str:
        return f"{self.cols}x{self.rows}"


def _streams(job: "JobSpec") -> str:
    return f"pty, {job.terminal}" if job.process_type is ProcessType.PTY else ""


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Job specification: the submitted fields of a job; they never change.

    Raises `FieldError`: a text contains a NUL, the name of a pair or secret contains `=`, the working directory or an
    artifact is not inside the checkout, or fields contradict each other.
    """

    command: Annotated[
        Command,
        Field("Program to run: a path, or a name on PATH.", show=lambda job: shell_line(job.argv)),
    ]
    args: Annotated[
        Arguments, Field("Arguments of the program; there is no shell.", Form.WORDS, metavar="ARG", show=lambda _: "")
    ] = ()
    repository: Annotated[
        Text, Field("Git repository to check out.", flag="REPOSITORY", exported=True, unset="an empty workspace")
    ] = ""
    commit: Annotated[
        Text,
        Field(
            "Commit to check out, which overrides the ref and the branch: a hash of at least 7 digits; or HEAD, the "
            "tip of these. In a job file it may also be a branch, tag or full ref.",
            exported=True,
            plain=True,
            unset="the ref or branch",
            show=lambda job: "" if job.commit == job.ref else job.commit,
        ),
    ] = ""
    ref: Annotated[
        Text,
        Field(
            "Ref to check out by its full name, such as refs/tags/v1.0 or refs/pull/7/head.",
            exported=True,
            plain=True,
            unset="the branch",
        ),
    ] = ""
    branch: Annotated[
        Text,
        Field(
            "Branch to check out, or the tag if there is no branch of its name.",
            exported=True,
            plain=True,
            unset="the remote's HEAD",
        ),
    ] = ""
    depth: Annotated[Depth | None, Field("Number of commits of history to check out.", Form.NUMBER, unset="all")] = None
    submodules: Annotated[bool, Field("Check submodules out too.", Form.SWITCH)] = False
    dissociate: Annotated[
        bool, Field("Copy objects instead of borrowing them from the agent, for use in a container.", Form.SWITCH)
    ] = False
    working_directory: Annotated[
        Text,
        Field(
            "Folder of the checkout to run the command in.",
            also=("--workdir", "-w"),
            metavar="PATH",
            unset="the checkout",
        ),
    ] = ""
    process_type: Annotated[
        ProcessType,
        Field(
            "Standard streams of the command: pipes, or a terminal.",
            Form.CHOICE,
            more=(
                Field("Same as --process-type pty: a terminal.", Form.SWITCH, "--pty", ("--tty", "-t"), means="pty"),
            ),
            show=_streams,
        ),
    ] = ProcessType.PIPE
    terminal: Annotated[
        TerminalSize,
        Field(
            "Size of the terminal.",
            Form.SIZE,
            unset="80x24, or that of the terminal that submits",
            show=lambda _: "",
        ),
    ] = TerminalSize()
    merge_output: Annotated[
        bool, Field("Send the command's stderr to its stdout: one stream, in the order written.", Form.SWITCH)
    ] = False
    artifacts: Artifacts = ()
    artifact_required: ArtifactRequired = False
    timeout_seconds: Annotated[
        Positive | None,
        Field(
            "Longest run time of the command; then the job fails with the reason `timeout`.",
            Form.DURATION,
            flag="--timeout",
            key="timeout",
            unset="none",
        ),
    ] = None
    cancel_signal: Annotated[
        CancelSignal,
        Field(
            "Signal that the command gets on a cancel or its timeout; SIGKILL follows after the agent's grace.",
            Form.SIGNAL,
            metavar="SIGNAL",
        ),
    ] = CancelSignal.TERM
    environment: Annotated[
        Variables,
        Field(
            "Variables for the command; as an option also NAME alone, for the value that it has here.",
            Form.PAIRS,
            "--env",
            ("-e",),
            plain=True,
            metavar="NAME[=VALUE]",
            more=(
                Field(
                    "File of variables for the command, a line NAME=VALUE or NAME for each; --env overrides it.",
                    Form.WORDS,
                    "--env-file",
                    metavar="FILE",
                ),
            ),
        ),
    ] = {}
    secrets: Annotated[
        Secrets,
        Field(
            "Variables whose values are redacted in the log and wherever the job is shown. Each value comes from the "
            "job's environment, or else from `airunner secret set`, or else from the agent.",
            Form.WORDS,
            "--secret",
            plain=True,
        ),
    ] = ()
    secret_files: Annotated[
        SecretFiles,
        Field("Secrets whose variables are set to the path of a file with the value.", Form.WORDS, "--secret-file"),
    ] = ()
    no_redact: Annotated[Secrets, Field("Secret-looking variables that are not redacted.", Form.WORDS, plain=True)] = ()
    queue: Annotated[Name, Field("Queue of the job.", exported=True, unset="`default`", show=attrgetter("queue"))] = (
        DEFAULT_QUEUE
    )
    priority: Annotated[Priority, Field("Jobs of higher priority start first in their queue.", Form.NUMBER)] = 0
    require: Annotated[Tags, Field("Tags that an agent needs to run the job.", Form.PAIRS, metavar="TAG=VALUE")] = {}
    not_before_ms: Annotated[
        Natural | None, Field("Earliest start, by the broker's clock.", Form.INSTANT, unset="at once")
    ] = None
    expires: Annotated[
        Expiry | None,
        Field(
            "Fail the job with the reason `expired` if no agent has begun it by then; a duration counts from its "
            "submission.",
            Form.EXPIRY,
            unset="never",
        ),
    ] = None
    max_attempts: Annotated[Attempts, Field("Number of lost agents after which the job fails.", Form.NUMBER)] = (
        MAX_ATTEMPTS_DEFAULT
    )
    retry: Annotated[
        RetryPolicy | None,
        Field(
            "How many times to run a failed job again.",
            Form.RETRY,
            unset="0",
            part="limit",
            more=(
                Field(
                    "Retry only after this exit code, signal or reason, such as 75, SIGKILL or timeout. 124 is a "
                    "timeout and 128+N a signal; lost agents (agent-lost) are retried only if they are named here.",
                    Form.WORDS,
                    "--retry-on",
                    part="on",
                    metavar="END",
                    unset="any failure",
                ),
                Field(
                    "Longest pause before the first retry, such as 1.5 or 2m; it doubles with each further retry.",
                    Form.TEXT,
                    "--retry-backoff",
                    metavar="SECONDS",
                    part="backoff",
                    unset="1",
                ),
            ),
        ),
    ] = None
    name: Annotated[
        JobTitle,
        Metadata,
        Field("Name of the job, by which commands find it: of several jobs, the newest is meant.", plain=True),
    ] = ""
    owner: Annotated[
        Owner,
        Field("Person or system that the job is for: a column of wide lists, and of lists in a pipe.", plain=True),
    ] = ""
    metadata: Annotated[
        Metadata, Field("Notes by which lists can find the job.", Form.PAIRS, also=("--label", "-l"), plain=True)
    ] = {}
    stdin_bytes: StdinBytes | None = None  # size of the standard input, which is stored beside the spec; None: no input
    tree: TreeBundle | None = None  # that brings the commit, or a part of its history, which the repository lacks
    caches: Caches = ()
    returns: Returns = False
    keep: Keep = ()
    keep_every_seconds: KeepEvery = None
    continues: SavedWorkspace | None = None  # of another job, in which this one begins
    after: Dependencies = ()

    def __post_init__(self) -> None:
        texts = _texts_of(self)
        if "\0" in "".join(texts):
            raise FieldError(next(name for name, text in zip(_TEXTS, texts, strict=True) if "\0" in text), NUL)
        if any(_collections_of(self)):
            _refuse_nul(self)
            check_secrets(self.secrets, self.secret_files, self.no_redact)
            check_globs(self.artifacts)
        if self.caches:
            check_caches(self.caches)
        if self.keep or self.keep_every_seconds is not None:
            check_kept(self.keep, self.keep_every_seconds)
        if self.after:
            check_dependencies(self.after)
        if self.working_directory:
            check_folder(self.working_directory)
        if self.ref or self.commit or self.branch:
            self._check_revision()

    def _check_revision(self) -> None:
        """Check the fields that name what to check out."""
        if self.ref and not (self.ref.startswith("refs/") and is_ref_name(self.ref)):
            raise FieldError(
                "ref", f"expected a full name such as refs/heads/main or refs/pull/7/head, not {self.ref!r}"
            )
        if self.ref and self.branch:
            raise FieldError("ref", "branch also names what to check out; give only one of them")
        for name in ("commit", "ref", "branch"):
            if getattr(self, name) and not self.repository:
                raise FieldError(name, "this needs a repository")
        if self.ref and not self.commit:
            structs.force_setattr(self, "commit", self.ref)  # agents that know no `ref` read it there

    @property
    def argv(self) -> tuple[str, ...]:
        """Command and arguments of the process."""
        return (self.command, *self.args)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Names of the variables whose values are secret, or are paths of files with them."""
        return (*self.secrets, *self.secret_files)


def _refuse_nul(spec: JobSpec) -> None:
    """Refuse lists and pairs that no process can be given, and names with `=`. Raises `FieldError`."""
    for name in _LISTS:
        for number, text in enumerate(getattr(spec, name)):
            if "\0" in text:
                raise FieldError(name, f"item {number + 1}: {NUL}", number)
    for field in _PAIRS:
        for name, value in getattr(spec, field).items():
            if "=" in name or "\0" in name or "\0" in value:
                problem = "a name cannot contain =" if "=" in name else NUL
                raise FieldError(field, f"{name!r}: {problem}", name)


def in_words(value: object) -> str:
    """Format a plain value: a number, text, a size, yes or no; any other value is empty."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (int, str, TerminalSize)) else ""


def _table() -> Iterator[Field]:
    """Yield the fields of `JobSpec`, completed from their names, types and defaults."""
    for info in structs.fields(JobSpec):
        field = next((meta for meta in get_args(info.type) if isinstance(meta, Field)), None)
        if field is None:
            continue  # nobody gives `stdin_bytes`, `tree` and `continues`
        default = info.default if info.default_factory is NODEFAULT else info.default_factory()
        words = info.name.removesuffix("_ms").split("_")
        yield structs.replace(
            field,
            flag=field.flag or f"--{'-'.join(words)}",
            key=field.key or words[0] + "".join(map(str.capitalize, words[1:])),
            unset=field.unset or in_words(default),
            more=tuple(structs.replace(more, name=more.flag[2:].replace("-", "_")) for more in field.more),
            name=info.name,
            type=info.type,
            default=default,
        )


FIELDS: Final[Mapping[str, Field]] = MappingProxyType({field.name: field for field in _table()})
"""Every field of `JobSpec` that people give, by its name."""

PLAIN: Final = tuple(field.name for field in FIELDS.values() if field.plain)
"""Names of the fields that may not contain invisible characters in new jobs."""

_TEXTS, _LISTS, _PAIRS = (
    tuple(field.name for field in FIELDS.values() if field.form is form) for form in (Form.TEXT, Form.WORDS, Form.PAIRS)
)
# Many jobs leave these fields empty, so that one look at all of them is enough.
_texts_of, _collections_of = attrgetter(*_TEXTS), attrgetter(*_LISTS, *_PAIRS)
