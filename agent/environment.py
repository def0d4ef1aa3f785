"""What a job's processes find in their environment. Pure.

Four layers, each stronger than the one before
- a small clean base: a few variables of the agent's own by name, everything else left out, so that no
  secret the agent was started with is ever handed to a job that did not ask for it;
- the job's own;
- the secrets that it names, and the paths of those that are files;
- AIRUNNER and the AIRUNNER_* below, which are always true.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct

TERMINAL_TYPE: Final = "xterm-256color"
NO_TERMINAL_TYPE: Final = "dumb"  # programs that look only at TERM then use neither colours nor cursor

_PASSED_ON: Final = ("PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL")
_PASSED_ON_PREFIX: Final = "LC_"
_FALLBACK: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SHELL": "/bin/sh",
}


class AttemptPlace(Struct, frozen=True, kw_only=True):
    """Which attempt this is, and where it runs. `repository`, `commit` and `branch` may be empty."""

    job_id: str
    attempt: int
    queue: str
    repository: str = ""
    commit: str = ""
    branch: str = ""
    workspace: Path
    home: Path
    temporary: Path


def job_environment(
    *,
    agent_environ: Mapping[str, str],
    place: AttemptPlace,
    job: Mapping[str, str],
    terminal: bool,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The whole environment of one attempt's command."""
    passed_on = {
        name: value for name, value in agent_environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
    }
    return {
        **_FALLBACK,
        **passed_on,
        "HOME": str(place.home),
        "TMPDIR": str(place.temporary),
        "TERM": TERMINAL_TYPE if terminal else NO_TERMINAL_TYPE,
        "CI": "true",
        **job,
        **secrets,
        "AIRUNNER": "true",
        "AIRUNNER_JOB_ID": place.job_id,
        "AIRUNNER_ATTEMPT": str(place.attempt),
        "AIRUNNER_QUEUE": place.queue,
        "AIRUNNER_REPOSITORY": place.repository,
        "AIRUNNER_COMMIT": place.commit,
        "AIRUNNER_BRANCH": place.branch,
        "AIRUNNER_WORKSPACE": str(place.workspace),
    }
