"""Agent options: the plan of one agent, and the checks of the options of `airunner agent`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from airunner.agent.checkout.repository import FORBIDDEN_SCHEMES, REMOTE_SCHEMES, SCHEME
from airunner.agent.output.batching import FlushPlan
from airunner.agent.workspace.environment import RESERVED
from airunner.agent.workspace.jobuser import JobUser, job_users, let_pass
from airunner.agent.workspace.workspace import WORKSPACES_FOLDER
from airunner.certs.home import Home
from airunner.certs.ownership import unsafe_reason
from airunner.certs.principal import DEFAULT_TENANT
from airunner.certs.secretfile import make_folder
from airunner.protocol.durations import of_flag
from airunner.protocol.envfile import ENV_FILE_BYTES_MAX, variable_of, variables_in
from airunner.protocol.errors import OperatorError
from airunner.protocol.listhint import pairs_hint
from airunner.protocol.names import NAME_CHARS_MAX, NAME_EXPECTED, TAGS_MAX, fits_name, fits_tag_value
from airunner.protocol.printable import is_plain
from airunner.transport.descriptors import raise_descriptors

SLOT_DESCRIPTORS: Final = 13  # for a running job: 5 (two pipes, the sockets of keeper and job, its spool), at most 13
AGENT_DESCRIPTORS: Final = 64  # for the agent itself: 20 without jobs; the rest is for files and another connection
VARIABLES_CHARS_MAX: Final = 65_536  # of the operator's variables in all, as of a job's own


class Plan(Struct, frozen=True):
    """Plan of one agent: `slots` jobs at once from `queues`, in order of preference; `home` is the agent's folder."""

    name: str
    slots: int
    queues: tuple[str, ...]
    visibility_ms: int
    home: Path
    version: str = ""  # of the installed airunner; empty: unknown
    tenant: str = DEFAULT_TENANT  # to which the agent belongs
    tags: Mapping[str, str] = MappingProxyType({})  # tags of this agent, for jobs that require them
    log_bytes_max: int = 1 << 30  # limit of one attempt's logged output
    spool_bytes_max: int = 10 << 30  # limit of unacknowledged events, all attempts together
    flush: FlushPlan = FlushPlan()  # when output is sent
    jobs_max: int | None = None  # jobs that each slot runs before it ends; None: no limit
    idle_s_max: float | None = None  # seconds without a job after which the agent ends; None: no limit
    drain_s_max: float | None = None  # seconds for running jobs after a signal to end; None: no limit


def check_names(name: str | None, queues: Sequence[str]) -> None:
    """Check the names of the agent and its queues. Raises `OperatorError`."""
    for option, word in [("--name", "agent" if name is None else name), *(("--queue", word) for word in queues)]:
        if not fits_name(word):
            raise OperatorError(f"{option} {word!r}: expected {NAME_EXPECTED}")


def tags_of(pairs: Sequence[str], report: Callable[[str], None]) -> dict[str, str]:
    """Parse the tags of `--tag`, each TAG=VALUE; report a value that looks like a list of tags.

    Raises `OperatorError`: a tag is invalid, or there are too many.
    """
    if (hint := pairs_hint("--tag", pairs)) is not None:
        report(hint)
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, equals, value) in zip(pairs, split, strict=True):
        if not equals or not fits_name(name) or not fits_tag_value(value):
            raise OperatorError(f"--tag {pair!r}: expected TAG=VALUE such as os=linux, up to {NAME_CHARS_MAX} each")
    tags = {name: value for name, _, value in split}
    if len(tags) > TAGS_MAX:
        raise OperatorError(f"--tag: an agent has at most {TAGS_MAX} tags, not {len(tags)}")
    return tags


def schemes_of(named: Sequence[str] | None) -> tuple[str, ...]:
    """Check the schemes of `--allow-scheme`, which replace the default ones.

    Raises `OperatorError`: a scheme is malformed or never allowed.
    """
    for scheme in named or ():
        if not SCHEME.fullmatch(scheme) or scheme in FORBIDDEN_SCHEMES:
            raise OperatorError(f"--allow-scheme {scheme!r}: expected a scheme such as https, ssh, git or http")
    return tuple(dict.fromkeys(named)) if named else REMOTE_SCHEMES


