"""Table of job fields: `JobSpec`, in which each field of a job is written once.

Each field has its type and default, as anywhere, and a `Field` with its help text, the option of `submit` and `run`,
the key in a job file, the variable in the environment and the line in `show`; what is not given follows from the name.
Options, the reader of job files and `show` are made from this table; `make docs` writes the tables in README.md and
docs/PROTOCOL.md from it, and `JobFields`, for type checkers. A new field is an entry in `JobSpec`, and nothing else.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, TypedDict, get_args

from msgspec import NODEFAULT, Meta, Struct, structs

from airunner.protocol.jobretry import RETRIES_MAX, RetryPolicy
from airunner.protocol.names import (
    ARGUMENT_CHARS_MAX,
    ARGUMENTS_MAX,
    NAME_CHARS_MAX,
    TAGS_MAX,
    VARIABLES_MAX,
    Argument,
    Label,
    Name,
    Natural,
    Positive,
    TagValue,
    Text,
    Variable,
)

DEFAULT_QUEUE: Final = "default"
PRIORITY_MAX: Final = 100  # and its negative is the least
MAX_ATTEMPTS_DEFAULT: Final = 3
ATTEMPTS_MAX: Final = 100
SECRETS_MAX: Final = 64
METADATA_MAX: Final = 64  # each piece is a row of an index
TERMINAL_SIDE_MAX: Final = 10_000
DEPTH_MAX: Final = 1_000_000


class Form(Enum):
    """Notation of a field's value: its metavar as an option, and what is expected in a job file."""

    TEXT = "TEXT", "text"
    CHOICE = "", ""  # those of the field
    NUMBER = "NUMBER", "a whole number"
    SWITCH = "", "true or false"
    WORDS = "NAME", "a list of texts such as [test, --fast]"
    PAIRS = "NAME=VALUE", "names and texts such as {LEVEL: high}"
    DURATION = "SECONDS", "whole seconds, or a duration such as 1h30m"
    INSTANT = "INSTANT", "an instant such as 2027-01-31T03:00:00Z, or +90s, +10m, +1h30m, +1d from now"
    SIZE = "COLSxROWS", "a size such as 120x40 or {cols: 120, rows: 40}"
    RETRY = "NUMBER", f"a number up to {RETRIES_MAX}, or {{limit: 3, on: [75, SIGKILL], backoff: 1, maxBackoff: 300}}"

    def __init__(self, metavar: str, expected: str) -> None:
        self.metavar = metavar
        self.expected = expected


class Field(Struct, frozen=True):
    """Job field as people see it; in `FIELDS` what is left empty here is filled in."""

    help: str
    form: Form = Form.TEXT
    flag: str = ""  # from the name, as in `--max-attempts`; without dashes it is an operand
    key: str = ""  # in a job file; from the name, as in `maxAttempts`
    unset: str = ""  # what holds without it, in words; from the default
    metavar: str = ""
    exported: bool = False  # the job finds it in a variable, as in `AIRUNNER_QUEUE`
    plain: bool = False  # in new jobs its words, or its names, are visible characters only
    show: "Callable[[JobSpec], str] | None" = None  # its text in `show`, where the form's would not do
    more: "tuple[Field, ...]" = ()  # further options, each of which sets it to what it `means`, or a `part` of it
    means: str = ""
    part: str = ""  # a key of its mapping; of the field itself: the one that a lone value sets
    name: str = ""
    type: Any = str
    default: object = ""

    @property
    def label(self) -> str:
        """Name in `show`, such as `max attempts`."""
        return re.sub("[A-Z]", lambda letter: f" {letter[0].lower()}", self.key)

    @property
    def variable(self) -> str:
        """Variable in which the job finds an exported field."""
        return f"AIRUNNER_{self.name.upper()}"

    @property
    def expected(self) -> str:
        """Values that people may write, in words."""
        of = f" from {self.bounds[0]} to {self.bounds[1]}" if self.form is Form.NUMBER and self.bounds else ""
        return " or ".join(self.choices) or f"{self.form.expected}{of}"

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Bounds of a number, the least and the greatest, where its type has them."""
        for part in types_in(self.type):
            if isinstance(part, Meta) and part.ge is not None and part.le is not None:
                return int(part.ge), int(part.le)
        return None

    @property
    def choices(self) -> tuple[str, ...]:
        """Words to choose from."""
        enums = [part for part in types_in(self.type) if isinstance(part, type) and issubclass(part, StrEnum)]
        return tuple(word for enum in enums for word in enum)


class ProcessType(StrEnum):
    """Type of the command's standard streams."""

    PIPE = "pipe"
    PTY = "pty"


