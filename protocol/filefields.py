"""Job fields about files, for the table `fields`: what a job leaves and what outlives it. Each type has its `Field`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from airunner.protocol.caches import CACHES_MAX, Cache
from airunner.protocol.errors import FieldError
from airunner.protocol.form import Field, Form
from airunner.protocol.names import TEXT_CHARS_MAX, Positive

ARTIFACTS_MAX: Final = 64  # globs of one job
KEEP_MAX: Final = 16  # paths of one job
GIT_FOLDER: Final = ".git"

Glob = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
Artifacts = Annotated[
    tuple[Glob, ...],
    Meta(max_length=ARTIFACTS_MAX),
    Field(
        "Files below the checkout to keep when the command has ended: a path, or a pattern such as dist/**/*.whl. "
        "A folder is kept with everything in it.",
        Form.WORDS,
        "--artifact",
        metavar="GLOB",
    ),
]
ArtifactRequired = Annotated[
    bool, Field("Fail the job with the reason `artifact-missing` if a GLOB matches no file.", Form.SWITCH)
]
Caches = Annotated[
    tuple[Cache, ...],
    Meta(max_length=CACHES_MAX),
    Field(
        "Cache to restore before the command and to save after it: go, cargo, pip, uv, npm, pnpm, ccache, gradle, "
        "maven; or a NAME, folders in ~/ or the checkout, and files whose content is its key.",
        Form.CACHES,
        "--cache",
        key="cache",
        metavar="NAME[@LABEL][:PATH,…[:FILE,…]]",
    ),
]
Keep = Annotated[
    tuple[Glob, ...],
    Meta(max_length=KEEP_MAX),
    Field(
        "Files of the workspace to save for `airunner continue`: a file or folder below the checkout, `.` for all but "
        ".git, or ~/PATH in the job's HOME.",
        Form.WORDS,
        metavar="PATH",
    ),
]
KeepEvery = Annotated[
    Positive | None,
    Field(
        "How often to save them while the command runs too.",
        Form.DURATION,
        "--keep-every",
        key="keepEvery",
        unset="only at the end",
    ),
]

Returns = Annotated[
    bool,
    Field(
        "Keep what the job changes in its checkout, as a commit: `airunner apply` brings it into a working tree.",
        Form.SWITCH,
        "--return",
    ),
]


def check_globs(globs: Sequence[str]) -> None:
    """Check the globs of artifacts. Raises `FieldError`: one could match what is not below the checkout."""
    for number, glob in enumerate(globs):
        if glob.startswith("/") or ".." in glob.split("/"):
            problem = f"expected a path or pattern below the checkout, such as dist/**/*.whl, not {glob!r}"
            raise FieldError("artifacts", problem, number)


def check_kept(paths: Sequence[str], every_seconds: int | None) -> None:
    """Check the paths to keep. Raises `FieldError`: one leads out of the workspace, or into the repository itself."""
    for number, path in enumerate(paths):
        names = path.split("/")
        if path.startswith("/") or ".." in names:
            problem = f"expected a path below the checkout, or ~/PATH in HOME, not {path!r}"
            raise FieldError("keep", problem, number)
        if next((name for name in names if name not in ("", ".")), "") == GIT_FOLDER:
            raise FieldError("keep", f"{path!r}: the repository itself is not kept, but checked out again", number)
    if every_seconds is not None and not paths:
        raise FieldError("keep_every_seconds", "this needs paths to keep: --keep PATH")
