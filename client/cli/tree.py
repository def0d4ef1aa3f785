"""Tree of a job: `submit --tree` captures the working tree, uploads what its repository lacks, and submits that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from airunner.client.treecapture import captured
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import JobSpec

if TYPE_CHECKING:
    from airunner.client.client import Client


async def with_tree(client: Client, spec: JobSpec, include_ignored: Sequence[str]) -> JobSpec:
    """Return the job with the state of a working tree as its commit, uploaded. Raises `OperatorError`, `PeerError`."""
    with captured(_folder_of(spec), os.environ, include_ignored=include_ignored) as capture:
        tree = None if capture.bundle is None else await client.upload(capture.bundle)
        return replace(spec, repository=capture.repository, commit=capture.commit, tree=tree)


def _folder_of(spec: JobSpec) -> Path:
    for name in ("commit", "ref", "branch", "depth"):
        if getattr(spec, name):
            raise OperatorError(f"--tree runs the working tree as it is: leave out --{name}")
    folder = Path(spec.repository or ".").absolute()
    if not folder.is_dir():
        raise OperatorError(f"--tree needs a folder with a working tree, not {spec.repository}")
    return folder
