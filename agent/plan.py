"""Plan: what one agent does, and the checks of the options of `airunner agent` that make it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from airunner.agent.checkout.repository import NO_PLACES, REMOTE_SCHEMES, SCHEME
from airunner.agent.output.batching import FlushPlan
from airunner.agent.workspace.jobuser import JobUser, job_users, let_pass
from airunner.agent.workspace.workspace import WORKSPACES_FOLDER
from airunner.certs.home import Home
from airunner.certs.ownership import unsafe_reason
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError
from airunner.protocol.listhint import pairs_hint
from airunner.protocol.names import NAME_CHARS_MAX, NAME_EXPECTED, TAGS_MAX, fits_name, fits_tag_value
from airunner.transport.descriptors import raise_descriptors

SLOT_DESCRIPTORS: Final = 8  # a running job has 4 (two pipes, its keeper's line, its spool), for a moment up to 8
AGENT_DESCRIPTORS: Final = 64  # an agent without jobs has 20; the rest is for its disk and another connection


class Plan(Struct, frozen=True):
    """Plan of one agent: `slots` jobs at once from `queues`, in order of preference. `home` is its own folder."""

    name: str
    slots: int
    queues: tuple[str, ...]
    visibility_ms: int
    home: Path
    version: str = ""  # of this software
    tags: Mapping[str, str] = MappingProxyType({})  # of this agent, for jobs that require them
    log_bytes_max: int = 1 << 30  # of one attempt's output
    spool_bytes_max: int = 10 << 30  # of all spools together
    flush: FlushPlan = FlushPlan()  # when output is sent
    jobs_max: int | None = None  # that each slot runs before it ends; None: no limit
    idle_s_max: float | None = None  # without a job, before the agent ends; None: no limit


def check_names(name: str | None, queues: Sequence[str]) -> None:
    """Check the names of the agent and its queues. Raises `OperatorError`."""
    for option, word in [("--name", name or "agent"), *(("--queue", word) for word in queues)]:
        if not fits_name(word):
            raise OperatorError(f"{option} {word!r}: expected {NAME_EXPECTED}")


def tags_of(pairs: Sequence[str], report: Callable[[str], None]) -> dict[str, str]:
    """Parse the tags of `--tag`, each TAG=VALUE, and report a list that was most likely meant for several.

    Raises `OperatorError`.
    """
    if (hint := pairs_hint("--tag", pairs)) is not None:
        report(hint)
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, equals, value) in zip(pairs, split, strict=True):
        if not equals or not fits_name(name) or not fits_tag_value(value):
            raise OperatorError(f"--tag {pair!r}: expected TAG=VALUE such as os=linux, up to {NAME_CHARS_MAX} each")
    tags = {name: value for name, _, value in split}
    if len(tags) > TAGS_MAX:
        raise OperatorError(f"an agent has up to {TAGS_MAX} tags")
    return tags


def schemes_of(named: Sequence[str] | None) -> tuple[str, ...]:
    """Check the schemes of `--allow-scheme`, which replace the usual ones.

    Raises `OperatorError` for a scheme that is not one of remote repositories.
    """
    for scheme in named or ():
        if not SCHEME.fullmatch(scheme) or scheme in NO_PLACES:
            raise OperatorError(f"--allow-scheme {scheme!r}: expected a scheme such as https, ssh, git or http")
    return tuple(dict.fromkeys(named)) if named else REMOTE_SCHEMES


def offered_secrets(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Look up the variables of `--secret`. Raises `OperatorError` for one that is not set."""
    for name in names:
        if name not in environ:
            raise OperatorError(f"--secret {name}: there is no such variable in the agent's environment; set it")
    return {name: environ[name] for name in names}


def hooks_folder(named: Path | None, usual: Path) -> Path | None:
    """Return the folder of hooks: that of `--hooks`, or the usual one where it exists.

    Raises `OperatorError` where the named one is no folder, or others than its owner can write to it.
    """
    if named is not None and not named.is_dir():
        raise OperatorError(f"--hooks {named}: there is no such folder")
    folder = named or usual
    if not folder.is_dir():
        return None
    if reason := unsafe_reason(folder):
        raise OperatorError(f"the hooks in it are not to be trusted: {reason}")
    return folder.absolute()


def users_of(named: Sequence[str], slots: int, home: Home, folder: Path) -> tuple[JobUser, ...]:
    """Look up the users of `--run-as`, and let them reach the workspaces below the agent's `folder`.

    Raises `OperatorError`.
    """
    users = job_users(named, slots)
    if users:
        workspaces = folder / WORKSPACES_FOLDER
        make_folder(workspaces)
        let_pass(users, workspaces, (home.root, home.agent, folder, workspaces))
    return users


def slots_possible(spawn: int, report: Callable[[str], None]) -> int:
    """Return how many of `spawn` slots this process can have open files for, and report where that is fewer.

    It raises the limit of open files, so it comes after the launcher, whose jobs keep the limit as it was.
    """
    descriptors = raise_descriptors(AGENT_DESCRIPTORS + spawn * SLOT_DESCRIPTORS)
    possible = max(1, (descriptors - AGENT_DESCRIPTORS) // SLOT_DESCRIPTORS)
    if possible < spawn:
        report(
            f"--spawn {spawn}: only {possible} jobs run at once, for this process may open {descriptors} files; "
            "raise its hard limit (ulimit -Hn, LimitNOFILE=) or lower --spawn"
        )
    return min(spawn, possible)