Tags = Annotated[dict[Name, TagValue], Meta(max_length=TAGS_MAX)]
"""Tags that an agent has or a job needs: names with values, such as `{os: linux}`."""

Command = Annotated[str, Meta(min_length=1, max_length=ARGUMENT_CHARS_MAX)]
Arguments = Annotated[tuple[Argument, ...], Meta(max_length=ARGUMENTS_MAX)]
VariableName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Variables = Annotated[dict[VariableName, Argument], Meta(max_length=VARIABLES_MAX)]
Metadata = Annotated[dict[VariableName, Argument], Meta(max_length=METADATA_MAX)]
Secrets = Annotated[tuple[Label, ...], Meta(max_length=SECRETS_MAX)]
SecretFiles = Annotated[tuple[Variable, ...], Meta(max_length=SECRETS_MAX)]
Owner = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]  # a page of jobs must fit one reply
Priority = Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
Attempts = Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)]
Depth = Annotated[int, Meta(ge=1, le=DEPTH_MAX)]
TerminalSide = Annotated[int, Meta(ge=1, le=TERMINAL_SIDE_MAX)]


class TerminalSize(Struct, frozen=True, omit_defaults=True):
    """Size of a terminal, in characters."""

    cols: TerminalSide = 80
    rows: TerminalSide = 24

    def __str__(self) -> str:
        return f"{self.cols}x{self.rows}"


def _queue(job: "JobSpec") -> str:
    return job.queue


def _streams(job: "JobSpec") -> str:
    return f"pty, {job.terminal}" if job.process_type is ProcessType.PTY else ""


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Job specification: what its submitter asked for; it never changes.

    Raises `ValueError` for what no process can be given: a NUL anywhere, `=` in a variable's name, an
    absolute working directory or one that climbs out of the checkout.
    """

    command: Annotated[
        Command, Field("Program to run, a path or found on PATH.", show=lambda job: shlex.join(job.argv))
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
            "Commit to check out: a hash, branch, tag or HEAD; overrides the branch.",
            exported=True,
            plain=True,
            unset="the branch",
        ),
    ] = ""
    branch: Annotated[
        Text, Field("Branch or tag to check out.", exported=True, plain=True, unset="the remote's HEAD")
    ] = ""
    depth: Annotated[Depth | None, Field("Commits of history to check out.", Form.NUMBER, unset="all")] = None
    submodules: Annotated[bool, Field("Check submodules out too.", Form.SWITCH)] = False
    working_directory: Annotated[
        Text, Field("Folder to run in, inside the checkout.", metavar="PATH", unset="the checkout")
    ] = ""
    process_type: Annotated[
        ProcessType,
        Field(
            "Standard streams of the command: pipes, or a terminal.",
            Form.CHOICE,
            more=(Field("Run it in a terminal: --process-type pty.", Form.SWITCH, "--pty", means="pty"),),
            show=_streams,
        ),
    ] = ProcessType.PIPE
    terminal: Annotated[TerminalSize, Field("Size of the terminal.", Form.SIZE, show=lambda _: "")] = TerminalSize()
    timeout_seconds: Annotated[
        Positive | None,
        Field(
            "Run time after which the job fails with the reason `timeout`.", Form.DURATION, key="timeout", unset="none"
        ),
    ] = None
    environment: Annotated[Variables, Field("Variables for the command.", Form.PAIRS, "--env", plain=True)] = {}
    secrets: Annotated[
        Secrets,
        Field(
            "Variables whose values are kept out of the log and shown to no reader: of the job's environment, or else "
            "set with `airunner secret`, or else offered by the agent.",
            Form.WORDS,
            "--secret",
            plain=True,
        ),
    ] = ()
    secret_files: Annotated[
        SecretFiles,
        Field("Secrets whose variables hold the path of a file with the value.", Form.WORDS, "--secret-file"),
    ] = ()
    queue: Annotated[Name, Field("Queue of the job.", exported=True, show=_queue)] = DEFAULT_QUEUE
    priority: Annotated[Priority, Field("The highest in a queue goes first.", Form.NUMBER)] = 0
    require: Annotated[Tags, Field("Tags that an agent needs to run the job.", Form.PAIRS, metavar="TAG=VALUE")] = {}
    not_before_ms: Annotated[
        Natural | None, Field("Earliest start, by the broker's clock.", Form.INSTANT, unset="at once")
    ] = None
    max_attempts: Annotated[Attempts, Field("Lost agents after which the job fails.", Form.NUMBER)] = (
        MAX_ATTEMPTS_DEFAULT
    )
    retry: Annotated[
        RetryPolicy | None,
        Field(
            "How often to run a failed command again.",
            Form.RETRY,
            unset="0",
            part="limit",
            more=(
                Field(
                    "Retry only after this exit code or signal, such as 75 or SIGKILL.",
                    Form.WORDS,
                    "--retry-on",
                    part="on",
                    metavar="END",
                    unset="any failure",
                ),
                Field(
                    "Pause before the first retry; it doubles.",
                    Form.DURATION,
                    "--retry-backoff",
                    part="backoff",
                    unset="1",
                ),
            ),
        ),
    ] = None
    owner: Annotated[Owner, Field("Whom the job is for; shown in lists.", plain=True)] = ""
    metadata: Annotated[Metadata, Field("Notes by which the job is found.", Form.PAIRS, plain=True)] = {}

    def __post_init__(self) -> None:
        for name in _TEXTS:
            if "\0" in getattr(self, name):
                raise ValueError(f"{name} contains a NUL character")
        for name in _LISTS:
            for text in getattr(self, name):
                if "\0" in text:
                    raise ValueError(f"{name} contains a NUL character")
        for field in _PAIRS:
            for name, value in getattr(self, field).items():
                if "=" in name or "\0" in name or "\0" in value:
                    raise ValueError(f"{field}: {name!r} is not a name and value that a process can be given")
        if self.working_directory.startswith("/") or ".." in self.working_directory.split("/"):
            raise ValueError("working_directory must be a path inside the checkout")
        if self.secrets and any("=" in name for name in self.secrets):
            raise ValueError("secrets: expected the names of variables")
        if self.secrets and (both := set(self.secrets) & set(self.secret_files)):
            raise ValueError(f"{min(both)} is named in secrets and in secret_files; which one is it to be?")
        if (self.commit or self.branch) and not self.repository:
            raise ValueError("commit and branch need a repository")

    @property
    def argv(self) -> tuple[str, ...]:
        """Command and arguments of the process."""
        return (self.command, *self.args)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Names of the variables whose values are secret, or are paths of files with them."""
        return (*self.secrets, *self.secret_files)


