"""Git revisions: how `commit`, `ref` and `branch` of a job name the commit to check out. Pure.

`commit` overrides `ref`, and both override `branch`.

| commit                  | means                                                                             |
|-------------------------|-----------------------------------------------------------------------------------|
| empty, `HEAD`           | the tip of `ref` or `branch`; if both are empty, the remote's HEAD                |
| 40 or 64 hex digits     | the commit, or that of the tag, with this hash, even if a branch has this name    |
| 4 to 63 hex digits      | a branch or tag, or the commit whose hash starts with these; refused if ambiguous, |
|                         | but with `depth` older commits count only if no branch or tag and no tip is meant |
| `refs/…`                | a ref of the remote: as `ref`                                                     |
| another name            | a branch or tag: as `branch`                                                      |

`branch` is the name of a branch, or else of a tag, as in `git clone --branch`. `ref` is the full name of one ref of the
remote, such as `refs/tags/v1` or `refs/pull/7/head`: it means the tag even if a branch has the same name.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.protocol.gitaddress import is_ref_name

FULL_HASH_CHARS: Final = (40, 64)  # SHA-1, SHA-256
HEAD: Final = "HEAD"
CONTAINER_PROGRAMS: Final = frozenset({"docker", "podman", "nerdctl", "apptainer", "singularity", "lxc", "bwrap"})
BRANCHES: Final = "refs/heads/"
TAGS: Final = "refs/tags/"
_DIGITS: Final = re.compile(r"[0-9a-fA-F]{4,64}")
_REFS: Final = "refs/"

_EXPECTED: Final = {
    "commit": "a hash, or the name of a branch or tag",
    "ref": "the full name of a ref",
    "branch": "the name of a branch or tag",
}


class Source(Struct, frozen=True, kw_only=True):
    """Source of a checkout: the fields of a job that decide it."""

    repository: str
    commit: str = ""
    ref: str = ""
    branch: str = ""
    depth: int | None = None
    submodules: bool = False
    dissociate: bool = False
    command: str = ""
    bundle: Path | None = None  # file with what the repository lacks of the commit

    @property
    def in_container(self) -> bool:
        """Whether the job's command starts a container, in which the agent's files are not visible."""
        return self.command.rpartition("/")[2] in CONTAINER_PROGRAMS


class Kind(Enum):
    """Kind of name of a revision."""

    HEAD = auto()
    NAME = auto()
    REF = auto()
    HASH = auto()
    HASH_OR_NAME = auto()


class Wanted(Struct, frozen=True):
    """Wanted revision: its name, and which kind of name that is."""

    kind: Kind
    text: str = ""


def wanted_of(source: Source) -> Wanted:
    """Return the revision that a source asks for."""
    by_commit = source.commit not in ("", HEAD)
    text = source.commit if by_commit else source.ref or source.branch
    if text in ("", HEAD):
        return Wanted(Kind.HEAD)
    if text.startswith(_REFS):
        return Wanted(Kind.REF, text)
    if by_commit and _DIGITS.fullmatch(text):
        return Wanted(Kind.HASH if len(text) in FULL_HASH_CHARS else Kind.HASH_OR_NAME, text)
    return Wanted(Kind.NAME, text)


def revision_refusal(source: Source) -> str | None:
    """Return the reason why this commit and branch must not be passed to git; None: they may be."""
    for what, text in (("commit", source.commit), ("ref", source.ref), ("branch", source.branch)):
        if text.startswith("-"):
            return f"the {what} begins with a dash"
        if text and not is_ref_name(text):
            return f"the {what} {text!r} is not {_EXPECTED[what]}"
    return None
