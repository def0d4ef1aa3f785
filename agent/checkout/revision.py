"""Source of a checkout, and the revision that its `commit` and `branch` name: a hash, a branch, a tag, a ref. Pure.

| commit                  | is                                                                              |
|-------------------------|---------------------------------------------------------------------------------|
| empty, `HEAD`           | the tip of `branch`, which may be a tag; without one, of the remote's HEAD      |
| 40 or 64 digits         | that commit, whatever branches are called                                       |
| 4 to 63 other digits    | the branch or tag of that name, or the commit whose hash begins so; never a guess |
| `refs/…`                | that ref of the remote, such as `refs/pull/7/head`                              |
| another name            | that branch, else that tag, as `git clone --branch` takes it                    |
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from msgspec import Struct

FULL_HASH_CHARS: Final = (40, 64)  # SHA-1, SHA-256
HEAD: Final = "HEAD"
_DIGITS: Final = re.compile(r"[0-9a-fA-F]{4,64}")
_REFS: Final = "refs/"
_NO_NAME: Final = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[./]|[./]$"
)  # git-check-ref-format(1)


class Source(Struct, frozen=True, kw_only=True):
    """Source of a checkout: `commit` overrides `branch` (or tag); without either it is the remote's HEAD."""

    repository: str
    commit: str = ""
    branch: str = ""
    depth: int | None = None
    submodules: bool = False


class Kind(Enum):
    """Kind of a revision's name."""

    HEAD = auto()
    NAME = auto()
    REF = auto()
    HASH = auto()
    HASH_OR_NAME = auto()


class Wanted(Struct, frozen=True):
    """Wanted revision: its name, and the kind of that."""

    kind: Kind
    text: str = ""


def wanted_of(source: Source) -> Wanted:
    """Return the revision that a source asks for."""
    by_commit = source.commit not in ("", HEAD)
    text = source.commit if by_commit else source.branch
    if text in ("", HEAD):
        return Wanted(Kind.HEAD)
    if text.startswith(_REFS):
        return Wanted(Kind.REF, text)
    if by_commit and _DIGITS.fullmatch(text):
        return Wanted(Kind.HASH if len(text) in FULL_HASH_CHARS else Kind.HASH_OR_NAME, text)
    return Wanted(Kind.NAME, text)


def revision_refusal(source: Source) -> str | None:
    """Return why git must not be given this commit and branch; None where it may."""
    for what, text in (("commit", source.commit), ("branch", source.branch)):
        if text.startswith("-"):
            return f"the {what} begins with a dash"
        if _NO_NAME.search(text):
            wanted = "a hash, or the name of a branch or tag" if what == "commit" else "the name of a branch or tag"
            return f"the {what} {text!r} is not {wanted}"
    return None