def safe_paths(named: Sequence[str]) -> tuple[str, ...]:
    """Check the paths of `--safe-directory`. Raises `OperatorError`: one is not absolute, or cannot be one."""
    for path in named:
        if path != "*" and (not path.startswith("/") or not is_plain(path)):
            raise OperatorError(f"--safe-directory {path!r}: expected the absolute path of a repository, or *")
    return tuple(named)


def offered_secrets(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Look up the variables that `--secret` names. Raises `OperatorError`: a variable is not set."""
    for name in names:
        if name not in environ:
            raise OperatorError(f"--secret {name}: there is no such variable in the agent's environment: set it")
    return {name: environ[name] for name in names}


def operators_variables(words: Sequence[str], files: Sequence[Path], environ: Mapping[str, str]) -> dict[str, str]:
    """Read the variables of `--env-file` and `--env`, of which the last value of a name counts.

    Raises `OperatorError`: a file cannot be read or others could change it; a variable is malformed, not set, or the
    agent's own to set; they are too large.
    """
    found: dict[str, tuple[str | None, str]] = {}  # value, and where it comes from
    for file in files:
        read = variables_in(_read_env_file(file), str(file), environ)
        found |= {name: (value, f"{file}:") for name, value in read.items()}
    read = dict(of_flag("--env", partial(variable_of, environ=environ), word) for word in words)
    found |= {name: (value, "--env") for name, value in read.items()}
    given: dict[str, str] = {}
    for name, (value, source) in found.items():
        if name.startswith(RESERVED):
            raise OperatorError(f"{source} {name}: variables that begin with {RESERVED} are set by the agent")
        if value is None:
            raise OperatorError(f"{source} {name}: there is no such variable in the agent's environment: set it")
        given[name] = value
    if sum(len(f"{name}={value}") for name, value in given.items()) > VARIABLES_CHARS_MAX:
        raise OperatorError(f"--env, --env-file: the variables have more than {VARIABLES_CHARS_MAX} characters in all")
    return given


def _read_env_file(file: Path) -> bytes:
    try:
        if file.is_file() and (reason := unsafe_reason(file)):
            raise OperatorError(f"--env-file {file} is not safe to use: {reason}")
        with file.open("rb") as opened:
            return opened.read(ENV_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise OperatorError(f"--env-file {file} cannot be read: {error.strerror}") from error


def hooks_folder(named: Path | None, usual: Path) -> Path | None:
    """Return the folder of hooks: `named` by `--hooks`, or the home's own if it exists; None: no hooks.

    Raises `OperatorError`: `named` is not a folder, or other users could have changed or replaced the folder.
    """
    if named is not None and not named.is_dir():
        raise OperatorError(f"--hooks {named}: there is no such folder: make it, or name another")
    folder = named or usual
    if not folder.is_dir():
        return None
    if reason := unsafe_reason(folder):
        raise OperatorError(f"the hooks in {folder} are not safe to run: {reason}")
    return folder.absolute()


def users_of(named: Sequence[str], slots: int, home: Home, folder: Path) -> tuple[JobUser, ...]:
    """Look up the users of `--run-as`, and let them reach the workspaces in the agent's `folder`.

    Raises `OperatorError`: as `job_users` and `let_pass`.
    """
    users = job_users(named, slots)
    if users:
        workspaces = folder / WORKSPACES_FOLDER
        make_folder(workspaces)
        let_pass(users, workspaces, (home.root, home.agent, folder, workspaces))
    return users


def slots_possible(spawn: int, report: Callable[[str], None]) -> int:
    """Return the number of slots, at most `spawn`, for which the limit of open files suffices; report if it is smaller.

    This raises the process's soft limit, so call it after the launcher has started: jobs keep the original limit.
    """
    descriptors = raise_descriptors(AGENT_DESCRIPTORS + spawn * SLOT_DESCRIPTORS)
    possible = max(1, (descriptors - AGENT_DESCRIPTORS) // SLOT_DESCRIPTORS)
    if possible < spawn:
        report(
            f"--spawn {spawn}: only {possible} jobs run at once, because this process may open {descriptors} files; "
            "raise its hard limit (ulimit -Hn, LimitNOFILE=) or lower --spawn"
        )
    return min(spawn, possible)