class JobFields(TypedDict, total=False):
    """Fields of `JobSpec` for type checkers, as `Client.submit(command=…)` takes them.

    Its types are wider than those of `JobSpec` (a list where that keeps a tuple, a word where that has an enum), so no
    type checker can derive one from the other, and `make docs` writes it.
    """

    # job fields: written by `make docs`
    command: str
    args: Sequence[str]
    repository: str
    commit: str
    branch: str
    depth: int | None
    submodules: bool
    working_directory: str
    process_type: ProcessType | str
    terminal: TerminalSize
    timeout_seconds: int | None
    environment: Mapping[str, str]
    secrets: Sequence[str]
    secret_files: Sequence[str]
    queue: str
    priority: int
    require: Mapping[str, str]
    not_before_ms: int | None
    max_attempts: int
    retry: RetryPolicy | None
    owner: str
    metadata: Mapping[str, str]
    # end of job fields


def types_in(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - an annotation is anything
    """Yield the types and metadata of which an annotation is made."""
    yield annotation
    for part in get_args(annotation):
        yield from types_in(part)


def in_words(value: object) -> str:
    """Format a plain value: a number, a word, yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (int, str, TerminalSize)) else ""


def _table() -> Iterator[Field]:
    """Make the fields of `JobSpec`, with what follows from their names and types."""
    for info in structs.fields(JobSpec):
        [field] = [meta for meta in get_args(info.type) if isinstance(meta, Field)]
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
"""Every field of `JobSpec` by its name."""

PLAIN: Final = tuple(field.name for field in FIELDS.values() if field.plain)
"""The names of fields that hold no invisible characters in new jobs."""

_TEXTS, _LISTS, _PAIRS = (
    tuple(field.name for field in FIELDS.values() if field.form is form) for form in (Form.TEXT, Form.WORDS, Form.PAIRS)
)
