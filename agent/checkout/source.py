"""Source: the repository, and the commit of it, that a job asks to be checked out."""

from __future__ import annotations

from msgspec import Struct


class Source(Struct, frozen=True, kw_only=True):
    """Source of a checkout: `commit` overrides `branch` (or tag); without either it is the remote's HEAD."""

    repository: str
    commit: str = ""
    branch: str = ""
    depth: int | None = None
    submodules: bool = False
