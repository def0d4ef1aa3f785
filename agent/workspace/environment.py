"""Environment variables of a job's processes, and of the operator's hooks around the job. Pure.

A job's environment has six layers; a later layer overrides the earlier ones
- a base: HOME, TMPDIR, TERM, CI, variables for programs that nobody attends (`_UNATTENDED`), and a few variables of the
  agent's environment, such as PATH. All others are left out, so that no job gets a secret of the agent's environment
  without naming it;
- the operator's variables for all jobs of the agent (`airunner agent --env`, `--env-file`);
- the job's own variables;
- the secrets that the job names, and the paths of secrets that are files;
- the variables that hooks have set for the later steps of the job (see `attempt.hookvariables`);
- AIRUNNER and the AIRUNNER_* below, which a job cannot override.

A hook is the operator's program and runs with the agent's rights. A job's variables must not control the hook's shell,
loader or interpreter (by BASH_ENV, PATH, LD_PRELOAD, HOME with a .gitconfig in it, and many more). So the hook gets the
job's variable NAME under the name AIRUNNER_ENV_NAME. The operator's variables and those of earlier hooks it gets by
their own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.jobsocket import SOCKET_VARIABLE
from airunner.protocol.names import fits_variable

JOB_PREFIX: Final = "AIRUNNER_ENV_"  # prefix of the names of the job's variables in the environment of hooks
RESERVED: Final = "AIRUNNER"  # beginning of the names of variables that only the agent sets
TERMINAL_TYPE: Final = "xterm-256color"
NO_TERMINAL_TYPE: Final = "dumb"  # programs that look only at TERM then use neither colours nor cursor

_PASSED_ON: Final = frozenset(("PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL"))
_PASSED_ON_PREFIX: Final = "LC_"
_HOOKS_OWN: Final = ("HOME", "TMPDIR")  # variables of the agent that hooks get, and jobs do not
_FALLBACK: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SHELL": "/bin/sh",
}
_UNATTENDED: Final = {
    "PAGER": "cat",  # a pager would wait for a key at the end of each screen; man, gh, psql and aws use this one too
    "GIT_PAGER": "cat",
    "SYSTEMD_PAGER": "cat",
    "EDITOR": "false",  # fails instead of waiting; GIT_EDITOR, VISUAL and git's core.editor of the job override it
    "GIT_MERGE_AUTOEDIT": "no",  # git merge writes its usual message, as it does without a terminal
    "GIT_TERMINAL_PROMPT": "0",  # git asks for no user name, and says that it lacks one
    "PYTHONUNBUFFERED": "1",  # otherwise Python loses what it has printed to a pipe when it is killed
}

_EXPORTED: Final = tuple((field.variable, field.name) for field in FIELDS.values() if field.exported)


class AttemptFacts(Struct, frozen=True, kw_only=True):
    """Facts of an attempt for its environment; `spec` has an address without credentials, and the full hash."""

    job_id: str
    attempt: int
    spec: JobSpec
    workspace: Workspace
    variables: Mapping[str, str]  # the job's own variables
    secrets: Mapping[str, str] = MappingProxyType({})  # by variable name: values, or paths of secrets that are files
    operators: Mapping[str, str] = MappingProxyType({})  # the operator's variables
    hooked: Mapping[str, str] = MappingProxyType({})  # variables of the hooks that have ended


def job_environment(facts: AttemptFacts, agent_environ: Mapping[str, str], *, terminal: bool) -> dict[str, str]:
    """Return the whole environment of an attempt's command."""
    return {
        **_FALLBACK,
        **_passed_on(agent_environ),
        "HOME": str(facts.workspace.home),
        "TMPDIR": str(facts.workspace.temporary),
        "TERM": TERMINAL_TYPE if terminal else NO_TERMINAL_TYPE,
        "CI": "true",
        **_UNATTENDED,
        **facts.operators,
        **facts.variables,
        **facts.secrets,
        **facts.hooked,
        **_variables(facts),
        **({SOCKET_VARIABLE: str(facts.workspace.socket)} if facts.workspace.listening else {}),
    }


def hook_environment(facts: AttemptFacts, agent_environ: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a hook, without the job's variables whose names no shell can read."""
    own = {name: agent_environ[name] for name in _HOOKS_OWN if name in agent_environ}
    jobs = {**facts.variables, **facts.secrets}
    given = {**facts.operators, **facts.hooked}
    return {
        **_FALLBACK,
        **_passed_on(agent_environ),
        "HOME": "/",
        **own,
        "TERM": NO_TERMINAL_TYPE,
        "CI": "true",
        **_UNATTENDED,
        **given,
        "PATH": absolute_path(given.get("PATH") or agent_environ.get("PATH", "")) or _FALLBACK["PATH"],
        **{f"{JOB_PREFIX}{name}": value for name, value in jobs.items() if fits_variable(name)},
        **_variables(facts),
        "AIRUNNER_JOB_HOME": str(facts.workspace.home),
        "AIRUNNER_JOB_TMPDIR": str(facts.workspace.temporary),
    }


def absolute_path(path: str) -> str:
    """Remove relative and empty folders from a PATH: they would mean folders of the checkout."""
    return ":".join(folder for folder in path.split(":") if folder.startswith("/"))


def _passed_on(agent_environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in agent_environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
    }


def _variables(facts: AttemptFacts) -> dict[str, str]:
    return {
        "AIRUNNER": "true",
        "AIRUNNER_JOB_ID": facts.job_id,
        "AIRUNNER_ATTEMPT": str(facts.attempt),
        **{variable: str(getattr(facts.spec, name)) for variable, name in _EXPORTED},
        "AIRUNNER_WORKSPACE": str(facts.workspace.checkout),
    }
